"""What runs cost a server in CPU: `python bench/load.py [--beside CHECKOUT] [--rounds N]`.

1. 200 runs of five turns asked for at once, with replies after 50 ms, each of which is waited for.
2. 40 runs at once of nine turns with one sub-call each, at zero latency.
3. 20 runs of five turns, one after another, at zero latency.
4. 20 runs at once with 100 sub-calls each, which take a second.

The servers are real ones over stdio, and the CPU is that of their own process: not of their REPLs,
of the client or of the model. With `--beside`, a server of that checkout takes turns with one of
this checkout, so that both meet the same noise.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rlm_mcp.testing.scripted_model import (
    Answer,
    ChatRequestView,
    Reply,
    ScriptedModel,
    open_scripted_model,
)
from tests.killing import children_of_this_process
from tests.serving import KEY, Served, cell, settings_in

HERE = Path(__file__).resolve().parent.parent
TICKS = os.sysconf("SC_CLK_TCK")
LATENCY_SECONDS = 0.05
WAIT_SECONDS = 300


@dataclass(frozen=True)
class Load:
    """Runs, `at_once` of which are asked for together.

    `places` is how many may work at once; the server decides if it is None.
    """

    runs: int
    turns: int
    at_once: int
    sub_calls: int = 0
    places: int | None = None
    latency_seconds: float = LATENCY_SECONDS
    sub_latency_seconds: float = 0.0

    @property
    def name(self) -> str:
        """What it is, in words."""
        calls = f", {self.sub_calls} sub-calls in each cell" if self.sub_calls else ""
        return f"{self.runs} runs of {self.turns} turns{calls}, {self.at_once} at once"

    def answer(self, request: ChatRequestView) -> Answer:
        """Reply as the root or the sub model."""
        if request.model == "sub":
            return Reply("a short reply", latency_seconds=self.sub_latency_seconds)
        turn = sum(message["role"] == "assistant" for message in request.messages)
        code = f"n = {turn}"
        if self.sub_calls:  # no two prompts are equal: the store would answer the second
            asked = f"f'number {{i}} of {request.number}' for i in range({self.sub_calls})"
            code = f"n = llm_query_batch([{asked}])"
        text = cell(code) if turn < self.turns - 1 else "FINAL(done)"
        return Reply(text, latency_seconds=self.latency_seconds)


LOADS = (
    Load(200, 5, at_once=200),
    Load(40, 9, at_once=40, sub_calls=1, places=40, latency_seconds=0.0),
    Load(20, 5, at_once=1, latency_seconds=0.0),
    Load(20, 2, at_once=20, sub_calls=100, places=20, sub_latency_seconds=1.0),
)


@dataclass(frozen=True)
class Cost:
    """What one load took."""

    seconds: float
    cpu_seconds: float


async def measure(load: Load, checkout: Path) -> Cost:
    """Put a load on a server of a checkout, once it is warm."""
    with tempfile.TemporaryDirectory() as directory:
        async with open_scripted_model(load.answer, keep=1) as model:
            before = await anyio.to_thread.run_sync(children_of_this_process)
            parameters = _parameters(Path(directory), model, checkout, load)
            async with Client(stdio_client(parameters)) as client:
                [pid] = await anyio.to_thread.run_sync(children_of_this_process) - before
                served = Served(client, model, settings_in(Path(directory)))
                return await _measure(load, served, pid)


async def _measure(load: Load, served: Served, pid: int) -> Cost:
    handle = (await served.call("rlm_context_add", text="some text"))["handle"]
    ask = _asking(served, handle)
    for number in range(3):
        await ask(f"warm {number}")
    began, cpu_began = time.perf_counter(), _cpu_seconds(pid)
    for first in range(0, load.runs, load.at_once):
        async with anyio.create_task_group() as group:
            for number in range(first, first + load.at_once):
                group.start_soon(ask, f"number {number}")
    return Cost(time.perf_counter() - began, _cpu_seconds(pid) - cpu_began)


def _asking(served: Served, handle: str) -> Callable[[str], Any]:
    async def ask(question: str) -> None:
        run = await served.call(
            "rlm_query", question=question, contexts=[handle], wait_seconds=WAIT_SECONDS
        )
        assert run["status"] == "completed", run

    return ask


def _parameters(
    directory: Path, model: ScriptedModel, checkout: Path, load: Load
) -> StdioServerParameters:
    env = {
        "HOME": str(directory),
        "RLM_MCP_DATA_DIR": str(directory / "data"),
        "RLM_MCP_BASE_URL": model.base_url,
        "RLM_MCP_API_KEY": KEY,
        "RLM_MCP_ROOT_MODEL": "root",
        "RLM_MCP_SUB_MODEL": "sub",
        "RLM_MCP_MIN_ISOLATION": "process",
    }
    if load.places is not None:
        env["RLM_MCP_MAX_CONCURRENT_RUNS"] = str(load.places)
    # `-m` finds the package in the working directory before any that is installed.
    return StdioServerParameters(
        command=sys.executable, args=["-m", "rlm_mcp"], env=env, cwd=checkout
    )


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


async def compare(load: Load, checkouts: dict[str, Path], rounds: int) -> list[str]:
    """Let servers of each checkout bear a load in turns; gives rows of a table."""
    costs: dict[str, list[Cost]] = {name: [] for name in checkouts}
    for _ in range(rounds):
        for name, checkout in checkouts.items():
            costs[name].append(await measure(load, checkout))
    turns = load.runs * load.turns
    first = statistics.median(cost.cpu_seconds for cost in next(iter(costs.values())))
    rows: list[str] = []
    for name, found in costs.items():
        cpu = statistics.median(cost.cpu_seconds for cost in found)
        least = min(cost.cpu_seconds for cost in found)
        seconds = statistics.median(cost.seconds for cost in found)
        rows.append(
            f"| {load.name}, {name} | {seconds:.2f} | {cpu:.2f} | {least:.2f} | "
            f"{1000 * cpu / turns:.2f} | {cpu / first:.2f} |"
        )
    return rows


async def print_table(
    checkouts: dict[str, Path], rounds: int, loads: Sequence[Load] = LOADS
) -> None:
    """Measure loads, and print a row for each checkout."""
    print("| load | s | CPU s | least CPU s | CPU ms a turn | to the first |")
    print("|---|---|---|---|---|---|")
    for load in loads:
        print("\n".join(await compare(load, checkouts, rounds)), flush=True)


async def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--beside", type=Path, help="another checkout to compare with")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--only", type=int, nargs="*", default=(1, 2, 3, 4), help="numbers of loads, as above"
    )
    options = parser.parse_args()
    checkouts = {"before": options.beside.resolve()} if options.beside else {}
    checkouts["now"] = HERE
    loads: list[Load] = [LOADS[int(number) - 1] for number in options.only]
    await print_table(checkouts, options.rounds, loads)


if __name__ == "__main__":
    anyio.run(main)
