"""Lines of logs as workers send them: which are waited for, and what is lost with a worker."""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import closing
from functools import partial
from pathlib import Path

import anyio
import pytest

from rlm_mcp.errors import StoreBusyError, StoreError
from rlm_mcp.service import opening, saved_variables
from rlm_mcp.service.contexts.requests import NewText
from rlm_mcp.service.contexts.writing import no_report
from rlm_mcp.service.executor import crew
from rlm_mcp.service.executor.attempt_log import AttemptLog
from rlm_mcp.service.executor.messages import NOBODY, Answer, Ask, Lines, Refused
from rlm_mcp.service.executor.outbox import TOLD, Outbox, RemoteJournal
from rlm_mcp.service.runs import execution
from rlm_mcp.service.runs.questions import Question
from rlm_mcp.service.service import Service
from rlm_mcp.store.database import DATABASE_NAME, open_database
from rlm_mcp.store.runs.records import NewEvent, NewRun
from rlm_mcp.store.runs.runs import Runs
from rlm_mcp.testing.scripted_model import ScriptedModel, open_scripted_model
from rlm_mcp.testing.scripted_replies import Answer as Scripted
from rlm_mcp.testing.scripted_replies import ChatRequestView, Reply
from tests.in_process_cluster import InProcessCluster, ended, open_front
from tests.serving import cell
from tests.waiting import until

RUN = "run_" + "ab" * 16
STEPS = 2


@pytest.fixture(autouse=True)
def settings_of_the_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLM_MCP_API_KEY", "key-of-the-nodes")
    monkeypatch.setattr(saved_variables, "SAVE_SECONDS", 0.2)
    monkeypatch.setattr(crew, "RESTART_SECONDS", 0.01)


def journal_of(outbox: Outbox) -> RemoteJournal:
    return RemoteJournal(outbox, (RUN, 1), "", None, lambda _: False)


async def append(journal: RemoteJournal, outbox: Outbox, event: NewEvent) -> list[Ask]:
    """Append a line that is waited for; return what the server fetched, which it then answers."""
    fetched: list[Ask] = []
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(journal.append_event, RUN, event)
            await anyio.wait_all_tasks_blocked()
            fetched += await outbox.take()
            outbox.settle([Answer(ask.number) for ask in fetched])
    return fetched


def lines_of(asks: list[Ask]) -> list[list[str]]:
    return [
        [event.type for event in ask.question.events]
        for ask in asks
        if isinstance(ask.question, Lines)
    ]


async def test_a_line_after_which_no_model_is_asked_travels_with_the_next_one() -> None:
    outbox = Outbox()
    journal = journal_of(outbox)
    with anyio.fail_after(60):  # nobody answers
        await journal.append_event(RUN, NewEvent("code_generated"))
        await journal.append_event(RUN, NewEvent("code_executed"))
    fetched = await append(journal, outbox, NewEvent("iteration_start"))

    assert lines_of(fetched) == [["code_generated", "code_executed", "iteration_start"]]


async def test_a_line_that_the_server_has_fetched_is_not_sent_again() -> None:
    outbox = Outbox()
    journal = journal_of(outbox)
    await journal.append_event(RUN, NewEvent("code_generated"))
    first = await outbox.take()
    await journal.append_event(RUN, NewEvent("code_executed"))
    second = await append(journal, outbox, NewEvent("iteration_start"))

    assert [ask.number for ask in first] == [NOBODY]
    assert lines_of(first) == [["code_generated"]]
    assert lines_of(second) == [["code_executed", "iteration_start"]]


@pytest.mark.parametrize("type_", sorted(TOLD))
async def test_a_line_of_a_run_inside_is_waited_for(type_: str) -> None:
    """A judge of several attempts is asked without a line before it."""
    outbox = Outbox()
    fetched = await append(journal_of(outbox), outbox, NewEvent(type_, depth=1))

    assert [ask.number for ask in fetched] != [NOBODY]


async def test_a_line_that_is_refused_is_told_to_whoever_waits_for_the_next_one() -> None:
    outbox = Outbox()
    journal = journal_of(outbox)
    await journal.append_event(RUN, NewEvent("code_executed"))

    async def refuse() -> None:
        [ask] = await outbox.take()
        outbox.settle([Answer(ask.number, Refused("StoreError", "no room"))])

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(refuse)
            with pytest.raises(StoreError, match="no room"):
                await journal.append_event(RUN, NewEvent("iteration_start"))


