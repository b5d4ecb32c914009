"""Owners: a process is told from every other, and its death is known or not claimed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import anyio.from_thread
import anyio.to_thread
import pytest

from rlm_mcp.store.database import open_database
from rlm_mcp.store.runs.leases import RunLeases
from rlm_mcp.store.runs.owners import is_surely_alive, is_surely_dead, owner_id
from rlm_mcp.store.runs.records import NewEvent, NewRun
from rlm_mcp.store.runs.runs import Runs

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="start times of processes are read from /proc"
)

CHILD = """
import sys, anyio
from pathlib import Path
from rlm_mcp.store.database import open_database
from rlm_mcp.store.runs.owners import owner_id
from rlm_mcp.store.runs.records import NewEvent, NewRun
from rlm_mcp.store.runs.leases import RunLeases
from rlm_mcp.store.runs.runs import Runs

async def main():
    owner = await anyio.to_thread.run_sync(owner_id)
    async with open_database(Path(sys.argv[1])) as database:
        runs = Runs(database, owner=owner)
        await runs.create(NewRun("run_child", "q"))
        for _ in range(10):
            await runs.append_event("run_child", NewEvent("warning"))
        print(owner, flush=True)
        sys.stdin.read()

anyio.run(main)
"""


@contextmanager
def running_child(path: Path) -> Generator[tuple[subprocess.Popen[str], str]]:
    """Run a process that owns a run; give it with its owner id."""
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            assert child.stdout is not None
            yield child, child.stdout.readline().strip()
        finally:
            child.kill()


def test_this_process_lives_and_keeps_its_id() -> None:
    assert owner_id() == owner_id()
    assert not is_surely_dead(owner_id())
    assert is_surely_alive(owner_id())


def test_a_killed_process_is_dead_before_and_after_it_is_reaped(tmp_path: Path) -> None:
    with running_child(tmp_path / "rlm.sqlite3") as (child, owner):
        assert not is_surely_dead(owner)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert is_surely_dead(owner)
        child.wait()
        assert is_surely_dead(owner)


def test_a_process_that_got_the_number_of_an_earlier_one_is_not_it() -> None:
    pid, started, *place = owner_id().split(":")
    assert is_surely_dead(":".join([pid, str(int(started) - 1), *place]))


@pytest.mark.parametrize("part", [2, 3])
def test_a_process_of_another_boot_or_container_is_left_to_its_lease(part: int) -> None:
    parts = owner_id().split(":")
    parts[0], parts[part] = "999999999", "elsewhere"
    assert not is_surely_dead(":".join(parts))
    assert not is_surely_alive(":".join(parts))


@pytest.mark.parametrize("owner", ["", "me", "1:2", "x:1:b:n", "-1:1:b:n", ":::", "1:1:1:1:1"])
def test_an_id_of_another_shape_is_left_to_its_lease(owner: str) -> None:
    assert not is_surely_dead(owner)
    assert not is_surely_alive(owner)


async def test_a_living_process_keeps_its_runs_however_late_it_is(tmp_path: Path) -> None:
    path = tmp_path / "rlm.sqlite3"
    async with open_database(path) as database:
        leases = RunLeases(database, owner="another process")
        interrupted: list[list[str]] = []

        def while_it_lives() -> None:
            with running_child(path) as (child, _):
                late = time.time() + 3600
                interrupted.append(anyio.from_thread.run(leases.interrupt_expired, late))
                child.kill()
                child.wait()
                interrupted.append(anyio.from_thread.run(leases.interrupt_expired, late))

        await anyio.to_thread.run_sync(while_it_lives)

    assert interrupted == [[], ["run_child"]]


async def test_runs_of_a_killed_process_are_interrupted_at_once_and_no_others(
    tmp_path: Path,
) -> None:
    path = tmp_path / "rlm.sqlite3"
    async with open_database(path) as database:
        owner = await anyio.to_thread.run_sync(owner_id)
        runs, leases = Runs(database, owner=owner), RunLeases(database, owner=owner)
        await runs.create(NewRun("run_mine", "q"))

        def while_it_lives() -> None:
            with running_child(path) as (child, owner):
                assert owner
                interrupted.append(anyio.from_thread.run(leases.interrupt_dead))
                child.kill()
                child.wait()
                interrupted.append(anyio.from_thread.run(leases.interrupt_dead))

        interrupted: list[list[str]] = []
        await anyio.to_thread.run_sync(while_it_lives)
        assert interrupted == [[], ["run_child"]]
        record = await runs.get("run_child")
        assert (record.status, record.last_event) == ("interrupted", 11)
        assert [event.seq for event in await runs.events("run_child")] == list(range(1, 12))
        await runs.append_event("run_mine", NewEvent("warning"))
