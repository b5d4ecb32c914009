"""Requests that clients cancel: their runs go on for a while, and end if nobody asks for them."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp_types import CancelledNotification, CancelledNotificationParams

from rlm_mcp.service.opening import open_service
from rlm_mcp.service.runs.abandoned import AbandonedRuns
from rlm_mcp.service.runs.live import LiveRun, LiveRuns, RunQueue
from rlm_mcp.service.runs.questions import Question
from rlm_mcp.service.runs.runs import RunState
from rlm_mcp.store.database import DATABASE_NAME, Database, open_database
from rlm_mcp.store.runs.abandoned import AbandonedMarks
from rlm_mcp.store.runs.records import NewRun
from rlm_mcp.store.runs.runs import Runs
from rlm_mcp.testing.scripted_model import open_scripted_model
from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView, Reply, Script
from tests.http_serving import ANN, Site, open_site
from tests.serving import Served, cell, settings_in
from tests.test_stdio import open_process

SHORT, LONG = 0.1, 3600.0
LONG_WAIT = 3000
BEFORE_THE_GATE = 3
"""Calls of a model: the first turn, its sub-call, and the turn that waits for the gate."""

Way = Callable[[Path, Script], AbstractAsyncContextManager[Served]]


def held_by(gate: anyio.Event) -> Script:
    """A run that pays for a turn and a sub-call, and whose second turn waits for a gate."""

    def script(request: ChatRequestView) -> Answer:
        if request.model == "sub":
            return "paid"
        if any(message["role"] == "assistant" for message in request.messages):
            return Reply(cell("FINAL(bought)"), gate=gate)
        # A prompt of its own for each run, and the same when the run is resumed.
        return cell("import random\nbought = llm_query(str(random.random()))\nprint(bought)")

    return script


def over_stdio(mode: str) -> Way:
    @asynccontextmanager
    async def way(directory: Path, script: Script) -> AsyncGenerator[Served]:
        grace: dict[str, Any] = {"RLM_MCP_CANCEL_GRACE_SECONDS": str(SHORT)}
        async with (
            open_scripted_model(script) as model,
            open_process(directory, model, mode=mode, **grace) as served,
        ):
            yield served

    return way


@asynccontextmanager
async def over_older_http(directory: Path, script: Script) -> AsyncGenerator[Served]:
    async with (
        open_site(directory, script, cancel_grace_seconds=SHORT) as site,
        site.open_client(mode="legacy") as served,
    ):
        yield served


WAYS: dict[str, Way] = {
    "stdio, newest revision": over_stdio("auto"),
    "stdio, older revision": over_stdio("legacy"),
    "HTTP, older revision": over_older_http,
}


async def asked_and_cancelled(served: Served, question: str) -> None:
    """Ask, and cancel the request once the run waits for the gate."""
    before = served.model.received
    async with anyio.create_task_group() as tasks:
        asked = {"question": question, "text": "abc", "wait_seconds": LONG_WAIT}
        tasks.start_soon(partial(served.raw, "rlm_query", **asked))
        await until_held(served, before)
        tasks.cancel_scope.cancel()


async def until_held(served: Served, before: int) -> None:
    with anyio.fail_after(60):
        await served.model.until(lambda: served.model.received >= before + BEFORE_THE_GATE)


async def until_one_is_cancelled(served: Served) -> None:
    """Wait until a run's call of a model is cut off."""
    with anyio.fail_after(60):
        await served.model.until(lambda: served.model.hung_up == 1)


@pytest.mark.parametrize("way", WAYS)
async def test_a_run_that_nobody_asks_for_ends_says_why_and_resumes_without_paying_twice(
    tmp_path: Path, way: str
) -> None:
    gate = anyio.Event()
    async with WAYS[way](tmp_path, held_by(gate)) as served:
        await asked_and_cancelled(served, "What was bought?")
        await until_one_is_cancelled(served)
        [listed] = (await served.call("rlm_run_list"))["runs"]
        ended = await served.ended(listed["run_id"])
        log = await served.call("rlm_run_trace", run_id=ended["run_id"], limit=100)
        paid = served.model.received
        gate.set()
        resumed = await served.call("rlm_run_resume", run_id=ended["run_id"], wait_seconds=60)

    assert ended["status"] == "cancelled"
    assert "The client cancelled the request" in ended["error"]["message"]
    assert ended["next"] == f'rlm_run_resume(run_id="{ended["run_id"]}")'
    last = log["events"][-1]
    assert last["type"] == "run_finished"
    assert "The client cancelled the request" in last["preview"]
    assert last["detail"]["error"] == ended["error"]
    assert (resumed["status"], resumed["answer"]) == ("completed", "paid")
    assert served.model.received == paid + 1  # the turn that was cut off


async def test_what_is_no_wish_to_end_a_run_leaves_it_at_work(tmp_path: Path) -> None:
    """All of these come before a cancellation that counts, and would have ended their run first."""
    async with (
        open_site(
            tmp_path, held_by(anyio.Event()), cancel_grace_seconds=SHORT, max_concurrent_runs=8
        ) as site,
        site.open_client() as newer,
        site.open_client(mode="legacy") as older,
    ):
        await asked_and_cancelled(newer, "Does a stream that is closed count?")
        await ask_and_vanish(site, newer, "Does a lost connection count?")
        await ask_in_time(older, "Does a request count that was answered?")
        await asked_and_cancelled(older, "Does this count?")
        await until_one_is_cancelled(older)
        await older.model.until(lambda: older.model.in_flight == 3)
        runs = (await older.call("rlm_run_list"))["runs"]

    working = {run["question"] for run in runs if run["status"] == "running"}
    assert working - {"Does this count?"} == {
        "Does a stream that is closed count?",
        "Does a lost connection count?",
        "Does a request count that was answered?",
    }


