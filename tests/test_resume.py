"""Runs that go on where their log ends: nothing is lost, changed or paid for twice."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from rlm_mcp.engine.recording import read_recording
from rlm_mcp.events import RunFinished, RunStarted
from rlm_mcp.service.runs import starting
from rlm_mcp.service.runs.resuming import rebuild
from rlm_mcp.store.database import open_database
from rlm_mcp.store.runs.leases import RunLeases
from rlm_mcp.store.runs.records import Event
from rlm_mcp.store.runs.runs import Runs
from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView, Reply, Script, unauthorized
from tests.crashing import cut_off
from tests.serving import Served, cell, open_served

TEXT = "The harbour light is green.\n" * 60


def database(served: Served) -> Path:
    return served.settings.data_dir / "rlm.sqlite3"


def turn_of(request: ChatRequestView) -> int:
    """The turn that is asked for, from 0, as the last message says."""
    return int(re.findall(r"Turn (\d+) of", str(request.messages[-1]["content"]))[-1]) - 1


def by_turn(*replies: str) -> Script:
    """The root's replies by turn; inner runs find a colour in two turns, sub-calls shout."""

    def answer(request: ChatRequestView) -> Answer:
        if request.model == "root":
            return replies[min(turn_of(request), len(replies) - 1)]
        if len(request.messages) == 1:
            return (
                Reply("", finish_reason="stop") if "empty" in request.text else request.text.upper()
            )
        return (
            cell("colour = context.split()[-1]\nprint(colour)")
            if turn_of(request) == 0
            else "FINAL_VAR(colour)"
        )

    return answer


def normal(request: ChatRequestView) -> list[dict[str, Any]]:
    """A prompt without what a run that paid less has left."""
    return [
        {**message, "content": re.sub(r"\d+ sub-calls left", "", str(message["content"]))}
        for message in request.messages
    ]


PLAIN = (
    "Two blocks.\n"
    + cell("import random\nfirst = random.random()\nprint(first)")
    + "\n"
    + cell(
        "calls = 0\ndef count():\n    global calls\n    calls += 1\nprint(budget()['iterations'])"
    ),
    cell(
        "count()\nreplies = llm_query_batch([f'part {n}' for n in range(40)])\nprint(replies[-1])"
    ),
    cell("count()\nprint(1 / 0)"),
    cell("lost = llm_query('empty')\nprint(lost)"),
    cell("count()\ncolour = rlm_query('Which colour?', 'The light is red')\nprint(colour)"),
    "FINAL_VAR(nothing)",
    cell("count()\nfound = f'{colour} {calls} {first} {len(replies)}'") + "\nFINAL_VAR(found)",
)
LONG = (
    *(cell(f"v{n} = {n}\nprint('{n + 1} ' * 900)") for n in range(5)),
    cell("FINAL(v0 + v1 + v2 + v3 + v4)"),
)
KINDS: dict[str, tuple[tuple[str, ...], dict[str, Any], dict[str, Any], str]] = {
    "plain": (PLAIN, {}, {"max_depth": 2}, r"red 4 0\.\d+ 40"),
    "summed up": (LONG, {"root_context_tokens": 2650, "root_max_tokens": 500}, {}, "10"),
    "small": (LONG, {"prompt_variant": "small_context"}, {}, "10"),
}


async def whole_trace(served: Served, run_id: str, after: int = 0) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    while True:
        page = await served.call("rlm_run_trace", run_id=run_id, after_event=after, limit=100)
        events += page["events"]
        if page["next_event"] is None:
            return events
        after = page["next_event"]


def replied(trace: list[dict[str, Any]], at: int, depth: int) -> int:
    """Count the root's replies, of the run or of those inside it, up to an event."""
    return sum(
        event["type"] == "code_generated" and event["depth"] == depth for event in trace[:at]
    )


def has_shown(trace: list[dict[str, Any]], words: str) -> bool:
    return any(
        event["type"] == "code_executed" and words in event["detail"]["output"] for event in trace
    )


