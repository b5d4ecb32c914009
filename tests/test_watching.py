"""Many callers watch one run, whose record is read once for all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from rlm_mcp.testing.scripted_model import Answer, ChatRequestView, Reply
from tests.serving import cell, open_served

WATCHERS = 20

pytestmark = pytest.mark.usefixtures("one_sandbox_for_all")


async def test_all_who_wait_for_a_run_are_given_the_same_end(tmp_path: Path) -> None:
    gate = anyio.Event()

    def answer(request: ChatRequestView) -> Answer:
        turn = sum(message["role"] == "assistant" for message in request.messages)
        return Reply(cell(f"n = {turn}") if turn < 3 else "FINAL(done)", gate=gate)

    states: list[dict[str, Any]] = []
    async with open_served(tmp_path, answer) as served:
        run = await served.call("rlm_query", question="?", text="text", wait_seconds=0)

        async def wait() -> None:
            states.append(await served.call("rlm_run_wait", run_id=run["run_id"], wait_seconds=30))

        async with anyio.create_task_group() as group:
            for _ in range(WATCHERS):
                group.start_soon(wait)
            await served.model.until(lambda: served.model.in_flight == 1)
            gate.set()
        lines = [message for _, message in served.progress]

    assert len(states) == WATCHERS
    assert {(state["status"], state["answer"], state["last_event"]) for state in states} == {
        ("completed", "done", states[0]["last_event"])
    }
    # At most five a second are sent, and the last one always.
    assert "turn 4" in {line.split(" · ")[-3] for line in lines}
