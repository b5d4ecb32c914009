"""Does what a worker asks: fetches its questions, and hands the answers over.

A call to a worker costs more than most answers do, so answers that are soon there travel with the
call that fetches the next questions.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import TaskGroup

from rlm_mcp.service.executor.messages import NOBODY, Answer, Ask, CellCall, Crowded, TextPart

if TYPE_CHECKING:
    from rlm_mcp.service.executor.crew import CrewWorker

SOON_SECONDS = 0.05


@dataclass
class _Group:
    """Questions that were fetched together, and their answers."""

    asks: Sequence[Ask]
    answers: list[Answer] = field(default_factory=list[Answer])
    answered: anyio.Event = field(default_factory=anyio.Event)
    is_sent_alone: bool = False


async def serve_worker(
    worker: CrewWorker,
    tasks: TaskGroup,
    hold: Callable[[CrewWorker | None, Crowded], Coroutine[Any, Any, None]],
) -> None:
    """Do what a worker asks, for as long as it lives.

    Args:
        worker: who asks.
        tasks: where what takes longer is done; it ends when the worker is lost.
        hold: has all others leave a provider alone that refused this one a call.

    Raises:
        WorkerLostError: the worker is lost.
    """
    answers: Sequence[Answer] = ()
    while True:
        asks: list[Ask] = await worker.process.call("take", answers)
        quick: list[Ask] = []
        for ask in asks:
            if isinstance(ask.question, Crowded):
                tasks.start_soon(hold, worker, ask.question)
            elif isinstance(ask.question, TextPart | CellCall):
                tasks.start_soon(_answer, worker, _Group([ask], is_sent_alone=True))
            elif ask.number == NOBODY:
                tasks.start_soon(worker.answer, ask)
            else:
                quick.append(ask)
        answers = await _answers_soon(worker, tasks, quick) if quick else ()


async def _answers_soon(
    worker: CrewWorker, tasks: TaskGroup, asks: Sequence[Ask]
) -> Sequence[Answer]:
    """Answer, and return the answers; none where that takes long, and they go by themselves."""
    group = _Group(asks)
    tasks.start_soon(_answer, worker, group)
    with anyio.move_on_after(SOON_SECONDS):
        await group.answered.wait()
    if group.answered.is_set():
        return group.answers
    group.is_sent_alone = True
    return ()


async def _answer(worker: CrewWorker, group: _Group) -> None:
    async def answer(ask: Ask) -> None:
        group.answers.append(await worker.answer(ask))

    async with anyio.create_task_group() as tasks:
        for ask in group.asks:
            tasks.start_soon(answer, ask)
    group.answered.set()
    if group.is_sent_alone:
        await worker.process.call("settle", group.answers)