def hold(path: Path) -> sqlite3.Connection:
    """Keep a file from being written to, until the connection is closed."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    return connection


@pytest.mark.parametrize("is_awaited", [True, False])
async def test_no_line_follows_a_refused_one_of_which_nobody_was_told(
    tmp_path: Path, *, is_awaited: bool
) -> None:
    path = tmp_path / DATABASE_NAME
    async with open_database(path, busy_seconds=0.1) as database:
        runs = Runs(database, owner="front")
        await runs.create(NewRun(RUN, "?"))
        log = AttemptLog(runs, RUN)
        await log.append(Lines([NewEvent("iteration_start")], is_awaited=False))
        with closing(hold(path)), pytest.raises(StoreBusyError):
            await log.append(Lines([NewEvent("code_executed")], is_awaited=is_awaited))
        if is_awaited:
            await log.append(Lines([NewEvent("warning")]))
        else:
            with pytest.raises(StoreBusyError):
                await log.append(Lines([NewEvent("iteration_start")]))
        events = await runs.events(RUN)

    assert (await log.settled() is None) == is_awaited
    told = ["iteration_start", "warning"] if is_awaited else ["iteration_start"]
    assert [event.type for event in events] == told


def script(request: ChatRequestView) -> Scripted:
    """Some turns with a sub-call each."""
    if request.model == "sub":
        return Reply("reply " + re.findall(r"step (\d+)", request.text)[0])
    turn = sum(message["role"] == "assistant" for message in request.messages)
    if turn == STEPS:
        return cell("FINAL(' '.join(replies))")
    first = "replies = []\n" if turn == 0 else ""
    return cell(f"{first}replies.append(llm_query('step {turn}' + context[:7]))\nprint(replies)")


ANSWER = " ".join(f"reply {step}" for step in range(STEPS))


@pytest.fixture
async def model() -> AsyncGenerator[ScriptedModel]:
    async with open_scripted_model(script) as model:
        yield model


async def begin(service: Service) -> str:
    added = await service.contexts.add(NewText(text="nothing of note " * 50), no_report)
    return (await service.runs.begin(Question("What?", (str(added.handle),)))).run_id


@pytest.mark.usefixtures("one_sandbox_for_all")
@pytest.mark.parametrize("fetched", range(1, 16))
async def test_whenever_a_worker_is_lost_with_its_lines_only_one_call_is_paid_twice(
    tmp_path: Path, model: ScriptedModel, fetched: int
) -> None:
    """What it was about to hand over, for the so many-th time, is lost with it."""
    cluster = InProcessCluster(last_take=fetched)
    async with open_front(tmp_path, model, cluster) as service:
        run_id = await begin(service)
        state = await ended(service, run_id)
        events = await service.runs.events(run_id, 0, 500)

    assert (state.status, state.answer) == ("completed", ANSWER)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    # A cell that runs again gets its replies again, which the log says.
    once = TOLD - {"sub_calls_finished"}
    steps = Counter((one.type, one.iteration) for one in events if one.type in once)
    assert set(steps.values()) == {1}
    assert model.received <= 2 * STEPS + 1 + 1


@pytest.mark.usefixtures("one_sandbox_for_all")
async def test_a_run_whose_last_lines_cannot_be_stored_has_failed_and_is_resumed_from_what_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(execution, "_RETRY_SECONDS", 0.05)
    impatient = partial(open_database, busy_seconds=0.1)
    monkeypatch.setattr(opening, "open_database", impatient)
    gate = anyio.Event()
    async with (
        open_scripted_model(lambda _: Reply(cell("FINAL('done')"), gate=gate)) as model,
        open_front(tmp_path, model, InProcessCluster(1)) as service,
    ):
        run_id = await begin(service)
        with anyio.fail_after(60):
            await model.until(lambda: model.in_flight == 1)
        with closing(hold(tmp_path / "data" / DATABASE_NAME)):
            gate.set()
            await until(lambda: f"storing the end of run {run_id} failed" in caplog.text)
        failed = await ended(service, run_id)
        types = [event.type for event in await service.runs.events(run_id, 0, 100)]
        kept = (await service.measures()).kept_repls
        await service.runs.resume(run_id, {})
        state = await ended(service, run_id)

    assert (failed.status, failed.answer, kept) == ("failed", None, 0)
    assert (failed.error or {})["code"] == StoreBusyError.code
    assert types == ["run_started", "iteration_start", "run_finished"]
    assert (state.status, state.answer, model.received) == ("completed", "done", 2)
