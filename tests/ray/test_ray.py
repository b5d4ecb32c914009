"""Runs on a real Ray cluster: two nodes on loopback, real servers, and real kills.

Ray is in its own processes: the cluster in one, each server in another. What the tests wait for is
what the model was asked, so that nothing depends on how fast this machine is.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream

from rlm_mcp.testing.scripted_model import ScriptedModel, open_scripted_model
from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView, Reply
from tests.killing import Known, open_to_be_killed
from tests.ray import processes
from tests.sandbox_battery import descendants
from tests.serving import Served, cell
from tests.test_stdio import open_process
from tests.waiting import until

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason="Ray is not installed: uv run --extra ray"
    ),
    pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc"),
]

STEPS = 6
KEY_OF_THE_NODES = "key-of-the-nodes"
PATIENCE_SECONDS = 300


def script(request: ChatRequestView) -> Answer:
    """Some turns with a sub-call each, which takes long enough to be killed in."""
    marker = re.findall(r"marker-\d+", str(request.messages))[0]
    if request.model == "sub":
        step = re.findall(r"step (\d+)", request.text)[0]
        return Reply(f"{marker} {step}", latency_seconds=0.5)
    turn = sum(message["role"] == "assistant" for message in request.messages)
    if turn == STEPS:
        return cell("FINAL(' '.join(replies))")
    first = "replies = []\n" if turn == 0 else ""
    code = f"replies.append(llm_query('{marker} step {turn} of ' + context[:9]))\nprint(replies)"
    return cell(first + code)


def answer_of(marker: str) -> str:
    return " ".join(f"{marker} {step}" for step in range(STEPS))


class Nodes:
    """The cluster, in a process of its own."""

    def __init__(self, process: Process) -> None:
        self._process = process
        assert process.stdout is not None
        self._lines = TextReceiveStream(process.stdout)
        self._read = ""
        self.address = ""
        self.nodes: list[str] = []

    async def told(self) -> None:
        """Take in what the cluster says of itself; the first lines may be Ray's own."""
        with anyio.fail_after(PATIENCE_SECONDS):
            while True:
                line, found, self._read = self._read.partition("\n")
                if not found:
                    self._read = line + await self._lines.receive()
                elif line.startswith('{"address"'):
                    said = json.loads(line)
                    self.address, self.nodes = said["address"], said["nodes"]
                    return

    async def tell(self, command: str) -> None:
        """Have a node killed or added."""
        assert self._process.stdin is not None
        await self._process.stdin.send(f"{command}\n".encode())
        await self.told()

    async def workers(self) -> dict[int, str]:
        """The workers' processes, each with the address of its node."""
        found: dict[int, str] = {}
        for node in self.nodes:
            for pid in await anyio.to_thread.run_sync(processes.workers, node):
                found[pid] = node
        return found


@pytest.fixture(scope="module")
async def nodes() -> AsyncGenerator[Nodes]:
    """Two nodes that offer a worker, with a key for models."""
    environment = {**os.environ, "RLM_MCP_API_KEY": KEY_OF_THE_NODES}
    async with await anyio.open_process(
        [sys.executable, "-m", "tests.ray.nodes"], env=environment, stderr=subprocess.DEVNULL
    ) as process:
        cluster = Nodes(process)
        await cluster.told()
        yield cluster
        assert process.stdin is not None
        await process.stdin.aclose()
        with anyio.fail_after(PATIENCE_SECONDS):
            await process.wait()


@pytest.fixture
async def model() -> AsyncGenerator[ScriptedModel]:
    async with open_scripted_model(script) as model:
        yield model


@asynccontextmanager
async def open_front(
    directory: Path, model: ScriptedModel, nodes: Nodes, **more: Any
) -> AsyncGenerator[Served]:
    """A server over stdio whose runs go to the cluster."""
    async with open_process(directory, model, RLM_MCP_RAY_ADDRESS=nodes.address, **more) as served:
        yield served


