"""How soon a server answers while it works: `python bench/latency.py`; prints a table.

1. A real `rlm-mcp` over stdio: a cell spins, 100 MB are stored, and other calls are made.
2. A hundred runs at once on one server, each spinning or sleeping in its REPL.
3. Two hundred runs of five turns asked for at once over stdio, with replies after 50 ms, while a
   second server process on the same data directory reads.
4. What runs cost a server in CPU, as `load.py` says, which compares two checkouts.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import anyio.to_thread
from load import HERE, print_table
from mcp import Client

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rlm_mcp.testing.scripted_model import open_scripted_model
from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView, Reply
from tests.serving import Served, cell, open_served, turns
from tests.test_server_many import RUNS, busy, children
from tests.test_stdio import open_process

MEGABYTES = 100
MANY_RUNS = 200
TURNS = 5
LATENCY_SECONDS = 0.05


async def timed(call: Callable[[], Awaitable[object]]) -> float:
    started = time.perf_counter()
    await call()
    return (time.perf_counter() - started) * 1000


def row(what: str, answers: list[float]) -> str:
    median, slowest = statistics.median(answers), max(answers)
    return f"| {what} | {len(answers)} | {median:.1f} | {slowest:.0f} |"


async def while_a_file_loads_and_a_cell_spins(directory: Path) -> list[float]:
    file = directory / "large.txt"
    await anyio.Path(file).write_text("a line of a log that goes on and on\n" * 2_800_000)
    answers: list[float] = []
    async with (
        open_scripted_model(turns(cell("while True: pass"))) as model,
        open_process(directory, model) as served,
    ):
        await served.call("rlm_query", question="?", text="some text", wait_seconds=0)
        async with anyio.create_task_group() as group:
            done = anyio.Event()

            async def load() -> None:
                await served.call("rlm_context_add", path=str(file))
                done.set()

            group.start_soon(load)
            while not done.is_set():
                answers.append(await timed(lambda: served.call("rlm_run_list")))
    return answers


async def while_a_hundred_runs_work(directory: Path) -> list[float]:
    async with open_served(directory, busy, max_concurrent_runs=RUNS) as served:
        for number in range(RUNS):
            await started(served, f"question {number}")
        await served.model.until(lambda: served.model.received >= RUNS)
        return [await timed(lambda: served.call("rlm_run_list", limit=1)) for _ in range(100)]


async def started(served: Served, question: str) -> None:
    await served.call("rlm_query", question=question, text="some text", wait_seconds=0)


def five_turns(request: ChatRequestView) -> Answer:
    turn = sum(message["role"] == "assistant" for message in request.messages)
    code = cell(f"n = {turn}") if turn < TURNS - 1 else "FINAL(done)"
    return Reply(code, latency_seconds=LATENCY_SECONDS)


def megabytes(processes: set[str]) -> float:
    """Memory of processes, what they share counted once."""
    total = 0
    for pid in processes:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                total += int(line.split()[1]) if line.startswith("Pss:") else 0
    return total / 1000


async def send_ping(client: Client) -> None:
    with warnings.catch_warnings():  # it went from the protocol, but old clients send it
        warnings.simplefilter("ignore")
        await client.send_ping()


class Watched:
    """How soon each of some calls is answered, over and over until told to stop."""

    def __init__(self, name: str, served: Served) -> None:
        client = served.client
        self.done = anyio.Event()
        self.calls = {
            f"rlm_run_list, {name}": lambda: served.call("rlm_run_list"),
            f"tools/list, {name}": client.list_tools,
            f"ping, {name}": lambda: send_ping(client),
        }
        self.answers: dict[str, list[float]] = {call: [] for call in self.calls}

    async def watch(self) -> None:
        while not self.done.is_set():
            for name, call in self.calls.items():
                self.answers[name].append(await timed(call))
            await anyio.sleep(0.02)


async def while_many_runs_are_asked_for_and_another_server_reads(directory: Path) -> list[str]:
    ended: list[str] = []
    async with (
        open_scripted_model(five_turns) as model,
        open_process(directory, model, mode="legacy") as served,
        open_process(directory, model, mode="legacy") as other,
    ):
        handle = (await served.call("rlm_context_add", text="some text"))["handle"]
        await served.call("rlm_query", question="first?", contexts=[handle])
        places = (await served.call("rlm_status"))["limits"]["max_concurrent_runs"]
        before = megabytes(await anyio.to_thread.run_sync(children))
        watched = [Watched("same server", served), Watched("other server", other)]

        async def ask(number: int) -> None:
            run = await served.call("rlm_query", question=f"number {number}?", contexts=[handle])
            ended.append((await served.ended(run["run_id"]))["status"])

        began = time.perf_counter()
        async with anyio.create_task_group() as watching:
            for one in watched:
                watching.start_soon(one.watch)
            async with anyio.create_task_group() as asking:
                for number in range(MANY_RUNS):
                    asking.start_soon(ask, number)
            took = time.perf_counter() - began
            for one in watched:
                one.done.set()
        after = megabytes(await anyio.to_thread.run_sync(children))
    assert ended == ["completed"] * MANY_RUNS
    ideal = -(-MANY_RUNS // places) * TURNS * LATENCY_SECONDS
    rows = [row(name, answers) for one in watched for name, answers in one.answers.items()]
    return [
        *rows,
        "",
        f"{MANY_RUNS} runs of {TURNS} turns, {places} at once: {took:.1f} s, {ideal:.1f} s with "
        f"nothing but the model's {LATENCY_SECONDS * 1000:.0f} ms; memory of both servers and "
        f"their REPLs {before:.0f} MB before, {after:.0f} MB after.",
    ]


async def main() -> None:
    print("| while | answers | median ms | slowest ms |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as directory:
        loading = await while_a_file_loads_and_a_cell_spins(Path(directory))
    print(row(f"a cell spins and {MEGABYTES} MB are stored, over stdio", loading))
    with tempfile.TemporaryDirectory() as directory:
        working = await while_a_hundred_runs_work(Path(directory))
    print(row(f"{RUNS} runs spin or sleep, in memory", working))
    with tempfile.TemporaryDirectory() as directory:
        many = await while_many_runs_are_asked_for_and_another_server_reads(Path(directory))
    print("\n".join(many) + "\n")
    await print_table({"now": HERE}, rounds=1)


if __name__ == "__main__":
    anyio.run(main)
