"""Many runs at once on one server."""

from __future__ import annotations

import gc
import os
import statistics
import time
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView
from tests.serving import Served, cell, open_served
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("one_sandbox_for_all")

RUNS = 100


def children() -> set[str]:
    """Processes below this one, however deep."""
    parents: dict[str, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it ended while we looked
            if stat[0] != "Z":
                parents[entry.name] = stat[1]
    found = {str(os.getpid())}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {str(os.getpid())}


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def busy(request: ChatRequestView) -> Answer:
    """Half of the runs spin, the others sleep."""
    number = sum(map(ord, str(request.messages[-1]["content"])))
    return cell("while True: pass" if number % 2 else "import time\ntime.sleep(600)")


async def until_working(served: Served) -> None:
    with anyio.fail_after(120):
        await served.model.until(lambda: served.model.received >= RUNS)


async def test_a_hundred_busy_runs_leave_the_server_answering_and_nothing_behind(
    tmp_path: Path,
) -> None:
    gc.collect()  # what earlier tests left open
    before = await anyio.to_thread.run_sync(descriptors)
    async with open_served(
        tmp_path, busy, has_own_sandbox=True, max_concurrent_runs=RUNS
    ) as served:
        handle = (await served.call("rlm_context_add", text="some text"))["handle"]
        runs = [
            await served.call(
                "rlm_query", question=f"question {number}", contexts=[handle], wait_seconds=0
            )
            for number in range(RUNS)
        ]
        await until_working(served)
        answered: list[float] = []
        for _ in range(50):
            started = time.perf_counter()
            await served.call("rlm_run_list", limit=1)
            answered.append(time.perf_counter() - started)
        working = await anyio.to_thread.run_sync(children)
        async with anyio.create_task_group() as group:
            for run in runs:
                group.start_soon(partial(served.call, "rlm_run_cancel", run_id=run["run_id"]))
        states = [await served.ended(run["run_id"]) for run in runs]
        await until(lambda: len(children()) <= len(working) - RUNS)
    left = await anyio.to_thread.run_sync(children)
    after = await anyio.to_thread.run_sync(descriptors)

    assert {state["status"] for state in states} == {"cancelled"}
    assert len(working) >= RUNS
    assert left == set()
    assert after <= before
    assert statistics.median(answered) < 1  # how fast it is, bench/ measures


async def test_runs_over_many_texts_at_once_all_end(tmp_path: Path) -> None:
    async with open_served(tmp_path, lambda _: cell("FINAL('of ' + context)")) as served:
        answers: list[str] = []

        async def ask(number: int) -> None:
            run = await served.call("rlm_query", question="?", text=f"text {number}")
            answers.append((await served.ended(run["run_id"]))["answer"])

        with anyio.fail_after(180):
            async with anyio.create_task_group() as group:
                for number in range(40):
                    group.start_soon(ask, number)

    assert sorted(answers) == sorted(f"of text {number}" for number in range(40))
