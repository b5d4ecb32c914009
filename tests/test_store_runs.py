"""Runs: a log without gaps, an end that is one step, owners and their leases."""

from __future__ import annotations

import math
import secrets
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from rlm_mcp.errors import InvalidInputError, NotFoundError, StoreError
from rlm_mcp.sandbox.types import Variable, VariableText
from rlm_mcp.store.database import Database, open_database
from rlm_mcp.store.runs.leases import RunLeases
from rlm_mcp.store.runs.records import (
    Event,
    NewEvent,
    NewRun,
    Outcome,
    ResumedRun,
    RunRecord,
    RunSummary,
    SavedVariable,
    WorkClock,
)
from rlm_mcp.store.runs.replies import Replies
from rlm_mcp.store.runs.runs import Runs
from rlm_mcp.values import Usage

START = 1_700_000_000.0
START_TEXT = "2023-11-14T22:13:20.000+00:00"
NO_MORE = NewEvent("run_finished", "completed")


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def database(tmp_path: Path) -> AsyncGenerator[Database]:
    async with open_database(tmp_path / "rlm.sqlite3") as database:
        yield database


@pytest.fixture
async def runs(database: Database, clock: Clock) -> Runs:
    return Runs(database, owner="me", clock=WorkClock(clock, clock))


@pytest.fixture
async def others(database: Database, clock: Clock) -> Runs:
    return Runs(database, owner="another", clock=WorkClock(clock, clock))


@pytest.fixture
async def my_leases(database: Database, clock: Clock) -> RunLeases:
    return RunLeases(database, owner="me", clock=clock)


@pytest.fixture
async def their_leases(database: Database, clock: Clock) -> RunLeases:
    return RunLeases(database, owner="another", clock=clock)


async def begin(runs: Runs, question: str = "How many?") -> str:
    run_id = f"run_{secrets.token_hex(16)}"
    return (await runs.create(NewRun(run_id, question))).run_id


async def test_a_new_run_is_running_and_has_all_it_was_given(runs: Runs) -> None:
    new = NewRun("run_1", "How many?", ("ctx_1", "ctx_2"), {"max_iterations": 3}, "k", "run_0")
    expected = RunRecord(
        run_id="run_1",
        status="running",
        question="How many?",
        contexts=("ctx_1", "ctx_2"),
        config={"max_iterations": 3},
        created_at=START_TEXT,
        finished_at=None,
        answer=None,
        data=None,
        error=None,
        figures=Usage(),
        last_event=0,
        elapsed_seconds=0.0,
        owner="me",
        lease_until=START + 60,
        caller="",
        idempotency_key="k",
        continues="run_0",
    )
    assert await runs.create(new) == expected
    assert await runs.get("run_1") == expected


async def test_a_key_gives_its_caller_the_run_that_exists(runs: Runs, others: Runs) -> None:
    asked = NewRun("run_1", "q", idempotency_key="k")
    await runs.create(asked)
    assert (await others.create(replace(asked, run_id="run_2"))).run_id == "run_1"
    bob = runs.as_caller("bob")
    assert (await bob.create(replace(asked, run_id="run_3"))).run_id == "run_3"
    assert (
        await runs.create(replace(asked, run_id="run_4", idempotency_key=None))
    ).run_id == "run_4"
    assert (await runs.count(), await bob.count()) == (2, 1)


async def test_events_are_numbered_and_bring_the_run_up_to_date(runs: Runs, clock: Clock) -> None:
    run_id = await begin(runs)
    used = Usage(1, 2, 3, 400, 50, 0.25)
    first = await runs.append_event(run_id, NewEvent("run_started", "begun"))
    clock.now += 1.5
    second, third = await runs.append_events(
        run_id,
        [
            NewEvent("iteration_start", "turn 1", 1),
            NewEvent("code_executed", "ran", 1, 2, {"output": "x\0\ud800é"}, used),
        ],
    )
    assert first == Event(1, START_TEXT, "run_started", 0, 0, "begun", {}, Usage())
    assert third == Event(
        3,
        "2023-11-14T22:13:21.500+00:00",
        "code_executed",
        1,
        2,
        "ran",
        {"output": "x\0\ud800é"},
        used,
    )
    assert await runs.events(run_id) == [first, second, third]
    assert await runs.events(run_id, after=1, limit=1) == [second]
    assert await runs.events(run_id, after=10**30) == []
    record = await runs.get(run_id)
    assert (record.last_event, record.figures, record.elapsed_seconds) == (3, used, 1.5)


async def test_no_events_change_nothing(runs: Runs) -> None:
    run_id = await begin(runs)
    before = await runs.get(run_id)
    assert await runs.append_events(run_id, []) == []
    assert await runs.get(run_id) == before


