"""How soon a server answers while it works: `python bench/latency.py`; prints a table.

1. A real `rlm-mcp` over stdio: a cell spins, 100 MB are stored, and other calls are made.
2. A hundred runs at once on one server, each spinning or sleeping in its REPL.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rlm_mcp.scripted_model import open_scripted_model
from tests.serving import Served, cell, open_served, turns
from tests.test_server_many import RUNS, busy
from tests.test_stdio import open_process

MEGABYTES = 100


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


async def main() -> None:
    print("| while | answers | median ms | slowest ms |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as directory:
        loading = await while_a_file_loads_and_a_cell_spins(Path(directory))
    print(row(f"a cell spins and {MEGABYTES} MB are stored, over stdio", loading))
    with tempfile.TemporaryDirectory() as directory:
        working = await while_a_hundred_runs_work(Path(directory))
    print(row(f"{RUNS} runs spin or sleep, in memory", working))


if __name__ == "__main__":
    anyio.run(main)
