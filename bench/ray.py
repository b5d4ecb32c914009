"""Runs on a Ray cluster: `uv run --extra ray python bench/ray.py [--runs N] [--rounds N]`.

1. Runs of three turns, whose model takes 1.5 s for each, with 20 places a worker: on one node, and
   on two. Waiting is what takes the time, so that two nodes on one machine can show how it scales.
2. A run of five turns alone, with replies at once: on a worker, and in a server's own process, in
   turns, so that both meet the same noise. `--runs 0` measures this alone.
3. Memory of the cluster and of a worker, as a share of what processes share (PSS).

The nodes are real ones on loopback, the servers real ones over stdio.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rlm_mcp.testing.scripted_model import ScriptedModel, open_scripted_model
from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView, Reply
from tests.ray.cluster import Nodes, open_nodes
from tests.sandbox_battery import descendants
from tests.serving import Served, cell
from tests.test_stdio import open_process

PLACES = 20
LATENCY_SECONDS = 1.5
WAIT_SECONDS = 600
WARM = 3


def answer(request: ChatRequestView) -> Answer:
    """Reply as the root model: turns and seconds are in the question, as `3 turns of 1.5 s`."""
    words = str(request.messages).partition("QUESTION ")[2].split()
    turns, latency = int(words[0]), float(words[3])
    turn = sum(message["role"] == "assistant" for message in request.messages)
    text = cell(f"x{turn} = {turn}\nprint(x{turn})") if turn < turns - 1 else "FINAL(done)"
    return Reply(text, latency_seconds=latency)


async def ask(served: Served, handle: str, question: str) -> float:
    """Have a question answered; return how many seconds that took."""
    began = time.perf_counter()
    run = await served.call(
        "rlm_query", question=question, contexts=[handle], wait_seconds=WAIT_SECONDS
    )
    assert run["status"] == "completed", run
    return time.perf_counter() - began


async def stored(served: Served) -> str:
    """Store a text of 100 kB."""
    return (await served.call("rlm_context_add", text="some words of no note " * 5000))["handle"]


async def measure_scale(served: Served, nodes: int, runs: int) -> float:
    """Ask many questions at once; return how many seconds they took together."""
    with anyio.fail_after(WAIT_SECONDS):
        while await _places(served) < PLACES * nodes:  # noqa: ASYNC110  # workers tell no client
            await anyio.sleep(0.5)
    handle = await stored(served)
    for number in range(WARM):
        await ask(served, handle, f"QUESTION 3 turns of 0 s, warm {number}")
    served.model.most_in_flight = 0
    began = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        for number in range(runs):
            question = f"QUESTION 3 turns of {LATENCY_SECONDS} s, {number}"
            tasks.start_soon(ask, served, handle, question)
    seconds = time.perf_counter() - began
    ideal = -(-runs // (PLACES * nodes)) * 3 * LATENCY_SECONDS
    print(
        f"| {runs} runs of three turns of {LATENCY_SECONDS} s, nodes: {nodes} | {seconds:.1f} s "
        f"(at best {ideal:.1f}), {served.model.most_in_flight} calls at once |",
        flush=True,
    )
    return seconds


async def _places(served: Served) -> int:
    return (await served.call("rlm_status"))["limits"]["max_concurrent_runs"]


async def measure_alone(on_worker: Served, in_process: Served, rounds: int) -> None:
    """Ask one question after another, of the two servers in turn."""
    took: dict[str, list[float]] = {"on a worker": [], "in the server's process": []}
    handles = [(one, await stored(one)) for one in (on_worker, in_process)]
    for number in range(WARM + rounds):
        for (served, handle), found in zip(handles, took.values(), strict=True):
            found.append(await ask(served, handle, f"QUESTION 5 turns of 0 s, alone {number}"))
    medians = [1000 * statistics.median(found[WARM:]) for found in took.values()]
    for name, milliseconds in zip(took, medians, strict=True):
        print(f"| a run of five turns alone, {name} | {milliseconds:.0f} ms |")
    print(f"| what the worker adds | {medians[0] - medians[1]:.0f} ms |", flush=True)


def memory_megabytes(pids: Iterable[int]) -> float:
    """What processes use, with their share of what they use together. Blocks."""
    kilobytes = 0
    for pid in pids:
        try:
            rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        kilobytes += sum(int(row.split()[1]) for row in rows if row.startswith("Pss:"))
    return kilobytes / 1024


async def print_memory(nodes: Nodes, name: str) -> None:
    """Print what the cluster uses, workers and all, and each worker without its REPLs."""
    below = await anyio.to_thread.run_sync(descendants, nodes.pid)
    workers = await nodes.workers()
    whole = await anyio.to_thread.run_sync(memory_megabytes, below)
    each = [await anyio.to_thread.run_sync(memory_megabytes, [pid]) for pid in workers]
    told = ", ".join(f"{one:.0f}" for one in each)
    print(f"| memory, {name} | {whole:.0f} MB, of which workers {told} |", flush=True)


async def measure(options: argparse.Namespace) -> None:
    """Measure on one node, and then on two; print rows of a table."""
    print("| load | |\n|---|---|")
    shared: dict[str, Any] = {
        "RLM_MCP_MAX_CONCURRENT_RUNS": str(PLACES),
        "RLM_MCP_MAX_CONCURRENT_CALLS": str(10 * PLACES),
    }
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        model = await enter(open_scripted_model(answer, keep=1))
        nodes = await enter(open_nodes(1))
        where = shared | {"RLM_MCP_RAY_ADDRESS": nodes.address}
        one = await _open(directory, model, stack, "one", where)
        took: list[float] = []
        if options.runs:
            took.append(await measure_scale(one, 1, options.runs))
            await print_memory(nodes, "one node")
        alone = await _open(directory, model, stack, "alone", shared)
        await measure_alone(one, alone, options.rounds)
        if not options.runs:
            return
        await nodes.tell("add")
        took.append(await measure_scale(one, 2, options.runs))
        await print_memory(nodes, "two nodes")
        print(f"| two nodes to one | {took[0] / took[1]:.2f} times |")


async def _open(
    directory: Path,
    model: ScriptedModel,
    stack: AsyncExitStack,
    name: str,
    environment: dict[str, Any],
) -> Served:
    place = directory / name
    place.mkdir()
    opening = open_process(place, model, lasts_seconds=3600, **environment)
    return await stack.enter_async_context(opening)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=40)
    anyio.run(measure, parser.parse_args())


if __name__ == "__main__":
    main()