@pytest.mark.parametrize("kind", KINDS)
async def test_a_run_that_died_after_any_event_goes_on_to_the_same_answer(
    tmp_path: Path, kind: str
) -> None:
    replies, options, budget, wanted = KINDS[kind]
    async with open_served(tmp_path, by_turn(*replies)) as served:
        run = await served.call(
            "rlm_query",
            question="What?",
            text=TEXT,
            options=options,
            budget=budget,
            wait_seconds=60,
        )
        trace = await whole_trace(served, run["run_id"])
        asked = {turn_of(r): normal(r) for r in served.model.requests if r.model == "root"}
        cuts = range(1, run["last_event"])
        copies = [
            await anyio.to_thread.run_sync(cut_off, database(served), run["run_id"], at)
            for at in cuts
        ]
        served.model.requests.clear()
        ended: dict[str, dict[str, Any]] = {}

        async def resume(copy: str) -> None:
            ended[copy] = await served.call("rlm_run_resume", run_id=copy, wait_seconds=60)

        with anyio.fail_after(120):
            async with anyio.create_task_group() as group:
                for copy in copies:
                    group.start_soon(resume, copy)
        later = [
            event
            for at, copy in zip(cuts, copies, strict=True)
            for event in await whole_trace(served, copy, at + 1)
        ]

    assert re.fullmatch(wanted, run["answer"]), run
    for at, copy in zip(cuts, copies, strict=True):
        told = {name: ended[copy][name] for name in ("status", "answer", "iterations")}
        assert told == {name: run[name] for name in told}, trace[at - 1]
    # What was asked again was asked in the very words, and by those alone that lacked the reply.
    again = [request for request in served.model.requests if request.model == "root"]
    for request in again:
        assert normal(request) == asked[turn_of(request)]
    assert len(again) == sum(run["iterations"] - replied(trace, at, 0) for at in cuts)
    inner = sum(replied(trace, run["last_event"], 1) - replied(trace, at, 1) for at in cuts)
    # A cell that did not end makes a sub-call again that failed; an empty reply is asked for twice.
    failed = sum(
        "empty" in str(replies) and not has_shown(trace[:at], "empty reply") for at in cuts
    )
    assert len(served.model.requests) - len(again) == inner + failed * 2
    warnings = [event["preview"] for event in later if event["type"] == "warning"]
    assert [line for line in warnings if "summed up" not in line] == []
    assert any("summed up" in line for line in warnings) is (kind == "summed up")


async def check_logs(served: Served) -> None:
    """Every run's state is what its log alone says."""
    async with open_database(database(served)) as db:
        runs = Runs(db, owner="nobody")
        listed = (await runs.list(limit=100)).items
        assert listed
        for summary in listed:
            record = await runs.get(summary.run_id)
            events = await runs.events(summary.run_id, limit=1000)
            rebuilt = rebuild(events)
            names = {field.name for field in fields(rebuilt)} - {"recording"}
            said = {name: getattr(rebuilt, name) for name in names} | ending_of(events)
            assert said == {name: getattr(record, name) for name in said}


def ending_of(events: Sequence[Event]) -> dict[str, Any]:
    """How a run ended, by its log alone."""
    end: RunFinished | None = None
    for event in events:
        if event.type == RunFinished.type:
            end = RunFinished.from_detail(event.detail)
        elif event.type == RunStarted.type and event.depth == 0:
            end = None
    status = end.status if end else "running"
    # An answer that was recorded, but not as the end of the run, is not its answer yet.
    final = None if status in {"running", "cancelled"} else read_recording(events).final
    return {
        "status": status,
        "answer": final.answer if final else None,
        "data": final.data if final else None,
        "error": end.error if end else None,
    }


async def asked(served: Served, **arguments: Any) -> dict[str, Any]:
    """Ask about a text of its own, and wait."""
    return await served.call("rlm_query", **{"question": "What?", "text": TEXT} | arguments)


async def test_an_exhausted_run_goes_on_with_a_larger_budget_for_the_whole(tmp_path: Path) -> None:
    replies = (cell("seen = 1"), "FINAL(perhaps)", cell("seen += 1"), cell("FINAL(seen)"))
    async with open_served(tmp_path, by_turn(*replies)) as served:
        run = await asked(served, budget={"max_iterations": 2})
        refused = await served.error("rlm_run_resume", run_id=run["run_id"])
        used_up = await served.error(
            "rlm_run_resume", run_id=run["run_id"], budget={"max_iterations": 2}
        )
        resumed = await served.call(
            "rlm_run_resume", run_id=run["run_id"], budget={"max_iterations": 6}
        )
        trace = await whole_trace(served, run["run_id"])
        completed = await served.error("rlm_run_resume", run_id=run["run_id"])
        await check_logs(served)

    assert (run["status"], run["answer"]) == ("exhausted", "perhaps")
    assert (
        run["next"] == f'rlm_run_resume(run_id="{run["run_id"]}", budget={{"max_iterations": 4}})'
    )
    assert "iterations" in refused["message"]
    assert "max_iterations=2, 2 used" in used_up["message"]
    assert (resumed["status"], resumed["answer"]) == ("completed", "2")
    assert (resumed["iterations"], resumed["run_id"]) == (4, run["run_id"])
    assert resumed["elapsed_seconds"] > run["elapsed_seconds"]
    assert [event["seq"] for event in trace] == list(range(1, len(trace) + 1))
    [_, again] = [event for event in trace if event["type"] == "run_started"]
    assert again["detail"]["resumed"] == "exhausted"
    # What was said before stays as it was said.
    last, before = served.model.requests[2].messages, served.model.requests[1].messages
    assert last[: len(before)] == before
    assert last[len(before)]["content"] == "FINAL(perhaps)"
    assert "code runs again" in str(last[-1]["content"])
    assert "continue_run" in completed["fix"]


