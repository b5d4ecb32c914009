"""What released versions wrote is read, shown and resumed by the code of today."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from rlm_mcp.store.database import DATABASE_NAME, open_database
from tests.crashing import cut_off
from tests.histories.kinds import KINDS, TEXT, Kind, kind_of, reply_to
from tests.histories.logs import find_databases, find_logs, insert, read_rows, unpack
from tests.serving import Served, open_served

STATUSES = {"completed", "exhausted", "failed", "cancelled", "interrupted"}

pytestmark = pytest.mark.usefixtures("one_sandbox_for_all")


@dataclass(frozen=True)
class Recorded:
    """A run as it was recorded, and how many replies of the root model its log holds by event."""

    run_id: str
    question: str
    status: str
    answer: str | None
    last_event: int
    replies: tuple[int, ...]

    @property
    def kind(self) -> Kind | None:
        """What is known of it; None for a run of rlm_exec, which asks nothing."""
        found = re.search(r"history ([\w ]+):", self.question)
        return KINDS[found[1]] if found else None

    @property
    def status_now(self) -> str:
        """A run whose process is gone is found interrupted."""
        return "interrupted" if self.status == "running" else self.status


def name_of(path: Path) -> str:
    return f"{path.parent.name}-{path.stem}"


def database_in(directory: Path) -> Path:
    return directory / "data" / DATABASE_NAME


def read_runs(database: Path) -> list[Recorded]:
    with closing(sqlite3.connect(database)) as db:
        rows = db.execute("SELECT id, run_id, question, status, answer, last_event FROM runs")
        return [Recorded(*row, replies=tuple(_count_replies(db, id_))) for id_, *row in rows]


def _count_replies(db: sqlite3.Connection, row: int) -> Iterator[int]:
    count = 0
    sql = "SELECT type, depth FROM events WHERE run = ? ORDER BY seq"
    for type_, depth in db.execute(sql, [row]):
        count += type_ == "code_generated" and depth == 0
        yield count


async def load(log: Path, directory: Path) -> list[Recorded]:
    """Write a recorded log into a new database, and give its runs."""
    database = database_in(directory)
    async with open_database(database):
        pass
    await anyio.to_thread.run_sync(insert, log, database)
    return await anyio.to_thread.run_sync(read_runs, database)


@asynccontextmanager
async def open_over(directory: Path) -> AsyncGenerator[Served]:
    """Serve what a directory holds, once the texts that its runs are over are there."""
    async with open_served(directory, reply_to) as served:
        for text in {kind.text for kind in KINDS.values()}:
            await served.call("rlm_context_add", text=text)
        yield served


async def trace_of(served: Served, run_id: str) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    while True:
        after = events[-1]["seq"] if events else 0
        page = await served.call("rlm_run_trace", run_id=run_id, after_event=after, limit=100)
        events += page["events"]
        if page["next_event"] is None:
            return events


async def resume(served: Served, run_id: str, kind: Kind) -> dict[str, Any]:
    """Resume a run, which must come to the right answer."""
    more: dict[str, Any] = {"budget": kind.room} if kind.room else {}
    ended = await served.call("rlm_run_resume", run_id=run_id, wait_seconds=60, **more)
    assert ended["status"] == "completed", ended
    assert re.fullmatch(kind.answer, ended["answer"]), ended
    return ended


async def check_shown(served: Served, run: Recorded) -> list[dict[str, Any]]:
    """A run is told as it was written; gives its log."""
    state = await served.ended(run.run_id)
    assert (state["status"], state["answer"]) == (run.status_now, run.answer)
    trace = await trace_of(served, run.run_id)
    assert [event["seq"] for event in trace] == list(range(1, state["last_event"] + 1))
    assert len(trace) == run.last_event + (run.status == "running")
    assert trace[0]["type"] == "run_started"
    assert trace[-1]["type"] == "run_finished" or run.kind is None
    return trace


@pytest.mark.parametrize("log", find_logs(), ids=name_of)
async def test_a_recorded_log_is_shown_as_it_was_written(log: Path, tmp_path: Path) -> None:
    runs = await load(log, tmp_path)
    async with open_over(tmp_path) as served:
        listed = (await served.call("rlm_run_list", limit=100))["runs"]
        traces = [await check_shown(served, run) for run in runs]
        shown = [await served.call("rlm_run_variables", run_id=run.run_id) for run in runs]

    assert [one["run_id"] for one in reversed(listed)] == [run.run_id for run in runs]
    told = {(event["type"], event["preview"]) for trace in traces for event in trace}
    rows = list(read_rows(log))
    written = {(row["type"], row["preview"]) for table, row in rows if table == "events"}
    assert told >= written
    saved = {row["name"] for table, row in rows if table == "variables"}
    assert {one["name"] for page in shown for one in page["variables"]} >= saved


@pytest.mark.parametrize("log", find_logs(), ids=name_of)
async def test_a_recorded_log_is_resumed_after_each_of_its_events(
    log: Path, tmp_path: Path
) -> None:
    """Each copy is as its process would have left it, had it died after that event."""
    runs = [run for run in await load(log, tmp_path) if run.kind is not None]
    copies = [
        (await anyio.to_thread.run_sync(cut_off, database_in(tmp_path), run.run_id, at), run, at)
        for run in runs
        for at in range(1, run.last_event + (run.status != "completed"))
    ]
    ended: list[int] = []

    async def resume_copy(served: Served, copy: str, run: Recorded, at: int) -> None:
        assert run.kind is not None
        state = await resume(served, copy, run.kind)
        ended.append(state["iterations"] - run.replies[at - 1])

    async with open_over(tmp_path) as served:
        with anyio.fail_after(120):
            async with anyio.create_task_group() as group:
                for copy in copies:
                    group.start_soon(resume_copy, served, *copy)
        asked = [one for one in served.model.requests if kind_of(one) not in (None, "inner")]

    assert len(ended) == len(copies)
    # A reply of the root model that is on record is not paid for again.
    assert len(asked) == sum(ended)


@pytest.mark.parametrize("log", find_logs(), ids=name_of)
async def test_a_recorded_run_goes_on_where_it_ended(log: Path, tmp_path: Path) -> None:
    runs = await load(log, tmp_path)
    async with open_over(tmp_path) as served:
        for run in runs:
            await check_goes_on(served, run)


async def check_goes_on(served: Served, run: Recorded) -> None:
    """Code goes on with the variables of rlm_exec; a question that lacks its answer gets it."""
    await served.ended(run.run_id)
    if run.kind is None:
        done = await served.call("rlm_exec", run_id=run.run_id, code="print(kept)")
        assert (done["output"], done["error"]) == ("41\n", None)
    elif run.status != "completed":
        await resume(served, run.run_id, run.kind)
    else:
        further = await served.call("rlm_exec", run_id=run.run_id, code="print(len(context))")
        assert (further["output"], further["error"]) == (f"{len(run.kind.text)}\n", None)


@pytest.mark.parametrize("recorded", find_databases(), ids=name_of)
async def test_a_recorded_database_opens_lists_shows_and_resumes_its_runs(
    recorded: Path, tmp_path: Path
) -> None:
    await anyio.to_thread.run_sync(unpack, recorded, database_in(tmp_path))
    runs = await anyio.to_thread.run_sync(read_runs, database_in(tmp_path))
    async with open_served(tmp_path, reply_to) as served:
        texts = (await served.call("rlm_context_list"))["contexts"]
        pieces = [await served.call("rlm_context_read", handle=one["handle"]) for one in texts]
        for run in runs:
            await check_shown(served, run)
        listed = (await served.call("rlm_run_list", limit=100))["runs"]
        found = await served.call(
            "rlm_run_variables", run_id=_run_of(runs, "plain").run_id, name="calls"
        )
        for run in runs:
            await check_goes_on(served, run)

    assert TEXT in {piece["text"] for piece in pieces}
    assert {one["status"] for one in listed} == STATUSES
    assert found["text"] == "2"


def _run_of(runs: list[Recorded], kind: str) -> Recorded:
    return next(run for run in runs if run.kind is KINDS[kind])