async def test_events_of_many_tasks_have_no_gaps_and_those_of_each_keep_their_order(
    runs: Runs,
) -> None:
    run_id = await begin(runs)
    async with anyio.create_task_group() as group:
        for task in range(5):
            group.start_soon(append_many, runs, run_id, task)
    events = await runs.events(run_id, limit=1000)
    assert [event.seq for event in events] == list(range(1, 101))
    for task in range(5):
        own = [event.detail["index"] for event in events if event.detail["task"] == task]
        assert own == list(range(20))


async def append_many(runs: Runs, run_id: str, task: int) -> None:
    for index in range(20):
        await runs.append_event(run_id, NewEvent("warning", detail={"task": task, "index": index}))


async def test_a_detail_that_is_not_json_loses_no_event(runs: Runs) -> None:
    run_id = await begin(runs)
    await runs.append_event(run_id, NewEvent("warning", "lone \ud800", detail={"a": Path("x")}))
    (event,) = await runs.events(run_id)
    assert event.preview == "lone ?"
    assert event.detail["a"].endswith("Path('x')")


async def test_a_run_ends_with_its_last_event_answer_and_variables_in_one_step(
    runs: Runs, clock: Clock
) -> None:
    run_id = await begin(runs)
    used = Usage(2, 1, 0, 10, 5, 0.5)
    clock.now += 12
    outcome = Outcome("completed", "42 \ud800", {"n": [42, None]})
    finished = await runs.finish(
        run_id,
        outcome,
        NewEvent("run_finished", "completed", 2, figures=used),
        [
            SavedVariable("x", "int", 0, "42", "42", json=True),
            SavedVariable("f", "function", 0, "f"),
        ],
    )
    clock.now += 100
    assert await runs.get(run_id) == finished
    assert (finished.status, finished.answer, finished.data) == (
        "completed",
        "42 ?",
        {"n": [42, None]},
    )
    assert (finished.last_event, finished.figures) == (1, used)
    assert (finished.elapsed_seconds, finished.finished_at) == (
        12.0,
        "2023-11-14T22:13:32.000+00:00",
    )
    assert await runs.variables(run_id) == [
        Variable("x", "int", 0, "42"),
        Variable("f", "function", 0, "f"),
    ]


async def test_an_end_that_fails_changes_nothing(runs: Runs) -> None:
    run_id = await begin(runs)
    twice = [SavedVariable("x", "int", 0, "1"), SavedVariable("x", "int", 0, "2")]
    before = await runs.get(run_id)
    with pytest.raises(StoreError):
        await runs.finish(run_id, Outcome("completed", "42"), NO_MORE, twice)
    assert await runs.get(run_id) == before
    assert await runs.events(run_id) == []
    assert (await runs.finish(run_id, Outcome("failed"), NO_MORE)).status == "failed"


async def test_an_ended_run_takes_no_event_and_no_other_end(runs: Runs) -> None:
    run_id = await begin(runs)
    await runs.finish(run_id, Outcome("cancelled"), NO_MORE)
    with pytest.raises(StoreError, match="is 'cancelled' and accepts no more events"):
        await runs.append_event(run_id, NewEvent("warning"))
    with pytest.raises(StoreError, match="is 'cancelled' and accepts no more events"):
        await runs.finish(run_id, Outcome("completed"), NO_MORE)
    record = await runs.get(run_id)
    assert (record.status, record.last_event) == ("cancelled", 1)


async def test_ends_at_once_leave_one_of_them(runs: Runs) -> None:
    run_id = await begin(runs)
    refused: list[StoreError] = []

    async def end(answer: str) -> None:
        try:
            await runs.finish(
                run_id, Outcome("completed", answer), NewEvent("run_finished", answer)
            )
        except StoreError as error:
            refused.append(error)

    async with anyio.create_task_group() as group:
        for index in range(5):
            group.start_soon(end, str(index))
    (event,) = await runs.events(run_id)
    assert len(refused) == 4
    assert (await runs.get(run_id)).answer == event.preview


async def test_another_process_reads_a_run_but_does_not_write_to_it(
    runs: Runs, others: Runs
) -> None:
    run_id = await begin(runs)
    await runs.append_event(run_id, NewEvent("run_started"))
    assert (await others.get(run_id)).owner == "me"
    assert len(await others.events(run_id)) == 1
    with pytest.raises(StoreError, match="belongs to another process, 'me'"):
        await others.append_event(run_id, NewEvent("warning"))
    with pytest.raises(StoreError, match="belongs to another process, 'me'"):
        await others.finish(run_id, Outcome("completed"), NO_MORE)