async def begin(served: Served, marker: str) -> str:
    added = await served.call("rlm_context_add", text=f"{marker} " + "nothing of note " * 5000)
    run = await served.call(
        "rlm_query", question=f"What of {marker}?", contexts=[added["handle"]], wait_seconds=0
    )
    return run["run_id"]


async def until_asked(model: ScriptedModel, what: str) -> None:
    with anyio.fail_after(PATIENCE_SECONDS):
        await model.until(lambda: any(what in one.text for one in model.requests))


async def ended(served: Served, run_id: str) -> dict[str, Any]:
    with anyio.fail_after(PATIENCE_SECONDS):
        while True:
            run = await served.call("rlm_run_wait", run_id=run_id, wait_seconds=20)
            if run["status"] != "running":
                return run


async def worker_of(nodes: Nodes, model: ScriptedModel) -> int:
    """The worker that asks the model now."""
    ports = await anyio.to_thread.run_sync(processes.asking, model.base_url)
    [pid] = ports & (await nodes.workers()).keys()
    return pid


async def events_of(served: Served, run_id: str) -> list[dict[str, Any]]:
    trace = await served.call("rlm_run_trace", run_id=run_id, limit=100)
    return trace["events"]


def calls(model: ScriptedModel) -> int:
    return len(model.requests)


NEEDED = 2 * STEPS + 1


async def test_a_run_is_worked_on_by_a_worker_and_its_log_streams_to_the_caller(
    tmp_path: Path, model: ScriptedModel, nodes: Nodes
) -> None:
    async with open_front(tmp_path, model, nodes) as served:
        run = await ended(served, await begin(served, "marker-1"))
        events = await events_of(served, run["run_id"])

    assert (run["status"], run["answer"]) == ("completed", answer_of("marker-1"))
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert {one.headers["authorization"] for one in model.requests} == {
        f"Bearer {KEY_OF_THE_NODES}"
    }
    assert calls(model) == NEEDED
    assert len(served.progress) > STEPS


async def test_no_model_is_asked_after_a_cancel(
    tmp_path: Path, model: ScriptedModel, nodes: Nodes
) -> None:
    async with open_front(tmp_path, model, nodes) as served:
        run_id = await begin(served, "marker-2")
        await until_asked(model, "marker-2 step 2")
        cancelled = await served.call("rlm_run_cancel", run_id=run_id)
        cancelled = cancelled if cancelled["status"] != "running" else await ended(served, run_id)
        asked = calls(model)
        other = await ended(served, await begin(served, "marker-3"))

    assert (cancelled["status"], other["status"]) == ("cancelled", "completed")
    assert calls(model) == asked + NEEDED


async def test_when_a_worker_is_killed_its_run_goes_on_at_another_one(
    tmp_path: Path, model: ScriptedModel, nodes: Nodes
) -> None:
    async with open_front(tmp_path, model, nodes) as served:
        run_id = await begin(served, "marker-4")
        await until_asked(model, "marker-4 step 2")
        pid = await worker_of(nodes, model)
        below = await anyio.to_thread.run_sync(descendants, pid)
        os.kill(pid, signal.SIGKILL)
        now = await served.call("rlm_run_wait", run_id=run_id, wait_seconds=0)
        run = await ended(served, run_id)
        events = await events_of(served, run_id)
        await until(lambda: not processes.alive(set(below)))

    assert now["status"] == "running"
    assert (run["status"], run["answer"]) == ("completed", answer_of("marker-4"))
    assert "continues on another worker" in [event["preview"] for event in events]
    assert calls(model) <= NEEDED + 1  # the one in flight


