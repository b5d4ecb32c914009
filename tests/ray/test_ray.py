"""Runs on a real Ray cluster: two nodes on loopback, real servers, and real kills.

Ray is in its own processes: the cluster in one, each server in another. What the tests wait for is
what the model was asked, so that nothing depends on how fast this machine is. Most of them share a
server, whose workers take seconds to be up.
"""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from rlm_mcp.store.runs.attempts import MAX_ATTEMPTS
from rlm_mcp.testing.scripted_model import ScriptedModel, open_scripted_model
from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView, Reply
from tests.killing import Known, open_to_be_killed
from tests.ray import processes
from tests.ray.cluster import PATIENCE_SECONDS, Nodes, open_nodes
from tests.ray.nodes import key_of
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
NEEDED = 2 * STEPS + 1
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}


class Script:
    """Some turns with a sub-call each, which takes long enough to be killed in.

    What has a gate, as `marker-1 step 2` or `marker-1 turn 0`, is answered once that is set.
    """

    def __init__(self) -> None:
        self.gates: dict[str, anyio.Event] = {}

    def __call__(self, request: ChatRequestView) -> Answer:
        marker = re.findall(r"marker-\d+", str(request.messages))[0]
        if request.model == "sub":
            step = re.findall(r"step (\d+)", request.text)[0]
            gate = self.gates.get(f"{marker} step {step}")
            return Reply(f"{marker} {step}", latency_seconds=0 if gate else 0.5, gate=gate)
        turn = sum(message["role"] == "assistant" for message in request.messages)
        first = "replies = []\n" if turn == 0 else ""
        ask = f"llm_query('{marker} step {turn} of ' + context[:9])"
        code = f"{first}replies.append({ask})\nprint(replies)"
        text = cell("FINAL(' '.join(replies))" if turn == STEPS else code)
        return Reply(text, gate=self.gates.get(f"{marker} turn {turn}"))


def answer_of(marker: str) -> str:
    return " ".join(f"{marker} {step}" for step in range(STEPS))


@pytest.fixture(scope="module")
async def nodes() -> AsyncGenerator[Nodes]:
    """Two nodes that offer a worker, with a key for models; they want Ray's token of everybody."""
    async with open_nodes(environment=TOKEN) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def script() -> Script:
    return Script()


@pytest.fixture(scope="module")
async def model(script: Script) -> AsyncGenerator[ScriptedModel]:
    async with open_scripted_model(script) as model:
        yield model


@asynccontextmanager
async def open_front(
    directory: Path, model: ScriptedModel, nodes: Nodes, **more: Any
) -> AsyncGenerator[Served]:
    """A server over stdio whose runs go to the cluster."""
    environment: dict[str, Any] = {"RLM_MCP_RAY_ADDRESS": nodes.address, **TOKEN, **more}
    async with open_process(directory, model, lasts_seconds=3600, **environment) as served:
        yield served


@pytest.fixture(scope="module")
async def served(
    tmp_path_factory: pytest.TempPathFactory, model: ScriptedModel, nodes: Nodes
) -> AsyncGenerator[Served]:
    async with open_front(tmp_path_factory.mktemp("front"), model, nodes) as served:
        yield served


async def begin(served: Served, marker: str) -> str:
    added = await served.call("rlm_context_add", text=f"{marker} " + "nothing of note " * 5000)
    run = await served.call(
        "rlm_query", question=f"What of {marker}?", contexts=[added["handle"]], wait_seconds=0
    )
    return run["run_id"]


def requests_of(model: ScriptedModel, marker: str) -> list[ChatRequestView]:
    return [one for one in model.requests if marker in str(one.messages)]


def calls(model: ScriptedModel, marker: str) -> int:
    return len(requests_of(model, marker))


async def until_asked(model: ScriptedModel, what: str) -> None:
    with anyio.fail_after(PATIENCE_SECONDS):
        await model.until(lambda: any(what in one.text for one in model.requests))


async def ended(served: Served, run_id: str) -> dict[str, Any]:
    with anyio.fail_after(PATIENCE_SECONDS):
        while True:
            run = await served.call("rlm_run_wait", run_id=run_id, wait_seconds=20)
            if run["status"] != "running":
                return run


