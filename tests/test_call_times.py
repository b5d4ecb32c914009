"""When sub-calls, turns and cells began and ended, as the log has it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView, Fault, Reply, Script
from tests.serving import Served, cell, open_served, turns

pytestmark = pytest.mark.usefixtures("one_sandbox_for_all")

TWO_CALLS = (cell("print(llm_query_batch(['quick', 'slow']))"), "FINAL(done)")


def two_calls(gate: anyio.Event) -> Script:
    """A cell with two sub-calls, of which one waits for the gate."""

    def answer(request: ChatRequestView) -> Answer:
        if request.model == "root":
            turn = sum(message["role"] == "assistant" for message in request.messages)
            return TWO_CALLS[min(turn, 1)]
        return Reply("slow", gate=gate) if request.text == "slow" else "quick"

    return answer


async def log_of(served: Served, run_id: str) -> list[dict[str, Any]]:
    return (await served.call("rlm_run_trace", run_id=run_id, limit=100))["events"]


def details(events: Sequence[dict[str, Any]], type_: str) -> list[dict[str, Any]]:
    return [event["detail"] for event in events if event["type"] == type_]


def calls_of(events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every call with the times of the whole log: each batch begins where it was reported."""
    found = details(events, "sub_calls_finished")
    return [item for detail in found for item in detail["items"]]


async def until_one_ended(served: Served, run_id: str) -> list[dict[str, Any]]:
    """Wait until the log says that a sub-call ended; give the events that do."""
    with anyio.fail_after(60):
        while True:
            if finished := details(await log_of(served, run_id), "sub_calls_finished"):
                return finished
            await served.call("rlm_run_wait", run_id=run_id, wait_seconds=0.2)


async def asked(served: Served, **more: Any) -> str:
    given = {"question": "What is it?", "text": "abc", "wait_seconds": 30, **more}
    return (await served.call("rlm_query", **given))["run_id"]


async def test_calls_that_overlap_have_slots_of_their_own_and_times_in_their_batch(
    tmp_path: Path,
) -> None:
    script = turns(cell("llm_query_batch([str(n) for n in range(40)])"), "FINAL(done)")
    async with open_served(tmp_path, script, max_concurrent_calls=4) as served:
        events = await log_of(served, await asked(served))

    calls = calls_of(events)
    [started] = details(events, "sub_calls_started")
    finished = details(events, "sub_calls_finished")
    assert {detail["batch"] for detail in finished} == {started["batch"]}
    assert sorted(call["n"] for call in calls) == list(range(40))
    for call in calls:
        queued = call.get("queued", 0)
        assert 0 <= call["began"] <= call["began"] + queued <= call["ended"] + 0.001
        assert call["ended"] <= finished[-1]["seconds"] + 0.001
    for one in calls:
        beside = [
            other
            for other in calls
            if other["began"] < one["ended"] and one["began"] < other["ended"]
        ]
        assert [other for other in beside if other["slot"] == one["slot"]] == [one]
    assert any(call.get("queued", 0) > 0 for call in calls)


async def test_a_call_that_ended_is_in_the_log_while_others_of_its_batch_go_on(
    tmp_path: Path,
) -> None:
    gate = anyio.Event()

    async with open_served(tmp_path, two_calls(gate)) as served:
        run_id = await asked(served, wait_seconds=0)
        finished = await until_one_ended(served, run_id)
        assert [item["prompt"] for item in finished[0]["items"]] == ["quick"]
        assert (finished[0]["finished"], finished[0]["of"]) == (1, 2)
        gate.set()
        await served.ended(run_id)


async def test_calls_that_a_cancel_cuts_off_are_in_the_log_and_are_asked_again(
    tmp_path: Path,
) -> None:
    gate = anyio.Event()

    async with open_served(tmp_path, two_calls(gate)) as served:
        run_id = await asked(served, wait_seconds=0)
        await served.model.until(lambda: "slow" in [one.text for one in served.model.requests])
        await until_one_ended(served, run_id)
        await served.call("rlm_run_cancel", run_id=run_id)
        cut_off = [call for call in calls_of(await log_of(served, run_id)) if call.get("cut_off")]
        assert [(call["prompt"], call["error"]) for call in cut_off] == [("slow", "cancelled")]
        gate.set()
        run = await served.call("rlm_run_resume", run_id=run_id, wait_seconds=30)
        calls = calls_of(await log_of(served, run_id))

    assert run["status"] == "completed"
    assert [call["reply"] for call in calls if call["prompt"] == "slow"] == ["", "slow"]


async def test_a_turn_has_the_seconds_of_its_model_and_its_retries_and_a_cell_its_wall_time(
    tmp_path: Path,
) -> None:
    replies = iter([Fault(status=503), cell("llm_query('a')"), "FINAL(done)"])

    def answer(request: ChatRequestView) -> Any:
        return next(replies) if request.model == "root" else Reply("a", latency_seconds=0.2)

    async with open_served(tmp_path, answer) as served:
        events = await log_of(served, await asked(served))

    generated, executed = details(events, "code_generated"), details(events, "code_executed")
    assert [detail["retries"] for detail in generated] == [1, 0]
    assert all(detail["seconds"] > 0 for detail in generated)
    assert executed[0]["wall_seconds"] >= 0.2 > executed[0]["elapsed_seconds"]


async def test_an_inner_run_says_its_question_and_which_call_began_it(tmp_path: Path) -> None:
    def answer(request: ChatRequestView) -> str:
        if request.model == "root":
            return cell("FINAL(rlm_query('inner?', ['one', 'two']))")
        return "FINAL(found)"

    async with open_served(tmp_path, answer, max_recursion_depth=2) as served:
        events = await log_of(served, await asked(served))

    outer, inner = details(events, "run_started")
    [batch] = details(events, "sub_calls_started")
    assert "batch" not in outer
    assert (inner["question"], inner["batch"], inner["n"]) == ("inner?", batch["batch"], 0)
