"""What the store costs over plain SQLite, in one run: `python bench/store.py [MiB]`.

Plain SQLite writes and reads the same blobs, one transaction each, with the same pragmas.
"""

from __future__ import annotations

import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import anyio
import anyio.to_thread

from rlm_mcp.store.connection import PAGE_BYTES
from rlm_mcp.store.contexts.chunking import CHUNK_BYTES
from rlm_mcp.store.contexts.contexts import Contexts
from rlm_mcp.store.database import open_database
from rlm_mcp.store.runs.records import NewEvent, NewRun
from rlm_mcp.store.runs.runs import Runs

EVENTS = 500
NETWORK_PIECE = 64 << 10


def make_blob() -> bytes:
    dice = random.Random(0)
    words = ["".join(dice.choices("abcdefghijklmnopqrstuvwxyzé", k=6)) for _ in range(5000)]
    text = "\n".join(" ".join(dice.choices(words, k=12)) for _ in range(20_000))
    return text.encode()[:CHUNK_BYTES].decode("utf-8", "ignore").encode()


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def write_plain(path: Path, blob: bytes, count: int) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for pragma in (f"page_size={PAGE_BYTES}", "auto_vacuum=INCREMENTAL", "journal_mode=WAL"):
            db.execute(f"PRAGMA {pragma}")
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute(f"PRAGMA wal_autocheckpoint={(16 << 20) // PAGE_BYTES}")
        db.execute("CREATE TABLE blobs (id INTEGER PRIMARY KEY, data BLOB)")
        for _ in range(count):
            db.execute("BEGIN IMMEDIATE")
            db.execute("INSERT INTO blobs(data) VALUES (?)", [blob])
            db.execute("COMMIT")


def read_plain(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return sum(len(data) for (data,) in db.execute("SELECT data FROM blobs ORDER BY id"))


async def upload(contexts: Contexts, blob: bytes, count: int) -> tuple[str, float]:
    start = time.perf_counter()
    async with contexts.open_upload("bench") as one:
        for _ in range(count):
            for at in range(0, len(blob), NETWORK_PIECE):
                await one.write(blob[at : at + NETWORK_PIECE])
        written = time.perf_counter() - start
        return (await one.seal()).record.handle, written


async def append_events(runs: Runs) -> float:
    await runs.create(NewRun("run_bench", "q"))
    start = time.perf_counter()
    for _ in range(EVENTS):
        await runs.append_event("run_bench", NewEvent("code_executed", detail={"o": "x" * 2000}))
    return time.perf_counter() - start


def report(name: str, megabytes: float, seconds: float, plain: float) -> None:
    print(f"{name:22} {megabytes / seconds:8.0f} MB/s  {plain / seconds:5.2f} of plain SQLite")


async def measure(directory: Path, count: int) -> None:
    blob = make_blob()
    megabytes = len(blob) * count / 1e6
    plain = directory / "plain.sqlite3"
    written = await anyio.to_thread.run_sync(lambda: timed(lambda: write_plain(plain, blob, count)))
    async with open_database(directory / "rlm.sqlite3") as database:
        contexts = Contexts(database)
        start = time.perf_counter()
        handle, before_seal = await upload(contexts, blob, count)
        whole = time.perf_counter() - start
        source = await contexts.source([handle])
        await anyio.to_thread.run_sync(lambda: sum(map(len, source.chunks())))
        await anyio.to_thread.run_sync(read_plain, plain)
        scanned = await anyio.to_thread.run_sync(
            lambda: timed(lambda: sum(map(len, source.chunks())))
        )
        read = await anyio.to_thread.run_sync(lambda: timed(lambda: read_plain(plain)))
        events = await append_events(Runs(database, owner="bench"))
        await database.merge_log()  # what was written before is not merged at the delete's expense
        start = time.perf_counter()
        await contexts.delete(handle)
        deleted = time.perf_counter() - start
    report("plain write", megabytes, written, written)
    report("upload before its seal", megabytes, before_seal, written)
    report("upload with its seal", megabytes, whole, written)
    report("plain read", megabytes, read, read)
    report("source().chunks()", megabytes, scanned, read)
    print(f"{'delete':22} {megabytes / deleted:8.0f} MB/s")
    print(f"{'events, one by one':22} {EVENTS / events:8.0f} /s")


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory() as directory:
        anyio.run(measure, Path(directory), count)


if __name__ == "__main__":
    main()
