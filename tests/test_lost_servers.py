"""Runs of servers that are gone: where there are workers, the next server continues them."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from rlm_mcp.service import saved_variables
from rlm_mcp.service.contexts.requests import NewText
from rlm_mcp.service.contexts.writing import no_report
from rlm_mcp.service.opening import open_service
from rlm_mcp.service.runs.live import LiveRuns
from rlm_mcp.service.runs.other_servers import OtherServers
from rlm_mcp.service.runs.questions import Question
from rlm_mcp.service.service import Service
from rlm_mcp.store.database import DATABASE_NAME, open_database
from rlm_mcp.store.runs.attempts import MAX_ATTEMPTS
from rlm_mcp.store.runs.leases import Cancels, RunLeases
from rlm_mcp.store.runs.owners import is_surely_dead, owner_id
from rlm_mcp.store.runs.records import NewEvent, NewRun
from rlm_mcp.store.runs.runs import Runs
from rlm_mcp.testing.scripted_model import ScriptedModel, open_scripted_model
from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView, Reply
from tests.in_process_cluster import InProcessCluster, ended
from tests.serving import SHARED_SANDBOX, cell, settings_in

pytestmark = pytest.mark.usefixtures("one_sandbox_for_all")

STEPS = 4
ANSWER = " ".join(f"reply {step}" for step in range(STEPS))
NEEDED = 2 * STEPS + 1


class Script:
    """Some turns with a sub-call each; the third sub-call gets no reply while `holds`."""

    def __init__(self) -> None:
        self.holds = True

    def __call__(self, request: ChatRequestView) -> Answer:
        if request.model == "sub":
            step = re.findall(r"step (\d+)", request.text)[0]
            held = anyio.Event() if self.holds and step == "2" else None
            return Reply(f"reply {step}", gate=held)
        turn = sum(message["role"] == "assistant" for message in request.messages)
        if turn == STEPS:
            return cell("FINAL(' '.join(replies))")
        first = "replies = []\n" if turn == 0 else ""
        return cell(f"{first}replies.append(llm_query('step {turn}'))\nprint(replies)")


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
async def model(script: Script) -> AsyncGenerator[ScriptedModel]:
    async with open_scripted_model(script) as model:
        yield model


@pytest.fixture(autouse=True)
def settings_of_the_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLM_MCP_API_KEY", "key-of-the-nodes")
    monkeypatch.setattr(saved_variables, "SAVE_SECONDS", 0.2)


@pytest.fixture
def dead() -> str:
    """A server that had the number of this process before."""
    pid, started, *place = owner_id().split(":")
    owner = ":".join([pid, str(int(started) - 1), *place])
    if not is_surely_dead(owner):
        pytest.skip("this platform does not say when processes began")
    return owner


@asynccontextmanager
async def open_next(
    directory: Path, model: ScriptedModel, *, has_workers: bool = True
) -> AsyncGenerator[Service]:
    """A server that takes runs up, over a cluster of this process or with none."""
    settings = settings_in(directory, base_url=model.base_url)
    shared, cluster = SHARED_SANDBOX.get(), InProcessCluster() if has_workers else None
    async with open_service(settings, shared=shared, cluster=cluster, purpose="serve") as service:
        yield service


async def left_behind(directory: Path, model: ScriptedModel, owner: str) -> tuple[Path, str]:
    """Copy the file of a server that is at work on a run, as one that was killed then leaves it."""
    async with open_next(directory / "first", model) as service:
        added = await service.contexts.add(NewText(text="nothing of note " * 1000), no_report)
        run_id = (await service.runs.begin(Question("What?", (str(added.handle),)))).run_id
        with anyio.fail_after(60):
            await model.until(lambda: any("step 2" in one.text for one in model.requests))
        place = directory / "next" / "data"
        await anyio.to_thread.run_sync(_copy, directory / "first" / "data", place)
    await anyio.to_thread.run_sync(_set, place, "owner = ?", owner)
    return directory / "next", run_id


def _copy(place: Path, to: Path) -> None:
    to.mkdir(parents=True)
    with (
        closing(sqlite3.connect(place / DATABASE_NAME)) as one,
        closing(sqlite3.connect(to / DATABASE_NAME)) as other,
    ):
        one.backup(other)


def _set(place: Path, change: str, *values: Any) -> None:
    with closing(sqlite3.connect(place / DATABASE_NAME)) as db, db:
        db.execute(f"UPDATE runs SET {change}", values)


async def test_whoever_only_looks_leaves_the_run_of_a_lost_server_to_the_next_one(
    tmp_path: Path, model: ScriptedModel, script: Script, dead: str
) -> None:
    directory, run_id = await left_behind(tmp_path, model, dead)
    script.holds = False
    settings = settings_in(directory, base_url=model.base_url, ray_address="127.0.0.9:6379")
    async with open_service(settings, shared=SHARED_SANDBOX.get(), purpose="look") as service:
        seen = await service.runs.state(run_id)
    async with open_next(directory, model) as service:
        state = await ended(service, run_id)

    assert (seen.status, seen.attempt) == ("running", 1)
    assert (state.status, state.attempt) == ("completed", 2)


def work_beside(directory: Path, model: ScriptedModel) -> AbstractAsyncContextManager[Service]:
    """What a command has done that is not a server, such as `rlm-mcp query`, over a cluster."""
    settings = settings_in(directory, base_url=model.base_url)
    return open_service(settings, shared=SHARED_SANDBOX.get(), cluster=InProcessCluster())


async def test_a_command_that_asks_leaves_the_run_of_a_lost_server_to_the_next_one(
    tmp_path: Path, model: ScriptedModel, script: Script, dead: str
) -> None:
    directory, run_id = await left_behind(tmp_path, model, dead)
    script.holds = False
    async with work_beside(directory, model) as service:
        added = await service.contexts.add(NewText(text="another text"), no_report)
        own = (await service.runs.begin(Question("And?", (str(added.handle),)))).run_id
        answered = await ended(service, own)
        seen = await service.runs.state(run_id)
    async with open_next(directory, model) as service:
        state = await ended(service, run_id)

    assert (answered.status, seen.status, seen.attempt) == ("completed", "running", 1)
    assert (state.status, state.attempt) == ("completed", 2)


@pytest.mark.parametrize("waits", [True, False])
async def test_a_command_that_wants_the_run_of_a_lost_server_can_resume_it(
    tmp_path: Path, model: ScriptedModel, script: Script, dead: str, waits: bool
) -> None:
    directory, run_id = await left_behind(tmp_path, model, dead)
    script.holds = False
    asked = len(model.requests)
    async with work_beside(directory, model) as service:
        if waits:
            waited = await ended(service, run_id)
            assert waited.status == "interrupted"
        await service.runs.resume(run_id, {})
        state = await ended(service, run_id)

    assert (state.status, state.answer, state.attempt) == ("completed", ANSWER, 2)
    assert asked < len(model.requests) <= NEEDED + 1  # the one in flight


async def test_the_next_server_continues_a_run_by_itself_and_it_stays_running(
    tmp_path: Path, model: ScriptedModel, script: Script, dead: str
) -> None:
    directory, run_id = await left_behind(tmp_path, model, dead)
    script.holds = False
    asked = len(model.requests)
    async with open_next(directory, model) as service:
        first = await service.runs.state(run_id)
        state = await ended(service, run_id)
        events = await service.runs.events(run_id, 0, 500)

    assert first.status == "running"
    assert (state.status, state.answer, state.attempt) == ("completed", ANSWER, 2)
    assert "continues on another server" in [event.preview for event in events]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert asked < len(model.requests) <= NEEDED + 1  # the one in flight


async def test_a_server_without_workers_finds_it_interrupted(
    tmp_path: Path, model: ScriptedModel, script: Script, dead: str
) -> None:
    directory, run_id = await left_behind(tmp_path, model, dead)
    script.holds = False
    async with open_next(directory, model, has_workers=False) as service:
        first = await service.runs.state(run_id)
        await service.runs.resume(run_id, {})
        state = await ended(service, run_id)

    assert first.status == "interrupted"
    assert (state.status, state.answer) == ("completed", ANSWER)


@pytest.mark.parametrize(
    ("change", "status", "told"),
    [
        ("cancel_requested = 1", "cancelled", None),
        (f"takeovers = {MAX_ATTEMPTS - 1}", "interrupted", "5 workers were lost"),
    ],
)
async def test_a_run_that_was_to_be_cancelled_or_lost_too_many_servers_ends(
    tmp_path: Path, model: ScriptedModel, dead: str, change: str, status: str, told: str | None
) -> None:
    directory, run_id = await left_behind(tmp_path, model, dead)
    await anyio.to_thread.run_sync(_set, directory / "data", change)
    asked = len(model.requests)
    async with open_next(directory, model) as service:
        state = await ended(service, run_id)

    assert state.status == status
    assert told is None or told in (state.error or {})["message"]
    assert len(model.requests) == asked


async def test_what_cannot_be_continued_is_interrupted_and_keeps_no_other_run_from_it(
    tmp_path: Path, model: ScriptedModel, script: Script, dead: str
) -> None:
    directory, run_id = await left_behind(tmp_path, model, dead)
    script.holds = False
    async with open_database(directory / "data" / DATABASE_NAME) as database:
        runs = Runs(database, owner=dead)
        await runs.create(NewRun("run_cell", ""), NewEvent("run_started"))
        await runs.create(NewRun("run_textless", "?", ("ctx_gone",)), NewEvent("run_started"))
        limits = {"max_iterations": -1}  # another version may have other bounds
        await runs.create(NewRun("run_unread", "?", (), limits), NewEvent("run_started"))
    lost = ("run_cell", "run_textless", "run_unread")
    async with open_next(directory, model) as service:
        states = [await ended(service, one) for one in (*lost, run_id)]

    assert [state.status for state in states] == ["interrupted"] * 3 + ["completed"]
    assert {(state.error or {})["code"] for state in states[:3]} == {"interrupted"}


async def test_a_cancel_ends_the_run_of_a_lost_server_and_no_other(
    tmp_path: Path, dead: str
) -> None:
    async with open_database(tmp_path / DATABASE_NAME) as database:
        runs = Runs(database, owner=dead)
        for run_id in ("run_one", "run_two"):
            await runs.create(NewRun(run_id, "?"), NewEvent("run_started"))
        leases, cancels = RunLeases(database, owner="me"), Cancels(database, owner="me")
        await OtherServers(database, leases, cancels, LiveRuns()).cancel("run_one")
        states = [(await runs.get(run_id)).status for run_id in ("run_one", "run_two")]

    assert states == ["cancelled", "running"]


async def test_time_during_which_nobody_worked_does_not_count_and_one_server_gets_the_run(
    tmp_path: Path, dead: str
) -> None:
    now = 1000.0
    async with open_database(tmp_path / DATABASE_NAME) as database:
        runs = Runs(database, owner=dead)
        await runs.create(NewRun("run_one", "?"), NewEvent("run_started"))
        sql = "UPDATE runs SET started = started - 40, elapsed_seconds = 2"
        await database.write(lambda db: db.execute(sql))
        leases = [RunLeases(database, owner=owner, clock=lambda: now) for owner in ("me", "you")]
        [lost] = await leases[0].lost()
        moved = [await one.move(lost, NewEvent("run_started", "again")) for one in leases]
        record = await Runs(database, owner="me").get("run_one")

    assert 41.9 < lost.worked_seconds < 43
    assert moved == [2, None]
    assert (record.owner, record.elapsed_seconds) == ("me", lost.worked_seconds)