async def test_a_run_that_failed_or_was_cancelled_goes_on(tmp_path: Path) -> None:
    gate, is_down = anyio.Event(), True

    def script(request: ChatRequestView) -> Answer:
        if turn_of(request) == 0:
            return cell("kept = [7]")
        if "slow" in str(request.messages):
            return Reply(cell("FINAL(kept[0])"), gate=gate)
        return unauthorized() if is_down else cell("FINAL(kept[0])")

    async with open_served(tmp_path, script) as served:
        failed = await asked(served)
        is_down = False
        mended = await served.call("rlm_run_resume", run_id=failed["run_id"])
        slow = await asked(served, question="slow?", wait_seconds=0)
        with anyio.fail_after(60):
            await served.model.until(lambda: served.model.in_flight == 1)
        cancelled = await served.call("rlm_run_cancel", run_id=slow["run_id"])
        gate.set()
        ended = await served.call("rlm_run_resume", run_id=slow["run_id"])
        await asked(served, question="typed", answer_schema={"type": "integer"})
        await served.call("rlm_exec", run_id=ended["run_id"], code="print(kept)")
        await check_logs(served)

    assert failed["status"] == "failed"
    assert failed["next"] == f'rlm_run_resume(run_id="{failed["run_id"]}")'
    assert (mended["answer"], mended["iterations"]) == ("7", 2)
    assert cancelled["status"] == "cancelled"
    assert (ended["status"], ended["answer"], ended["iterations"]) == ("completed", "7", 2)


async def test_of_those_that_resume_a_run_at_once_one_does(tmp_path: Path) -> None:
    gate = anyio.Event()
    async with open_served(tmp_path, by_turn(cell("FINAL(1)"))) as served:
        run = await asked(served)
        copy = await anyio.to_thread.run_sync(cut_off, database(served), run["run_id"], 1)
        states: list[dict[str, Any]] = []

        async def resume() -> None:
            states.append(await served.call("rlm_run_resume", run_id=copy))

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(resume)
        trace = await whole_trace(served, copy)
    gate.set()

    assert {state["answer"] for state in states} == {"1"}
    assert len([event for event in trace if event["detail"].get("resumed")]) == 1
    assert len(served.model.requests) == 2