async def worker_of(nodes: Nodes, model: ScriptedModel, marker: str) -> int:
    """The worker that works on a run, as the key tells with which it asks the model."""
    asked = requests_of(model, marker)[-1].authorization
    workers = await nodes.workers()
    [pid] = [pid for pid, address in workers.items() if asked == f"Bearer {key_of(address)}"]
    return pid


async def events_of(served: Served, run_id: str) -> list[dict[str, Any]]:
    trace = await served.call("rlm_run_trace", run_id=run_id, limit=100)
    return trace["events"]


async def test_when_a_server_is_killed_its_workers_stop_and_the_next_one_goes_on_by_itself(
    tmp_path: Path, model: ScriptedModel, nodes: Nodes
) -> None:
    """It comes first, while no other server has workers."""
    known = Known(tmp_path, model)
    extra = {"RLM_MCP_RAY_ADDRESS": nodes.address, **TOKEN}
    async with open_to_be_killed(known, **extra) as (served, kill):
        run_id = await begin(served, "marker-1")
        await until_asked(model, "marker-1 step 2")
        before = await nodes.workers()
        kill()
    await until(lambda: not processes.alive(set(before)), PATIENCE_SECONDS)
    asked = calls(model, "marker-1")
    async with open_front(tmp_path, model, nodes) as served:
        first = await served.call("rlm_run_wait", run_id=run_id, wait_seconds=0)
        run = await ended(served, run_id)
        events = await events_of(served, run_id)

    assert before
    assert first["status"] == "running"
    assert (run["status"], run["answer"]) == ("completed", answer_of("marker-1"))
    assert "continues on another server" in [event["preview"] for event in events]
    assert asked < calls(model, "marker-1") <= NEEDED + 1


