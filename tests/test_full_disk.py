"""A disk without room: a small file system of its own, filled up to where it hurts."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

PLACE_MB = 140

# Runs where a small file system is mounted, which only it sees. `fill` leaves so much of it free.
CHILD = """
import json, os, sys, anyio
from pathlib import Path
from rlm_mcp.errors import RLMError
from rlm_mcp.store.contexts.contexts import Contexts
from rlm_mcp.store.database import open_database
from rlm_mcp.store.runs.records import NewEvent, NewRun, Outcome
from rlm_mcp.store.runs.runs import Runs

place = Path(sys.argv[1])
path = place / "rlm.sqlite3"
told = {}

def fill(megabytes_left):
    ballast = place / "ballast"
    ballast.unlink(missing_ok=True)
    free = os.statvfs(place)
    size = free.f_bavail * free.f_frsize - megabytes_left * 1_000_000
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)

async def tell(name, work):
    try:
        done = await work
    except RLMError as error:
        told[name] = [error.code, error.message, error.fix]
    else:
        told[name] = done

async def add(contexts, megabytes, expected=0):
    async with contexts.open_upload() as upload:
        if expected:
            await upload.expect(expected * 1_000_000)
        for number in range(megabytes * 10):
            await upload.write(f"{number:06} of {megabytes}\\n".encode() * 6500)
        return (await upload.seal()).record.handle

async def log(runs):
    return (await runs.append_event("run_1", NewEvent("warning", "x" * 1000))).seq

async def end(runs):
    return (await runs.finish("run_1", Outcome("completed", "42"), NewEvent("run_finished"))).status

async def main():
    fill(0)
    try:
        async with open_database(path):
            pass
    except RLMError as error:
        told["open"] = [error.code, error.message, error.fix]
    fill(120)
    async with open_database(path) as database:
        contexts, runs = Contexts(database), Runs(database, owner="me")
        handle = await add(contexts, 20)
        await runs.create(NewRun("run_1", "q"))
        await tell("announced", add(contexts, 1, expected=500))
        await tell("grows", add(contexts, 60))
        fill(40)
        await tell("text", add(contexts, 1))
        await tell("event", log(runs))
        fill(12)
        await tell("event late", log(runs))
        await tell("run late", runs.create(NewRun("run_2", "q")))
        await tell("delete", contexts.delete(handle))
        fill(0)
        await database.write(lambda db: None)
        await tell("end late", runs.finish(
            "run_1", Outcome("completed", "4" * 40_000_000), NewEvent("run_finished")
        ))
        fill(40)
        await tell("end", end(runs))
        told["contexts"] = await contexts.count()
        told["check"] = await database.scan(
            lambda db: db.execute("PRAGMA integrity_check").fetchone()[0]
        )
    print(json.dumps(told))

anyio.run(main)
"""


def run_in_small_place(directory: Path) -> dict[str, Any] | None:
    """Give what the child told; None where no file system can be mounted."""
    mount = f"mount -t tmpfs -o size={PLACE_MB}m tmpfs {directory}"
    enter = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if shutil.which("unshare") is None:
        return None
    if subprocess.run([*enter, mount], capture_output=True, check=False).returncode:
        return None
    done = subprocess.run(
        [*enter, f'{mount} && exec "$0" -c "$1" {directory}', sys.executable, CHILD],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


async def test_a_disk_without_room_is_named_nothing_is_lost_and_deleting_still_works(
    tmp_path: Path,
) -> None:
    told = await anyio.to_thread.run_sync(run_in_small_place, tmp_path)
    if told is None:
        pytest.skip("no file system can be mounted here, not even in a namespace")

    path = str(tmp_path / "rlm.sqlite3")
    refused = ("open", "announced", "grows", "text", "event late", "run late", "end late")
    for name in refused:
        code, message, fix = told[name]
        assert code == "store_full", (name, told[name])
        assert path in message, name
        assert "MB there" in fix, name
    assert "505 MB are to be written" in told["announced"][1]
    assert told["event"] == 1
    assert told["delete"] > 16_000_000
    assert told["end"] == "completed"
    assert (told["contexts"], told["check"]) == (0, "ok")