async def test_a_run_that_was_taken_for_lost_while_it_worked_goes_on_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As when a machine slept for longer than the lease, and another one ended the run."""
    first, second = anyio.Event(), anyio.Event()

    def answer(request: ChatRequestView) -> Answer:
        del request
        is_first = len(served.model.requests) == 1
        return Reply("FINAL(old)", gate=first) if is_first else Reply("FINAL(new)", gate=second)

    async with open_served(tmp_path, answer) as served:
        run_id = (await served.call("rlm_query", question="?", text=TEXT, wait_seconds=0))["run_id"]
        with anyio.fail_after(60):
            await served.model.until(lambda: bool(served.model.requests))
        async with open_database(database(served)) as elsewhere:
            owner = (await Runs(elsewhere, owner="other").get(run_id)).owner
            await RunLeases(elsewhere, owner="other").interrupt_owner(owner)
        await served.call("rlm_run_resume", run_id=run_id, wait_seconds=0)
        with anyio.fail_after(60):
            await served.model.until(lambda: len(served.model.requests) == 2)
        first.set()
        still = await served.call("rlm_run_wait", run_id=run_id, wait_seconds=0.5)
        second.set()
        ended = await served.ended(run_id)
        trace = await whole_trace(served, run_id)

    ends = [event["detail"]["status"] for event in trace if event["type"] == "run_finished"]
    assert (still["status"], ended["status"], ended["answer"]) == ("running", "completed", "new")
    assert ends == ["interrupted", "completed"]
    assert "could not be stored" not in caplog.text


async def test_a_resumption_waits_for_a_cell_in_its_repl_as_long_as_its_caller_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starting, "TURN_SECONDS", 0.2)
    gate, asked_sub = anyio.Event(), anyio.Event()
    errors: list[dict[str, Any]] = []

    def answer(request: ChatRequestView) -> Answer:
        if request.model == "root":
            return unauthorized()
        asked_sub.set()
        return Reply("done", gate=gate)

    async with open_served(tmp_path, answer) as served:
        run = await served.call("rlm_query", question="?", text=TEXT)
        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                code = {"code": "llm_query('wait')", "run_id": run["run_id"]}
                group.start_soon(partial(served.call, "rlm_exec", **code))
                await asked_sub.wait()
                errors.append(await served.error("rlm_run_resume", run_id=run["run_id"]))
                gate.set()
            after = await served.call("rlm_run_resume", run_id=run["run_id"])

    assert [(error["code"], error["retryable"]) for error in errors] == [("sandbox_busy", True)]
    assert after["status"] == "failed"


async def test_what_differs_when_it_runs_again_is_said_and_the_record_stands(
    tmp_path: Path,
) -> None:
    look = cell("import time\nmoment = time.time_ns()\nprint(moment)")
    async with open_served(tmp_path, by_turn(look, cell("FINAL(moment)"))) as served:
        run = await asked(served)
        trace = await whole_trace(served, run["run_id"])
        shown = next(at for at, event in enumerate(trace, 1) if event["type"] == "code_executed")
        copy = await anyio.to_thread.run_sync(cut_off, database(served), run["run_id"], shown)
        resumed = await served.call("rlm_run_resume", run_id=copy)
        warnings = [
            event["preview"]
            for event in await whole_trace(served, copy)
            if event["type"] == "warning"
        ]

    assert resumed["answer"] != run["answer"]
    assert [line for line in warnings if "1 of 1 recorded cells gave another output" in line]
    assert run["answer"] in str(served.model.requests[-1].messages[-1]["content"])


async def test_a_run_that_goes_on_another_one_finds_its_variables_after_a_restart(
    tmp_path: Path,
) -> None:
    first = cell("import random\nnumber = random.random()\ndef double():\n    return 2 * number")
    replies = (first, cell("mine = double()\nprint(mine)"), cell("FINAL([number, mine])"))

    def script(request: ChatRequestView) -> Answer:
        if "first" in str(request.messages[1]):
            return (first, "FINAL(done)")[turn_of(request)]
        return replies[turn_of(request) + 1]

    async with open_served(tmp_path, script) as served:
        one = await asked(served, question="first?")
        await served.call("rlm_exec", run_id=one["run_id"], code="number += 1")
        two = await served.call("rlm_query", question="more?", continue_run=one["run_id"])
        await served.call("rlm_exec", run_id=one["run_id"], code="number = 0")
        copy = await anyio.to_thread.run_sync(cut_off, database(served), two["run_id"], 4)
    async with open_served(tmp_path, script) as restarted:
        resumed = await restarted.call("rlm_run_resume", run_id=copy)

    assert (two["status"], resumed["answer"]) == ("completed", two["answer"])


async def test_what_cannot_go_on_says_why(tmp_path: Path) -> None:
    async with open_served(tmp_path, by_turn(cell("FINAL(1)"))) as served:
        run = await asked(served)
        copy = await anyio.to_thread.run_sync(cut_off, database(served), run["run_id"], 2)
        listed = await served.call("rlm_context_list")
        handle = listed["contexts"][0]["handle"]
        cells = await served.call("rlm_exec", code="1", contexts=[handle])
        no_question = await served.error("rlm_run_resume", run_id=cells["run_id"])
        await served.call("rlm_context_delete", handle=handle)
        deleted = await served.error("rlm_run_resume", run_id=copy)
        await served.call("rlm_context_add", text=TEXT)
        forgotten = await served.error("rlm_run_resume", run_id=copy)
        unknown = await served.error("rlm_run_resume", run_id="run_none")

    assert "rlm_exec" in no_question["fix"]
    assert (deleted["code"], handle in deleted["message"]) == ("not_found", True)
    assert "store the text again, and ask again" in deleted["fix"]
    assert "was deleted with its text" in forgotten["message"]
    assert unknown["code"] == "not_found"