async def test_an_unknown_run_names_near_ones_and_how_to_list_them(runs: Runs) -> None:
    run_id = await begin(runs)
    for call in (runs.get, runs.events, runs.variables):
        with pytest.raises(NotFoundError) as caught:
            await call(run_id[:-2])
        assert repr(run_id) in caught.value.fix
        assert "rlm_run_list" in caught.value.fix
    with pytest.raises(NotFoundError, match="rlm_run_list"):
        await runs.append_event("\ud800", NewEvent("warning"))


async def test_pages_of_the_list_are_newest_first_and_stay_put(runs: Runs, clock: Clock) -> None:
    ids = [await begin(runs, f"question {index}") for index in range(5)]
    clock.now += 2
    first = await runs.list(limit=2)
    await begin(runs)
    second = await runs.list(limit=2, cursor=first.next_cursor)
    third = await runs.list(limit=2, cursor=second.next_cursor)
    listed = [run.run_id for page in (first, second, third) for run in page.items]
    assert listed == ids[::-1]
    assert third.next_cursor is None
    assert first.items[0] == RunSummary(ids[4], "running", "question 4", START_TEXT, 2.0, None)


async def test_the_list_and_the_count_keep_to_a_status(runs: Runs) -> None:
    done, working = await begin(runs), await begin(runs)
    await runs.finish(done, Outcome("exhausted"), NO_MORE)
    assert [run.run_id for run in (await runs.list(status="exhausted")).items] == [done]
    assert [run.run_id for run in (await runs.list(status="running")).items] == [working]
    assert await runs.count() == 2
    with pytest.raises(InvalidInputError, match=r"no status 'lost'.*exhausted"):
        await runs.list(status="lost")  # pyright: ignore[reportArgumentType]  # as a caller might
    with pytest.raises(InvalidInputError, match="does not belong to this list"):
        await runs.list(cursor="nonsense")


async def test_offsets_below_zero_and_limits_below_one_are_refused(runs: Runs) -> None:
    run_id = await begin(runs)
    with pytest.raises(InvalidInputError, match="after must not be negative, not -1"):
        await runs.events(run_id, after=-1)
    with pytest.raises(InvalidInputError, match="limit must be at least 1, not 0"):
        await runs.events(run_id, limit=0)
    with pytest.raises(InvalidInputError, match="start must not be negative, not -1"):
        await runs.variable(run_id, "x", start=-1)


async def test_a_variable_is_read_in_slices_whatever_it_holds(runs: Runs) -> None:
    run_id = await begin(runs)
    text = "a\0é😀\nz"
    saved = SavedVariable("x", "str", 6, "a…", text)
    await runs.save_variables(
        run_id, [saved, SavedVariable("y", "list", 2, "[1, 2]", "[1,2]", True)]
    )
    whole = VariableText("x", "str", 6, text, 0, 6, 6)
    assert await runs.variable(run_id, "x") == whole
    assert await runs.variable(run_id, "x", start=2, limit=2) == replace(
        whole, text="é😀", start=2, end=4
    )
    assert await runs.variable(run_id, "x", start=10**30) == replace(whole, text="", start=6, end=6)
    assert (await runs.variable(run_id, "y")).json


async def test_a_variable_whose_value_was_not_kept_gives_its_preview(runs: Runs) -> None:
    run_id = await begin(runs)
    await runs.save_variables(run_id, [SavedVariable("f", "function", 0, "<function f>")])
    assert (await runs.variable(run_id, "f")).text == "<function f>"


async def test_variables_come_back_as_they_were_saved(runs: Runs) -> None:
    run_id = await begin(runs)
    saved = [
        SavedVariable("x", "str", 3, "a…", "a\0b"),
        SavedVariable("y", "list", 2, "[1, 2]", "[1,2]", json=True),
        SavedVariable("f", "function", 0, "<function f>"),
    ]
    await runs.save_variables(run_id, saved)
    assert await runs.saved_variables(run_id) == saved


async def test_saved_variables_take_the_place_of_earlier_ones(runs: Runs) -> None:
    run_id = await begin(runs)
    await runs.save_variables(run_id, [SavedVariable("old", "int", 0, "1")])
    await runs.save_variables(run_id, [SavedVariable("new", "int", 0, "2")])
    with pytest.raises(NotFoundError, match=r"has no variable 'old'\. It has new\."):
        await runs.variable(run_id, "old")
    await runs.finish(run_id, Outcome("failed"), NO_MORE)
    assert [one.name for one in await runs.variables(run_id)] == ["new"]


