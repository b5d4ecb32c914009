"""The SQLite file: one writer, several readers, never on the event loop."""

from __future__ import annotations

import math
import sqlite3
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from rlm_mcp.errors import StoreBusyError, StoreError
from rlm_mcp.store.connection import (
    connect,
    identity_of,
    open_writer,
    require_room,
    require_same_file,
    transaction,
    translated,
)
from rlm_mcp.store.write_queue import GroupCommit, GroupedCall, WriteTurns

T = TypeVar("T")

DATABASE_NAME = "rlm.sqlite3"
PAGE_PREFIX = "page-"  # of folders beside it that lead a browser to the page, with its token
# How long a write waits for another process: one whose work would be lost, and one whose caller
# can try again.
BUSY_SECONDS = 30.0
CALLER_PATIENCE_SECONDS = 5.0
_MERGE_SECONDS = 0.2
READERS = 4
SCANNERS = 2


class Database:
    """An open file; made by `open_database`.

    `write` and `read` take a function of a connection and run it in a worker thread,
    inside a transaction. If a caller is cancelled while it waits, its function does not run; once
    the function has started, the cancellation is delivered after it has ended.
    """

    def __init__(
        self, path: Path, writer: sqlite3.Connection, busy_seconds: float, *, names_path: bool
    ) -> None:
        self.path = path
        self.names_path = names_path  # in errors
        self._busy_seconds = busy_seconds
        self._closed = False
        self._identity = identity_of(path)  # the file was opened already
        self._writer = writer
        self._writer_busy_seconds = busy_seconds
        self._writing = threading.Lock()
        self._watcher: sqlite3.Connection | None = None
        self._watching = threading.Lock()
        self._idle_readers: list[sqlite3.Connection] = []
        self._turns = WriteTurns(path if names_path else Path(path.name))
        self._grouped_writes = GroupCommit(self._write_group)
        self._callers_writes = GroupCommit(self._write_callers_group)
        self._grouped_reads = GroupCommit(self._read_group)
        self._write_limiter = anyio.CapacityLimiter(1)
        self._read_limiter = anyio.CapacityLimiter(READERS)
        self._scan_limiter = anyio.CapacityLimiter(SCANNERS)

    async def write(
        self,
        fn: Callable[[sqlite3.Connection], T],
        *,
        patience_seconds: float | None = None,
        leave_bytes: int = 0,
    ) -> T:
        """Run `fn` in a transaction of the one writer; it is rolled back if `fn` raises.

        Args:
            patience_seconds: how long to wait for another process that writes, `BUSY_SECONDS` if
                not given. Writes of this process are waited for as long as they make progress; if
                not given, without limit.
            leave_bytes: how much of the disk must be free.

        Raises:
            StoreBusyError: other writes did not end in time.
            StoreFullError: the disk has not enough room.
            StoreError: the database failed; the error names the path and the next step.
        """
        patience = math.inf if patience_seconds is None else patience_seconds
        busy_seconds = min(self._busy_seconds, patience)
        async with self._turns.one(patience):
            return await anyio.to_thread.run_sync(
                self._write, fn, busy_seconds, leave_bytes, limiter=self._write_limiter
            )

    async def write_grouped(
        self,
        fn: Callable[[sqlite3.Connection], T],
        *,
        leave_bytes: int = 0,
        is_patient: bool = True,
    ) -> T:
        """Run a short `fn` in a transaction that it shares with others which come at the same time.

        What it did is undone if it raises, and lasts once this returns. It may be run twice: if the
        transaction cannot be committed, each `fn` gets one of its own.

        Args:
            leave_bytes: how much of the disk must be free.
            is_patient: else it waits for other writes no longer than `CALLER_PATIENCE_SECONDS`.

        Raises:
            StoreError: as for `write`.
        """
        writes = self._grouped_writes if is_patient else self._callers_writes
        return await writes.run(fn, leave_bytes)

    async def _write_group(self) -> None:
        async with self._turns.one():
            await self._write_all(self._grouped_writes, self._busy_seconds)

    async def _write_callers_group(self) -> None:
        patience = CALLER_PATIENCE_SECONDS
        try:
            async with self._turns.one(patience):
                await self._write_all(self._callers_writes, min(self._busy_seconds, patience))
        except StoreBusyError as error:
            self._callers_writes.fail(error)  # else each would wait as long

    async def _write_all(self, writes: GroupCommit, busy_seconds: float) -> None:
        group = writes.take()
        try:
            with anyio.CancelScope(shield=True):  # others wait for it too
                await anyio.to_thread.run_sync(
                    self._write_together, group, busy_seconds, limiter=self._write_limiter
                )
        finally:
            writes.conclude(group)

    def _write_together(self, group: Sequence[GroupedCall[Any]], busy_seconds: float) -> None:
        if len(group) == 1:  # of one alone nothing else must be kept
            self._write_alone(group[0], busy_seconds)
            return

        def attempt_all(db: sqlite3.Connection) -> None:
            for write in group:
                write.write(db)

        try:
            most = max(write.leave_bytes for write in group)
            self._write(attempt_all, busy_seconds, most)
        except StoreBusyError as error:
            for write in group:
                write.fail(error)
        except StoreError:  # one of them, or the commit, failed: run each alone to find out which
            for write in group:
                self._write_alone(write, busy_seconds)
        else:
            for write in group:
                write.commit()

    def _write_alone(self, write: GroupedCall[Any], busy_seconds: float) -> None:
        try:
            write.succeed(self._write(write.fn, busy_seconds, write.leave_bytes))
        except Exception as error:  # noqa: BLE001  # it is raised where the write was asked for
            write.fail(error)

    async def read(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """Run `fn` over one snapshot of the file; writers and readers do not wait for each other.

        Raises:
            StoreError: as for `write`.
        """
        return await anyio.to_thread.run_sync(self._read, fn, limiter=self._read_limiter)

    async def read_grouped(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """Like `read`, for short functions that many callers run at the same time.

        Raises:
            StoreError: as for `write`.
        """
        return await self._grouped_reads.run(fn)

    async def _read_group(self) -> None:
        group = self._grouped_reads.take()
        try:
            with anyio.CancelScope(shield=True):  # others wait for it too
                await anyio.to_thread.run_sync(
                    self._read_together, group, limiter=self._read_limiter
                )
        finally:
            self._grouped_reads.conclude(group)

    def _read_together(self, group: Sequence[GroupedCall[Any]]) -> None:
        def read_all(db: sqlite3.Connection) -> None:
            for call in group:
                call.read(db)

        try:
            self._read(read_all)
        except StoreError as error:
            for call in group:
                call.fail(error)

    async def scan(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """Like `read`, for functions that may take seconds: other reads do not wait for them.

        Raises:
            StoreError: as for `write`.
        """
        return await anyio.to_thread.run_sync(self._read, fn, limiter=self._scan_limiter)

    async def merge_log(self) -> bool:
        """Merge the write-ahead log into the file and empty it; return whether that was possible.

        Raises:
            StoreError: as for `write`.
        """
        async with self._turns.one():
            return await anyio.to_thread.run_sync(self._merge_log, limiter=self._write_limiter)

    async def version(self) -> int:
        """Return a number that changes with each commit to the file, by any process.

        Raises:
            StoreError: as for `write`.
        """
        return await anyio.to_thread.run_sync(self._version, limiter=self._read_limiter)

    @contextmanager
    def open_reader(self) -> Generator[sqlite3.Connection]:
        """Open a snapshot on a connection of its own, in the calling thread; blocks.

        Raises:
            StoreError: as for `write`.
        """
        with self._translated():
            self._check_open()
            db = connect(self.path, self._busy_seconds, read_only=True)
            try:
                with transaction(db, "BEGIN"):
                    yield db
            finally:
                db.close()

    async def size_bytes(self) -> int:
        """Bytes that the file and its write-ahead log take on disk."""
        return await anyio.to_thread.run_sync(self._size_bytes)

    def _write(
        self, fn: Callable[[sqlite3.Connection], T], busy_seconds: float, leave_bytes: int
    ) -> T:
        # The turn alone would suffice if no asyncio task were ever cancelled without anyio.
        with self._writing, self._translated():
            self._check_open()
            if leave_bytes:
                require_room(self.path, 0, leave_bytes)
            self._wait_for_others(busy_seconds)
            with transaction(self._writer, "BEGIN IMMEDIATE"):
                self._turns.count()
                result = fn(self._writer)
                require_same_file(self.path, self._identity)  # else what is committed is lost
            return result

    def _read(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        with self._translated(), self._reader() as db, transaction(db, "BEGIN"):
            return fn(db)

    def _merge_log(self) -> bool:
        with self._writing, self._translated():
            self._check_open()
            # Writers wait meanwhile, so the wait for a reader of an older state is short.
            self._wait_for_others(_MERGE_SECONDS)
            return self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0

    def _wait_for_others(self, seconds: float) -> None:
        """Set how long the writer waits for other processes."""
        if seconds != self._writer_busy_seconds:
            self._writer.execute(f"PRAGMA busy_timeout={seconds * 1000:.0f}")
            self._writer_busy_seconds = seconds

    def _version(self) -> int:
        # `data_version` counts only commits of other connections, hence a connection of its own.
        with self._watching, self._translated():
            self._check_open()
            if self._watcher is None:
                self._watcher = connect(self.path, self._busy_seconds, read_only=True)
            return self._watcher.execute("PRAGMA data_version").fetchone()[0]

    @contextmanager
    def _reader(self) -> Generator[sqlite3.Connection]:
        self._check_open()
        try:
            db = self._idle_readers.pop()
        except IndexError:
            db = connect(self.path, self._busy_seconds, read_only=True)
        try:
            yield db
        finally:
            if self._closed or len(self._idle_readers) >= READERS:
                db.close()
            else:
                self._idle_readers.append(db)

    def _size_bytes(self) -> int:
        files = (self.path, self.path.with_name(self.path.name + "-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    def _translated(self) -> AbstractContextManager[None]:
        return translated(self.path, names_path=self.names_path)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"The database {str(self.path)!r} is closed.", fix="Open it again.")

    def close(self) -> None:
        """Close every connection, after a write in progress; blocks."""
        with self._writing:
            self._closed = True
            self._writer.close()
        while self._idle_readers:
            self._idle_readers.pop().close()
        with self._watching:
            if self._watcher is not None:
                self._watcher.close()


@asynccontextmanager
async def open_database(
    path: Path, *, busy_seconds: float = BUSY_SECONDS, names_path: bool = True
) -> AsyncGenerator[Database]:
    """Open the file, made with its directory where missing, and bring its schema up to date.

    Args:
        path: the file; `-wal` and `-shm` files come and go beside it.
        busy_seconds: how long to wait for another process that writes.
        names_path: whether errors of the open file name its path; else its name alone.

    Raises:
        StoreError: the place cannot be written, or the file is not a database, not ours, or was
            made by a newer version; such a file is not changed.
    """
    writer = await anyio.to_thread.run_sync(open_writer, path, busy_seconds)
    make = partial(Database, names_path=names_path)
    database = await anyio.to_thread.run_sync(make, path, writer, busy_seconds)
    try:
        yield database
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(database.close)