async def test_when_a_worker_hangs_its_run_goes_on_at_another_one(
    tmp_path: Path, model: ScriptedModel, nodes: Nodes
) -> None:
    async with open_front(tmp_path, model, nodes) as served:
        run_id = await begin(served, "marker-5")
        await until_asked(model, "marker-5 step 2")
        pid = await worker_of(nodes, model)
        os.kill(pid, signal.SIGSTOP)
        run = await ended(served, run_id)
        await until(lambda: not processes.alive({pid}), PATIENCE_SECONDS)

    assert (run["status"], run["answer"]) == ("completed", answer_of("marker-5"))
    assert calls(model) <= NEEDED + 1


async def test_a_cell_runs_where_its_run_left_the_repl_and_gets_what_was_saved_when_that_is_killed(
    tmp_path: Path, model: ScriptedModel, nodes: Nodes
) -> None:
    async with open_front(tmp_path, model, nodes) as served:
        run = await ended(served, await begin(served, "marker-8"))

        async def execute(code: str) -> dict[str, Any]:
            return await served.call("rlm_exec", run_id=run["run_id"], code=code)

        first = await execute("alive = (one for one in replies)\nprint(next(alive))")
        second = await execute("print(next(alive), llm_query('marker-8 step 9'))")
        workers = (await served.call("rlm_status"))["cluster"]["workers"]
        [holder] = [worker for worker in workers if worker["repls"]]
        [pid] = await anyio.to_thread.run_sync(processes.workers, holder["node"])
        below = await anyio.to_thread.run_sync(descendants, pid)
        os.kill(pid, signal.SIGKILL)
        third = await execute("print(replies[2], 'alive' in dir())")
        await until(lambda: not processes.alive(set(below)))

    assert (first["output"], first["note"]) == ("marker-8 0\n", None)
    assert (second["output"], second["note"]) == ("marker-8 1 marker-8 9\n", None)
    assert {worker["node"] for worker in workers} == set(nodes.nodes)
    assert (holder["runs"], holder["repls"]) == (0, 1)
    # Late where the machine is busy.
    assert {worker["state"] for worker in workers} <= {"up", "late"}
    assert holder["isolation"] in {"full", "partial"}
    assert (third["output"], third["error"]) == ("marker-8 2 False\n", None)
    assert "a new one got the saved variables; not restored: alive" in third["note"]


async def test_when_a_server_is_killed_its_workers_stop_and_the_next_one_goes_on(
    tmp_path: Path, model: ScriptedModel, nodes: Nodes
) -> None:
    known = Known(tmp_path, model)
    extra = {"RLM_MCP_RAY_ADDRESS": nodes.address}
    async with open_to_be_killed(known, **extra) as (served, kill):
        run_id = await begin(served, "marker-6")
        await until_asked(model, "marker-6 step 2")
        before = await nodes.workers()
        kill()
    await until(lambda: not processes.alive(set(before)))
    asked = calls(model)
    async with open_front(tmp_path, model, nodes) as served:
        run = await served.call("rlm_run_wait", run_id=run_id, wait_seconds=0)
        if run["status"] == "interrupted":
            await served.call("rlm_run_resume", run_id=run_id, wait_seconds=0)
        run = await ended(served, run_id)

    assert (run["status"], run["answer"]) == ("completed", answer_of("marker-6"))
    assert asked <= NEEDED
    assert calls(model) <= NEEDED + 1


async def test_when_a_node_is_killed_its_run_goes_on_and_a_new_node_gets_a_worker(
    tmp_path: Path, model: ScriptedModel, nodes: Nodes
) -> None:
    async with open_front(tmp_path, model, nodes) as served:
        run_id = await begin(served, "marker-7")
        await until_asked(model, "marker-7 step 2")
        pid = await worker_of(nodes, model)
        await nodes.tell(f"kill {(await nodes.workers())[pid]}")
        run = await ended(served, run_id)
        await nodes.tell("add")
        [new] = nodes.nodes[-1:]
        await until(lambda: bool(processes.workers(new)), PATIENCE_SECONDS)

    assert (run["status"], run["answer"]) == ("completed", answer_of("marker-7"))
    assert calls(model) <= NEEDED + 1