async def test_a_run_whose_lease_is_over_is_interrupted_by_others_with_a_last_event(
    runs: Runs, my_leases: RunLeases, their_leases: RunLeases, clock: Clock
) -> None:
    run_id = await begin(runs)
    used = Usage(3, 2, 1, 10, 20, 0.1)
    clock.now += 5
    await runs.append_event(run_id, NewEvent("code_executed", iteration=3, figures=used))
    clock.now += 54
    assert await their_leases.interrupt_expired() == []
    clock.now += 600
    assert await my_leases.interrupt_expired() == []
    assert await their_leases.interrupt_expired() == [run_id]
    assert await their_leases.interrupt_expired() == []
    record = await runs.get(run_id)
    events = await runs.events(run_id)
    assert (record.status, record.figures, record.elapsed_seconds) == ("interrupted", used, 5.0)
    assert record.error is not None
    assert (record.error["code"], record.error["retryable"]) == ("interrupted", True)
    assert "rlm_run_resume" in record.error["fix"]
    assert events[-1].type == "run_finished"
    assert events[-1].detail == {"status": "interrupted", "error": record.error}
    assert (events[-1].seq, record.last_event) == (2, 2)
    with pytest.raises(StoreError, match="is 'interrupted'"):
        await runs.append_event(run_id, NewEvent("warning"))


async def test_a_renewed_lease_keeps_a_run(
    runs: Runs, my_leases: RunLeases, their_leases: RunLeases, clock: Clock
) -> None:
    kept = await begin(runs)
    await runs.finish(await begin(runs), Outcome("completed"), NO_MORE)
    clock.now += 59
    assert await my_leases.renew(100) == 1
    assert await their_leases.renew() == 0
    clock.now += 99
    assert await their_leases.interrupt_expired() == []
    assert await their_leases.interrupt_expired(clock.now + 2) == [kept]


async def test_the_runs_of_an_owner_known_to_be_gone_are_interrupted_at_once(
    runs: Runs, others: Runs, their_leases: RunLeases
) -> None:
    lost = [await begin(runs), await begin(runs)]
    other = await begin(others)
    assert await their_leases.interrupt_owner("me") == lost
    assert (await others.get(other)).status == "running"


async def test_replies_are_kept_by_key_and_replaced(database: Database, clock: Clock) -> None:
    replies = Replies(database, clock=clock)
    one, other, unknown = "a" * 64, "b" * 64, "c" * 64
    assert await replies.get_many([one]) == {}
    await replies.put_many({one: "one\0\ud800", other: "other"})
    assert await replies.get_many([other, unknown, one]) == {one: "one\0?", other: "other"}
    await replies.put_many({one: "two"})
    assert await replies.get_many([one]) == {one: "two"}
    await replies.put_many({})
    many = [f"{number:064}" for number in range(40_000)]
    assert await replies.get_many(many) == {}


async def test_costs_are_kept_exactly_and_may_be_unknown(runs: Runs) -> None:
    run_id = await begin(runs)
    cost = math.fsum([0.1] * 3)
    await runs.append_event(run_id, NewEvent("warning", figures=Usage(cost_usd=cost)))
    assert (await runs.get(run_id)).figures.cost_usd == cost
    await runs.append_event(run_id, NewEvent("warning", figures=Usage()))
    assert (await runs.get(run_id)).figures.cost_usd is None


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
async def test_a_clock_that_is_set_changes_no_working_time(
    database: Database, clock: Clock, jump: float
) -> None:
    steady = Clock()
    runs = Runs(database, owner="me", clock=WorkClock(clock, steady))
    elsewhere = Runs(database, owner="another", clock=WorkClock(clock, steady))
    await runs.create(NewRun("run_1", "?"))
    clock.now += 2
    steady.now += 2
    clock.now += jump
    assert (await runs.get("run_1")).elapsed_seconds == 2
    assert [run.elapsed_seconds for run in (await runs.list()).items] == [2]
    clock.now += 3
    steady.now += 3
    await runs.append_event("run_1", NewEvent("iteration_start", "turn 1"))
    assert (await elsewhere.get("run_1")).elapsed_seconds == 5

    ended = await runs.finish("run_1", Outcome("exhausted"), NO_MORE)
    assert ended.elapsed_seconds == 5

    again = ResumedRun({}, NewEvent("run_started", "again"), ended.last_event)
    assert await runs.resume("run_1", again)
    clock.now += 7200  # the machine slept
    steady.now += 1
    assert (await runs.get("run_1")).elapsed_seconds == 6
    record = await runs.finish("run_1", Outcome("completed"), NO_MORE)
    assert record.elapsed_seconds == (await elsewhere.get("run_1")).elapsed_seconds == 6
