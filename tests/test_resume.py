"""Runs that go on where their log ends: nothing is lost, changed or paid for twice."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from rlm_mcp.scripted_model import Answer, ChatRequestView, Reply
from rlm_mcp.scripted_replies import Script
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
    *(cell(f"v{n} = {n}\nprint('{n} ' * 900)") for n in range(5)),
    cell("FINAL(v0 + v1 + v2 + v3 + v4)"),
)
KINDS: dict[str, tuple[tuple[str, ...], dict[str, Any], dict[str, Any], str]] = {
    "plain": (PLAIN, {}, {"max_depth": 2}, r"red 4 0\.\d+ 40"),
    "summed up": (LONG, {"root_context_tokens": 2600, "root_max_tokens": 500}, {}, "10"),
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