async def ask_and_vanish(site: Site, served: Served, question: str) -> None:
    """Ask as a client of the older revision whose machine is switched off."""
    before = served.model.received
    async with site.open_http(ANN) as http:
        greeting: dict[str, Any] = {"protocolVersion": "2025-11-25", "capabilities": {}}
        greeting |= {"clientInfo": {"name": "raw", "version": "1"}}
        accept = {"accept": "application/json, text/event-stream"}
        hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": greeting}
        came = await http.post("/mcp", json=hello, headers=accept)
        session = accept | {"mcp-session-id": came.headers["mcp-session-id"]}
        ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        await http.post("/mcp", json=ready, headers=session)
        asked = {"question": question, "text": "abc", "wait_seconds": LONG_WAIT}
        call: dict[str, Any] = {"jsonrpc": "2.0", "id": 2, "method": "tools/call"}
        call["params"] = {"name": "rlm_query", "arguments": asked}
        async with http.stream("POST", "/mcp", content=json.dumps(call), headers=session | JSON):
            await until_held(served, before)


JSON = {"content-type": "application/json"}


async def ask_in_time(served: Served, question: str) -> None:
    """Ask and get an answer, then cancel the request, and every other, as opencode does."""
    before = served.model.received
    await served.call("rlm_query", question=question, text="abc", wait_seconds=0)
    await until_held(served, before)
    for number in range(20):
        params = CancelledNotificationParams(request_id=number, reason="AbortError")
        await served.client.session.send_notification(CancelledNotification(params=params))


@pytest.fixture
async def database(tmp_path: Path) -> AsyncGenerator[Database]:
    async with open_database(tmp_path / DATABASE_NAME) as database:
        yield database


async def abandoned_run(database: Database, live: LiveRuns, abandoned: AbandonedRuns) -> None:
    """A run at work that was abandoned, and is marked so."""
    await Runs(database, owner="me").create(NewRun("run_1", "?"))
    live.add(LiveRun("run_1", RunQueue(1).enter()))
    news = live.news("run_1")
    abandoned.add("run_1")
    with anyio.fail_after(60):
        await news.wait()


async def test_whoever_looks_at_an_abandoned_run_keeps_it_also_from_another_server(
    tmp_path: Path, database: Database
) -> None:
    live = LiveRuns()
    async with (
        open_database(tmp_path / DATABASE_NAME) as same_file,
        anyio.create_task_group() as tasks,
    ):
        abandoned = AbandonedRuns(AbandonedMarks(database), live, tasks, LONG)
        await abandoned_run(database, live, abandoned)
        elsewhere = Runs(same_file, owner="another")
        seen = await elsewhere.get("run_1")
        others = AbandonedRuns(AbandonedMarks(same_file), LiveRuns(), tasks, LONG)
        await others.seen("run_1")
        assert seen.abandoned_at is not None
        was_there = await AbandonedMarks(database).use("run_1", seen.abandoned_at)
        tasks.cancel_scope.cancel()

        assert not was_there


async def test_an_abandoned_run_ends_after_the_time_that_the_operator_set(
    database: Database,
) -> None:
    live = LiveRuns()
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            abandoned = AbandonedRuns(AbandonedMarks(database), live, tasks, SHORT)
            await abandoned_run(database, live, abandoned)
    [run] = live
    assert (run.stop, run.scope.cancel_called) == ("cancelled", True)
    assert "the 0.1 s after that" in (run.stop_error or {})["message"]


async def test_a_time_of_0_leaves_every_run_at_work(database: Database) -> None:
    live = LiveRuns()
    run = LiveRun("run_1", RunQueue(1).enter())
    live.add(run)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            AbandonedRuns(AbandonedMarks(database), live, tasks, 0).add("run_1")

    assert not run.scope.cancel_called


async def test_somebody_who_waits_already_keeps_the_run(tmp_path: Path) -> None:
    """The mark is gone before the waiting caller is told of it."""
    marks: list[float] = []
    told = anyio.Event()

    async def report(state: RunState) -> None:
        if state.abandoned_at is not None:
            marks.append(state.abandoned_at)
            told.set()

    gate = anyio.Event()
    async with open_scripted_model(held_by(gate)) as model:
        settings = settings_in(tmp_path, base_url=model.base_url, cancel_grace_seconds=LONG)
        async with open_service(settings) as service, anyio.create_task_group() as tasks:
            begun = await service.runs.begin(Question("?", inline_text="abc"))
            with anyio.fail_after(60):
                await model.until(lambda: model.received == BEFORE_THE_GATE)
                tasks.start_soon(service.runs.wait, begun.run_id, LONG_WAIT, report)
                service.runs.abandon(begun.run_id)
                await told.wait()
            async with open_database(settings.data_dir / DATABASE_NAME) as same_file:
                kept = await Runs(same_file, owner="another").get(begun.run_id)
            gate.set()
            assert kept.abandoned_at is None

    assert len(marks) == 1
