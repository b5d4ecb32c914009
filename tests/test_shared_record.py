"""What all who watch a run share: it is what the store would tell, without being read from it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from rlm_mcp.store.database import Database, open_database
from rlm_mcp.store.runs.abandoned import AbandonedMarks
from rlm_mcp.store.runs.records import NewEvent, NewRun, Outcome, RunRecord, SharedRecord
from rlm_mcp.store.runs.runs import Runs
from rlm_mcp.values import ModelUsage, Usage

RUN = "run_1"
USED = Usage(2, 3, 1, 400, 50, 0.25, (ModelUsage("root", 2, 400, 0, 50, 0.25),))
LINE = NewEvent("code_generated", figures=USED)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncGenerator[Database]:
    async with open_database(tmp_path / "rlm.sqlite3") as database:
        yield database


@pytest.fixture
async def runs(database: Database) -> Runs:
    return Runs(database, owner="me")


class Reader:
    """Reads a run, and counts how often."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self.reads = 0

    async def __call__(self) -> RunRecord:
        self.reads += 1
        return await self._runs.get(RUN)


def without_seconds(record: RunRecord | None) -> RunRecord | None:
    return record and replace(record, elapsed_seconds=0.0)


async def test_lines_bring_a_record_up_to_what_the_store_tells(runs: Runs) -> None:
    shared = SharedRecord()
    shared.set(await runs.create(NewRun(RUN, "?")))
    for line in (NewEvent("iteration_start"), LINE):
        [stored] = await runs.append_events(RUN, [line])
        shared.change(stored)

        assert without_seconds(shared.known) == without_seconds(await runs.get(RUN))


async def test_figures_by_model_stay_where_a_line_does_not_know_them(runs: Runs) -> None:
    await runs.create(NewRun(RUN, "?"))
    await runs.append_event(RUN, LINE)
    shared = SharedRecord()
    shared.set(await runs.get(RUN))
    [stored] = await runs.append_events(RUN, [replace(LINE, figures=replace(USED, by_model=()))])
    shared.change(stored)

    assert shared.known is not None
    assert shared.known.figures.by_model == USED.by_model


async def test_lines_that_come_in_another_order_leave_the_last_one(runs: Runs) -> None:
    shared = SharedRecord()
    shared.set(await runs.create(NewRun(RUN, "?")))
    first, last = await runs.append_events(RUN, [NewEvent("iteration_start"), LINE])
    shared.change(last)
    shared.change(first)

    assert without_seconds(shared.known) == without_seconds(await runs.get(RUN))


async def test_other_changes_are_read_once_for_all(runs: Runs) -> None:
    shared, read = SharedRecord(), Reader(runs)
    shared.set(await runs.create(NewRun(RUN, "?")))
    shared.change(None)
    found: list[RunRecord] = []

    async def watch() -> None:
        found.append(await shared.get(read))

    async with anyio.create_task_group() as watching:
        for _ in range(5):
            watching.start_soon(watch)

    assert (len(found), read.reads) == (5, 1)


async def test_a_line_after_another_change_does_not_hide_it(runs: Runs) -> None:
    shared, read = SharedRecord(), Reader(runs)
    shared.set(await runs.create(NewRun(RUN, "?", is_queued=True)))
    await runs.begin_work(RUN)
    shared.change(None)
    [stored] = await runs.append_events(RUN, [LINE])
    shared.change(stored)

    assert shared.known is None
    assert (await shared.get(read)).queue_position is None
    assert shared.known is not None


async def test_a_mark_is_read_until_it_is_removed(database: Database, runs: Runs) -> None:
    shared, read, marks = SharedRecord(), Reader(runs), AbandonedMarks(database)
    shared.set(await runs.create(NewRun(RUN, "?")))
    await marks.set(RUN)
    shared.change(None)

    assert (await shared.get(read)).abandoned_at is not None
    await marks.remove(RUN)
    assert (await shared.get(read)).abandoned_at is None
    await shared.get(read)
    assert read.reads == 2


async def test_the_seconds_of_a_run_at_work_pass_and_those_of_others_do_not(runs: Runs) -> None:
    working, waiting = SharedRecord(), SharedRecord()
    record = await runs.create(NewRun(RUN, "?"))
    working.set(record)
    waiting.set(await runs.create(NewRun("run_2", "?", is_queued=True)))

    assert working.known is not None
    assert waiting.known is not None
    assert working.known.elapsed_seconds > record.elapsed_seconds
    assert waiting.known.elapsed_seconds == 0.0


async def test_the_end_of_a_run_is_known_as_it_was_stored(runs: Runs) -> None:
    shared = SharedRecord()
    shared.set(await runs.create(NewRun(RUN, "?")))
    end = NewEvent("run_finished", "completed", figures=USED)
    shared.set(await runs.finish(RUN, Outcome("completed", "42"), end))

    assert shared.known == await runs.get(RUN)
