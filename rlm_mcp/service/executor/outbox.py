"""What a worker asks the server: gathered, fetched in groups, and answered one by one.

The server calls a worker, never the other way round, so that it needs no open port for them. Lines
of all runs travel together: while one group is under way, the next one fills up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

import anyio

from rlm_mcp.service.executor.messages import (
    NOBODY,
    Answer,
    Ask,
    Crowded,
    Earlier,
    Ended,
    FindReplies,
    KeepReplies,
    Lines,
    Place,
    Question,
    Refused,
    given,
)

if TYPE_CHECKING:
    from rlm_mcp.engine.cache import SubCallCache
    from rlm_mcp.engine.daily_limits import Allowance, Spent
    from rlm_mcp.store.runs.records import NewEvent, Outcome, RunRecord, SavedVariable

MOST_AT_ONCE = 256
# Lines after which no model is asked before a further line: that one waits for them too. They are
# those of a run itself; a judge of several attempts is asked without a line before it.
TOLD = frozenset({"code_generated", "code_executed", "sub_calls_finished", "final_answer"})
_ENDED = Refused("RunLostError", "The worker has ended.")


@dataclass
class _Waiting:
    done: anyio.Event = field(default_factory=anyio.Event)
    value: Any = None


class Outbox:
    """The questions of one worker that the server has not answered yet."""

    def __init__(self) -> None:
        self._asks: deque[Ask] = deque()
        self._waiting: dict[int, _Waiting] = {}
        self._numbers = count(1)
        self._news = anyio.Event()
        self._is_closed = False

    def close(self) -> None:
        """Refuse all that was asked and is asked from now on: nobody answers any more."""
        self._is_closed = True
        self.settle([Answer(number, _ENDED) for number in self._waiting])

    async def ask(self, run_id: str, attempt: int, question: Question) -> Any:
        """Ask the server, and wait for the answer.

        Raises:
            RLMError: it was refused.
        """
        if self._is_closed:
            return given(_ENDED)
        number = next(self._numbers)
        waiting = self._waiting[number] = _Waiting()
        self._asks.append(Ask(number, run_id, attempt, question))
        self._news.set()
        try:
            await waiting.done.wait()
        finally:
            del self._waiting[number]
        return given(waiting.value)

    def tell(self, run_id: str, attempt: int, question: Question | Crowded) -> Ask:
        """Send something that needs no answer."""
        ask = Ask(NOBODY, run_id, attempt, question)
        self._asks.append(ask)
        self._news.set()
        return ask

    def take_back(self, told: Ask) -> bool:
        """Send something that was told no more; returns False where it was fetched by now."""
        if told not in self._asks:
            return False
        self._asks.remove(told)
        return True

    async def take(self) -> list[Ask]:
        """Wait until there is something to ask, and return the next group."""
        while not self._asks:
            self._news = anyio.Event()
            await self._news.wait()
        return [self._asks.popleft() for _ in range(min(MOST_AT_ONCE, len(self._asks)))]

    def settle(self, answers: Sequence[Answer]) -> None:
        """Hand answers to whoever waits for them."""
        for answer in answers:
            waiting = self._waiting.get(answer.number)
            if waiting is not None:
                waiting.value = answer.value
                waiting.done.set()


class RemoteJournal:
    """The log of one run, written by the server; a `Journal`.

    Args:
        outbox: of this worker.
        at: the run, and the attempt whose lines these are.
        caller: whose run it is.
        allowance: what the caller may use today, where that is limited.
        hold_repl: holds the run's REPL at its end, and returns whether there is one.
    """

    def __init__(
        self,
        outbox: Outbox,
        at: Place,
        caller: str,
        allowance: Allowance | None,
        hold_repl: Callable[[Place], bool],
    ) -> None:
        self._outbox = outbox
        self._at = at
        self._hold_repl = hold_repl
        self._told: Ask | None = None
        self.caller = caller
        self.allowance = allowance

    async def begin_work(self, run_id: str) -> None:
        """Do nothing: a run waits in line at the server, before it is sent."""

    async def append_events(self, run_id: str, events: Sequence[NewEvent]) -> None:
        """Append lines, one after another; they last once this returns.

        Raises:
            StoreError: as for `append_event`.
        """
        for event in events:
            await self.append_event(run_id, event)

    async def append_event(self, run_id: str, event: NewEvent) -> None:
        """Append a line; it lasts once this returns, with all lines before it.

        One after which no model is asked before a further line is told and not waited for, as are
        those that are `TOLD`: the further line waits for it.

        Raises:
            StoreError: it or a line before it could not be stored, or the run is another attempt's
                by now.
        """
        events = (*self._not_fetched(), event)
        if event.depth == 0 and event.type in TOLD:
            self._told = self._outbox.tell(*self._at, Lines(events, is_awaited=False))
            return
        spent: Spent | None = await self._outbox.ask(*self._at, Lines(events))
        if self.allowance is not None and spent is not None:
            self.allowance.learn(spent)

    def _not_fetched(self) -> Sequence[NewEvent]:
        """Take back lines that were told and not fetched, so that they travel with the next one."""
        told, self._told = self._told, None
        if told is None or not isinstance(told.question, Lines):
            return ()
        return told.question.events if self._outbox.take_back(told) else ()

    async def get(self, run_id: str) -> RunRecord:
        """Return the record of a run of the same caller.

        Raises:
            NotFoundError: there is no such run.
        """
        return await self._outbox.ask(*self._at, Earlier(run_id))

    async def finish(
        self,
        run_id: str,
        outcome: Outcome,
        event: NewEvent,
        variables: Sequence[SavedVariable] | None = None,
    ) -> None:
        """Tell the server how the work ended; it stores the end of the run.

        Raises:
            StoreError: the run is another attempt's by now.
        """
        is_held = self._hold_repl(self._at)
        await self._outbox.ask(*self._at, Ended(outcome, event.figures, variables, is_held))


class RemoteReplies:
    """The replies of sub-calls that the server keeps for the caller of one run."""

    def __init__(self, outbox: Outbox, at: Place) -> None:
        self._outbox = outbox
        self._at = at

    def paid_by(self, run_id: str) -> SubCallCache:
        """Return the replies; those that are kept belong to this run in any case."""
        return self

    async def get_many(self, keys: list[str]) -> Mapping[str, str]:
        """Return the replies that are kept.

        Raises:
            StoreError: they could not be read.
        """
        return await self._outbox.ask(*self._at, FindReplies(keys))

    async def put_many(self, texts: Mapping[str, str]) -> None:
        """Keep replies.

        Raises:
            StoreError: they could not be kept.
        """
        await self._outbox.ask(*self._at, KeepReplies(texts))
