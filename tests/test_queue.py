"""Many runs: so many work at once, the others wait in line, and nobody is shut out."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import anyio
import pytest

from rlm_mcp.engine.budget import Budget
from rlm_mcp.engine.config import RLMConfig
from rlm_mcp.errors import SandboxBusyError
from rlm_mcp.service import machine
from rlm_mcp.service.runs.live import RunQueue, Ticket
from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView, Reply
from tests.serving import Served, cell, open_served, text_of, turns


def served_in_order(working: Ticket, waiting: list[Ticket]) -> list[int]:
    """Let one after another work; gives the order in which those that waited came."""
    order: list[int] = []
    while len(order) < len(waiting):
        working.leave()
        [place] = [n for n, one in enumerate(waiting) if one.admitted.is_set() and n not in order]
        order.append(place)
        working = waiting[place]
    return order


def test_callers_take_turns_and_each_ones_tickets_keep_their_order() -> None:
    queue = RunQueue(1)
    working, *waiting = map(queue.enter, ("ann", "ann", "ann", "ann", "bob", "cid", "bob"))
    told = [ticket.position for ticket in waiting]

    order = served_in_order(working, waiting)

    assert order == [0, 3, 4, 1, 5, 2]
    assert told == [order.index(place) + 1 for place in range(6)]
    assert [ticket.position for ticket in waiting] == [None] * 6


def test_a_ticket_that_leaves_makes_room_once_wherever_it_was() -> None:
    queue = RunQueue(2)
    first, second, third, fourth, fifth = (queue.enter() for _ in range(5))
    for leaving in (fourth, fourth, first, first):
        leaving.leave()

    assert [one.position for one in (second, third, fifth)] == [None, None, 1]
    assert [one.has_waited for one in (second, third, fifth)] == [False, True, True]
    assert not fourth.admitted.is_set()
    for leaving in (second, third, fifth):
        leaving.leave()
    assert queue.enter().admitted.is_set()


def test_the_places_follow_cores_and_memory() -> None:
    memory = machine.total_bytes()

    assert machine.places(1) == machine.PLACES_A_CORE * machine.cores()
    assert machine.places(1 << 60) == (machine.MIN_PLACES if memory else machine.places(1))
    assert machine.memory_bytes("NoSuchLine") is None


def test_the_seconds_of_a_budget_count_from_the_start_of_its_clock() -> None:
    now = [100.0]
    budget = Budget(RLMConfig(max_seconds=10), clock=lambda: now[0])
    now[0] += 60
    budget.start_clock()
    now[0] += 4

    assert (budget.elapsed_seconds, budget.seconds_left) == (4.0, 6.0)


async def ask(served: Served, question: str) -> str:
    run = await served.call("rlm_query", question=question, text="text", wait_seconds=0)
    return run["run_id"]


async def test_runs_beyond_the_limit_wait_in_line_say_their_place_and_can_be_cancelled_there(
    tmp_path: Path,
) -> None:
    gate = anyio.Event()
    script = turns("never asked")

    def held(request: ChatRequestView) -> Answer:
        del request
        return Reply("FINAL(done)", gate=gate)

    async with (
        open_served(tmp_path, held, max_concurrent_runs=1) as served,
        open_served(tmp_path, script) as other,
    ):
        first, second, third = [await ask(served, name) for name in ("one", "two", "three")]
        with anyio.fail_after(60):
            await served.model.until(lambda: served.model.in_flight == 1)
        waiting = await served.raw("rlm_run_wait", run_id=third, wait_seconds=0.5)
        elsewhere = await other.call("rlm_run_wait", run_id=third, wait_seconds=0)
        told = served.progress[-1][1]
        cancelled = await served.call("rlm_run_cancel", run_id=second)
        moved = await served.call("rlm_run_wait", run_id=third, wait_seconds=0)
        asked = served.model.received
        gate.set()
        ended = [await served.ended(run_id) for run_id in (first, third)]
        log = await served.call("rlm_run_trace", run_id=second)

    assert waiting.structured_content is not None
    seen = waiting.structured_content
    assert (seen["status"], seen["queue_position"], seen["elapsed_seconds"]) == ("running", 2, 0)
    assert (elsewhere["queue_position"], elsewhere["elapsed_seconds"]) == (2, 0)
    assert told == f"{third} · waiting, 1 ahead"
    assert f"{third} is running: waiting, 1 ahead" in text_of(waiting)
    assert (cancelled["status"], cancelled.get("queue_position")) == ("cancelled", None)
    assert cancelled["elapsed_seconds"] == 0
    assert [event["type"] for event in log["events"]] == ["run_started", "run_finished"]
    assert (moved["queue_position"], asked) == (1, 1)
    assert [(run["status"], run.get("queue_position")) for run in ended] == [
        ("completed", None)
    ] * 2
    assert ended[1]["elapsed_seconds"] > 0


async def test_runs_inside_a_run_need_no_place_of_their_own(tmp_path: Path) -> None:
    code = cell("FINAL(rlm_query('inner?', 'a slice'))")

    def script(request: ChatRequestView) -> Answer:
        return "FINAL(from within)" if request.model == "sub" else code

    async with open_served(tmp_path, script, max_concurrent_runs=1) as served:
        budget = {"max_depth": 2}
        run = await served.call("rlm_query", question="?", text="text", budget=budget)

    assert run["answer"] == "from within"


async def test_cells_of_callers_have_places_beside_those_of_runs(tmp_path: Path) -> None:
    gate = anyio.Event()

    def held(request: ChatRequestView) -> Answer:
        return Reply("late", gate=gate) if request.model == "sub" else cell("llm_query('wait')")

    async with open_served(tmp_path, held, max_concurrent_runs=1) as served:
        handle = (await served.call("rlm_context_add", text="some text"))["handle"]
        run_id = await ask(served, "?")
        with anyio.fail_after(60):
            await served.model.until(lambda: served.model.in_flight == 1)
        outputs: list[str] = []

        async def execute(code: str) -> None:
            done = await served.call("rlm_exec", code=code, contexts=[handle])
            outputs.append(done["output"])

        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                for number in range(3):
                    group.start_soon(execute, f"print({number})")
        await served.call("rlm_run_cancel", run_id=run_id)

    assert sorted(outputs) == ["0\n", "1\n", "2\n"]


async def test_a_hundred_runs_asked_for_at_once_all_end(tmp_path: Path) -> None:
    runs = 100
    async with open_served(tmp_path, turns("FINAL(done)"), max_concurrent_runs=8) as served:
        handle = (await served.call("rlm_context_add", text="some text"))["handle"]
        ended: list[str] = []

        async def follow(number: int) -> None:
            run = await served.call("rlm_query", question=f"number {number}?", contexts=[handle])
            ended.append((await served.ended(run["run_id"]))["status"])

        with anyio.fail_after(120):
            async with anyio.create_task_group() as group:
                for number in range(runs):
                    group.start_soon(partial(follow, number))

    assert ended == ["completed"] * runs
    assert served.model.most_in_flight <= 8


def test_the_last_place_is_kept_for_a_caller_who_has_none() -> None:
    queue = RunQueue(3)
    first, second, third = (queue.enter("ann") for _ in range(3))
    assert [one.admitted.is_set() for one in (first, second, third)] == [True, True, False]
    other = queue.enter("bob")
    assert other.admitted.is_set()
    first.leave()
    assert not third.admitted.is_set()  # the free place is the last one, and ann has one
    second.leave()
    assert third.admitted.is_set()


def test_the_machines_own_caller_may_have_every_place() -> None:
    queue = RunQueue(2)
    assert all(queue.enter().admitted.is_set() for _ in range(2))
    alone = RunQueue(1)
    assert alone.enter("ann").admitted.is_set()


async def test_a_place_that_does_not_become_free_is_refused_and_leaves_the_line() -> None:
    queue = RunQueue(1)
    held = queue.enter("ann")
    with pytest.raises(SandboxBusyError, match="1 searches may run at the same time"):
        async with queue.place("bob", 0.01, "searches"):
            raise AssertionError
    held.leave()
    async with queue.place("bob", 1, "searches") as ticket:
        assert ticket.admitted.is_set()