async def test_a_server_without_the_clusters_token_is_refused_with_the_next_step(
    tmp_path: Path, model: ScriptedModel, nodes: Nodes
) -> None:
    without = {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": ""}
    async with open_front(tmp_path, model, nodes, **without) as served:
        refused = await served.error("rlm_run_list")

    assert "cannot be reached" in refused["text"]


async def test_a_run_is_worked_on_by_a_worker_and_its_log_streams_to_the_caller(
    served: Served, model: ScriptedModel, nodes: Nodes
) -> None:
    told = len(served.progress)
    run = await ended(served, await begin(served, "marker-2"))
    events = await events_of(served, run["run_id"])

    assert (run["status"], run["answer"]) == ("completed", answer_of("marker-2"))
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    [key] = {one.authorization for one in requests_of(model, "marker-2")}
    assert key in {f"Bearer {key_of(address)}" for address in nodes.nodes}
    assert calls(model, "marker-2") == NEEDED
    assert len(served.progress) - told >= 2


async def test_a_cancel_waits_for_no_reply_and_no_model_is_asked_after_it(
    served: Served, model: ScriptedModel, script: Script
) -> None:
    """That the call under way got no reply says on any machine that the cancel is quick."""
    gate = script.gates["marker-3 step 2"] = anyio.Event()
    run_id = await begin(served, "marker-3")
    await until_asked(model, "marker-3 step 2")
    began = anyio.current_time()
    cancelled = await served.call("rlm_run_cancel", run_id=run_id)
    cancelled = cancelled if cancelled["status"] != "running" else await ended(served, run_id)
    print(f"cancelled after {anyio.current_time() - began:.2f} s")
    asked = calls(model, "marker-3")
    gate.set()
    other = await ended(served, await begin(served, "marker-4"))

    assert (cancelled["status"], other["status"]) == ("cancelled", "completed")
    assert calls(model, "marker-3") == asked


async def test_a_cell_runs_where_its_run_left_the_repl_and_gets_what_was_saved_when_that_is_killed(
    served: Served, model: ScriptedModel, nodes: Nodes
) -> None:
    run = await ended(served, await begin(served, "marker-9"))
    pid = await worker_of(nodes, model, "marker-9")
    node = (await nodes.workers())[pid]

    async def execute(code: str) -> dict[str, Any]:
        return await served.call("rlm_exec", run_id=run["run_id"], code=code)

    first = await execute("alive = (one for one in replies)\nprint(next(alive))")
    second = await execute("print(next(alive), llm_query('marker-9 step 9'))")
    workers = (await served.call("rlm_status"))["cluster"]["workers"]
    [holder] = [worker for worker in workers if worker["node"] == node]
    below = await anyio.to_thread.run_sync(descendants, pid)
    os.kill(pid, signal.SIGKILL)
    third = await execute("print(replies[2], 'alive' in dir())")
    await until(lambda: not processes.alive(set(below)), PATIENCE_SECONDS)

    assert (first["output"], first["note"]) == ("marker-9 0\n", None)
    assert (second["output"], second["note"]) == ("marker-9 1 marker-9 9\n", None)
    assert {worker["node"] for worker in workers} == set(nodes.nodes)
    assert holder["repls"] > 0
    # Late where the machine is busy.
    assert {worker["state"] for worker in workers} <= {"up", "late"}
    assert holder["isolation"] in {"full", "partial"}
    assert (third["output"], third["error"]) == ("marker-9 2 False\n", None)
    assert "a new one got the saved variables; not restored: alive" in third["note"]


async def test_when_a_worker_is_killed_its_run_goes_on_at_another_one(
    served: Served, model: ScriptedModel, nodes: Nodes
) -> None:
    run_id = await begin(served, "marker-5")
    await until_asked(model, "marker-5 step 2")
    pid = await worker_of(nodes, model, "marker-5")
    below = await anyio.to_thread.run_sync(descendants, pid)
    os.kill(pid, signal.SIGKILL)
    now = await served.call("rlm_run_wait", run_id=run_id, wait_seconds=0)
    run = await ended(served, run_id)
    events = await events_of(served, run_id)
    await until(lambda: not processes.alive(set(below)))

    assert now["status"] == "running"
    assert (run["status"], run["answer"]) == ("completed", answer_of("marker-5"))
    assert "continues on another worker" in [event["preview"] for event in events]
    assert calls(model, "marker-5") <= NEEDED + 1  # the one in flight


async def test_when_a_worker_hangs_its_run_goes_on_at_another_one(
    served: Served, model: ScriptedModel, nodes: Nodes
) -> None:
    run_id = await begin(served, "marker-6")
    await until_asked(model, "marker-6 step 2")
    pid = await worker_of(nodes, model, "marker-6")
    os.kill(pid, signal.SIGSTOP)
    run = await ended(served, run_id)
    await until(lambda: not processes.alive({pid}), PATIENCE_SECONDS)

    assert (run["status"], run["answer"]) == ("completed", answer_of("marker-6"))
    assert calls(model, "marker-6") <= NEEDED + 1


async def test_a_run_that_loses_five_workers_is_interrupted(
    served: Served, model: ScriptedModel, script: Script, nodes: Nodes
) -> None:
    script.gates["marker-7 turn 0"] = anyio.Event()
    run_id = await begin(served, "marker-7")
    for attempt in range(1, MAX_ATTEMPTS + 1):
        with anyio.fail_after(PATIENCE_SECONDS):
            await model.until(lambda attempt=attempt: calls(model, "marker-7") == attempt)
        os.kill(await worker_of(nodes, model, "marker-7"), signal.SIGKILL)
    run = await ended(served, run_id)
    events = await events_of(served, run_id)

    assert run["status"] == "interrupted"
    assert "5 workers were lost" in run["error"]["message"]
    types = [event["type"] for event in events]
    assert (types.count("run_started"), types[-1]) == (MAX_ATTEMPTS, "run_finished")
    assert calls(model, "marker-7") == MAX_ATTEMPTS  # each time the one in flight


async def test_when_a_node_is_killed_its_run_goes_on_and_a_new_node_gets_a_worker(
    served: Served, model: ScriptedModel, nodes: Nodes
) -> None:
    run_id = await begin(served, "marker-8")
    await until_asked(model, "marker-8 step 2")
    pid = await worker_of(nodes, model, "marker-8")
    await nodes.tell(f"kill {(await nodes.workers())[pid]}")
    run = await ended(served, run_id)
    await nodes.tell("add")
    [new] = nodes.nodes[-1:]
    await until(lambda: bool(processes.workers(new)), PATIENCE_SECONDS)

    assert (run["status"], run["answer"]) == ("completed", answer_of("marker-8"))
    assert calls(model, "marker-8") <= NEEDED + 1
