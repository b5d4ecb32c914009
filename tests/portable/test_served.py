"""The whole server with the portable sandbox: the demo, a large text, a batch, a killed server."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from rlm_mcp.testing.scripted_model import open_scripted_model
from rlm_mcp.testing.scripted_replies import Reply
from tests import walls
from tests.serving import Served, cell, open_served, turns
from tests.test_sandbox_lives import descendants
from tests.test_stdio import open_process

LINE = "2026-11-26 10:00:01 INFO worker-3 handled request id=REQ-000123 in 31 ms, status=200\n"
LARGE_BYTES = 100_000_000


async def add_large(served: Served, directory: Path) -> str:
    path = directory / "large.log"
    count = LARGE_BYTES // len(LINE)
    await anyio.to_thread.run_sync(path.write_text, LINE * count + "the needle is 4711\n")
    return (await served.call("rlm_context_add", path=str(path)))["handle"]


async def test_a_question_over_a_large_text_is_answered(tmp_path: Path) -> None:
    code = "at = context.find('needle')\nprint(len(context), context[at:at + 14])"
    script = turns(cell(code), "FINAL_VAR(at)")
    async with open_served(tmp_path, script, sandbox="portable") as served:
        handle = await add_large(served, tmp_path)
        run = await served.call("rlm_query", question="Where?", contexts=[handle], wait_seconds=60)
        told = str(served.model.requests[-1].messages)
        status = await served.call("rlm_status")

    assert run["status"] == "completed"
    assert int(run["answer"]) > LARGE_BYTES - 1000
    assert "without real threads" in told
    assert status["sandbox"]["layers"][0] == "wasm"


async def test_a_batch_of_200_sub_calls_is_answered_in_order(tmp_path: Path) -> None:
    code = "got = llm_query_batch([f'{n} please' for n in range(200)])\n"
    code += "FINAL(' '.join(got) == ' '.join(map(str, range(200))))"
    script = turns(cell(code), sub=lambda prompt: prompt.split()[0])
    async with open_served(tmp_path, script, sandbox="portable") as served:
        run = await served.call("rlm_query", question="?", text="some text", wait_seconds=60)

    assert (run["answer"], run["sub_calls"]) == ("true", 200)


async def test_cells_variables_and_a_question_that_goes_on(tmp_path: Path) -> None:
    script = turns(cell("found = [1, 2]\nFINAL('first')"))
    async with open_served(tmp_path, script, sandbox="portable") as served:
        run = await served.call("rlm_query", question="?", text="some text", wait_seconds=60)
        done = await served.call("rlm_exec", code="found.append(3)\nfound", run_id=run["run_id"])
        mine = await served.call("rlm_run_variables", run_id=run["run_id"], name="found")
        more = await served.call(
            "rlm_query", question="?", continue_run=run["run_id"], wait_seconds=60
        )

    assert (done["output"], mine["text"]) == ("[1, 2, 3]\n", "[1, 2, 3]")
    assert more["status"] == "completed"


async def test_a_run_is_cancelled_while_a_cell_spins(tmp_path: Path) -> None:
    async with open_served(tmp_path, turns(cell("while True: pass")), sandbox="portable") as served:
        run = await served.call("rlm_query", question="?", text="some text", wait_seconds=0)
        with anyio.fail_after(60):
            last = 0
            while last < 3:  # the code is there
                waited = await served.call(
                    "rlm_run_wait", run_id=run["run_id"], after_event=last, wait_seconds=5
                )
                last = waited["last_event"]
        cancelled = await served.call("rlm_run_cancel", run_id=run["run_id"])
        ended = await served.ended(run["run_id"])

    assert (cancelled["run_id"], ended["status"]) == (run["run_id"], "cancelled")


@pytest.mark.skipif(not walls.IS_PORTABLE, reason="its processes are told by RLM_TEST_SANDBOX")
async def test_a_killed_servers_run_is_resumed_and_no_process_is_left(tmp_path: Path) -> None:
    replies = (cell("kept = 40"), cell("FINAL(kept + len(llm_query('how many?')))"))
    run: dict[str, Any] = {}
    below: dict[int, str] = {}

    async def work_and_kill(served: Served) -> None:
        before = descendants()
        run.update(await served.call("rlm_query", question="?", text="some text", wait_seconds=0))
        while run["last_event"] < 5:
            run.update(
                await served.call(
                    "rlm_run_wait",
                    run_id=run["run_id"],
                    after_event=run["last_event"],
                    wait_seconds=5,
                )
            )
        below.update({pid: name for pid, name in descendants().items() if pid not in before})
        [server] = [pid for pid, name in before.items() if "python" in name]
        os.kill(server, signal.SIGKILL)

    never = turns(*replies, sub=lambda _: Reply("ab", latency_seconds=600))
    async with open_scripted_model(never) as model:
        with suppress(Exception):  # the connection breaks as it may
            async with open_process(tmp_path, model) as served:
                await work_and_kill(served)
                await served.call("rlm_status")
        with anyio.fail_after(60):
            while any(Path(f"/proc/{pid}").exists() for pid in below):  # noqa: ASYNC110, ASYNC240  # nobody tells
                await anyio.sleep(0.05)
    async with (
        open_scripted_model(turns(*replies, sub=lambda _: "ab")) as model,
        open_process(tmp_path, model) as served,
    ):
        resumed = await served.call("rlm_run_resume", run_id=run["run_id"], wait_seconds=60)

    assert below
    assert (resumed["status"], resumed["answer"]) == ("completed", "42")


async def test_a_text_that_this_sandbox_cannot_hold_is_refused_before_a_run_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlm_mcp.sandbox.portable.text.MOST_TEXT_BYTES", 8)
    async with open_served(tmp_path, turns("never"), sandbox="portable") as served:
        refused = await served.error("rlm_query", question="?", text="nine bytes")
        runs = (await served.call("rlm_run_list"))["runs"]

    assert "holds less than 2 GiB" in refused["message"]
    assert (runs, served.model.received) == ([], 0)


async def test_the_demo_runs(tmp_path: Path) -> None:
    env = {**os.environ, "RLM_MCP_DATA_DIR": str(tmp_path), "RLM_MCP_SANDBOX": "portable"}
    with anyio.fail_after(120):
        ended = await anyio.run_process([sys.executable, "-m", "rlm_mcp", "demo"], env=env)
    assert b"answer" in ended.stdout.lower()
