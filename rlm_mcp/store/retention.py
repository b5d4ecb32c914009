"""Deletes what is old or too much, in short steps between which other writes take place."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from sqlite3 import Connection

from rlm_mcp.store.connection import SPREAD
from rlm_mcp.store.contexts.contexts import Contexts
from rlm_mcp.store.database import Database
from rlm_mcp.store.runs.rows import iso

# A caller has at least this long to read an answer, whatever the limits.
GRACE_SECONDS = 3600.0
_EVENTS_A_STEP = 100
_REPLIES_A_STEP = 200
# Bytes that each document takes in the file besides its text.
_DOCUMENT_BYTES = 100


@dataclass(frozen=True)
class Keeping:
    """How long things are kept; None means for ever.

    Args:
        run_seconds: runs that have ended, with their logs and variables, and replies of sub-calls.
        run_bytes: how many bytes these may take in the file; the oldest are deleted first.
        upload_seconds: uploads that are not continued.
    """

    run_seconds: float | None = None
    run_bytes: int | None = None
    upload_seconds: float = 86_400.0


class Retention:
    """Deletes what is no longer to be kept, of every caller.

    Running runs stay, and those that ended less than an hour ago. Contexts stay until they expire,
    if they have an expiry.

    Args:
        clock: seconds since the epoch.
    """

    def __init__(
        self, database: Database, keeping: Keeping, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._keeping = keeping
        self._clock = clock

    async def drop_old(self) -> int:
        """Delete what is too old, then the oldest of what is too much; return how many runs.

        Raises:
            StoreError: the database could not be written; the rest is deleted the next time.
        """
        await self._drop_contexts()
        await Contexts(self._database).sweep(idle_seconds=self._keeping.upload_seconds)
        dropped = 0
        if self._keeping.run_seconds is not None:
            before = self._clock() - max(self._keeping.run_seconds, GRACE_SECONDS)
            dropped += await self._drop_before(before)
        if self._keeping.run_bytes is not None:
            dropped += await self._drop_beyond(self._keeping.run_bytes)
        return dropped

    async def _drop_contexts(self) -> None:
        now = self._clock()
        sql = "SELECT caller, handle FROM contexts WHERE expires_at < ?"
        over = await self._database.read(lambda db: db.execute(sql, [now]).fetchall())
        for caller, handle in over:
            await Contexts(self._database, caller=caller).delete(handle)

    async def _drop_before(self, before: float) -> int:
        dropped = 0
        while (run := await self._oldest_run(before)) is not None:
            await self._drop_run(run.row)
            dropped += 1
        while await self._database.write(lambda db: _drop_replies(db, before)):
            pass
        return dropped

    async def _drop_beyond(self, most_bytes: int) -> int:
        dropped = 0
        while await self._database.read(log_bytes) > most_bytes:
            run = await self._oldest_run(self._clock() - GRACE_SECONDS)
            reply_at = await self._database.read(_oldest_reply)
            if reply_at is not None and (run is None or reply_at <= run.ended_at):
                await self._database.write(lambda db: _drop_replies(db, None))
            elif run is not None:
                await self._drop_run(run.row)
                dropped += 1
            else:
                break  # the rest is running, or new
        return dropped

    async def _oldest_run(self, before: float) -> _EndedRun | None:
        return await self._database.read(lambda db: _oldest_run(db, before))

    async def _drop_run(self, row: int) -> None:
        while not await self._database.write(lambda db: _drop_some(db, row)):
            pass


@dataclass(frozen=True)
class _EndedRun:
    """A run's row, and when it ended, in seconds since the epoch."""

    row: int
    ended_at: float


def log_bytes(db: Connection) -> int:
    """Estimate what runs and replies take in the file: all but the texts and the free pages."""
    pages, free, page_bytes = (
        db.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    size, documents = db.execute(
        "SELECT coalesce(sum(bytes), 0), coalesce(sum(documents), 0) FROM "
        "(SELECT bytes, documents FROM contexts GROUP BY text_id)"
    ).fetchone()
    open_bytes = db.execute(
        "SELECT coalesce(sum(length(data)), 0) FROM chunks "
        "WHERE text_id IN (SELECT text_id FROM uploads)"
    ).fetchone()[0]
    texts = (size + open_bytes) * SPREAD + documents * _DOCUMENT_BYTES
    return max(0, int((pages - free) * page_bytes - texts))


def _oldest_run(db: Connection, before: float) -> _EndedRun | None:
    row = db.execute(
        "SELECT id, finished_at FROM runs WHERE finished_at < ? "
        "AND status != 'running' ORDER BY finished_at LIMIT 1",
        [iso(before)],
    ).fetchone()
    return _EndedRun(row[0], datetime.fromisoformat(row[1]).timestamp()) if row else None


def _oldest_reply(db: Connection) -> float | None:
    return db.execute("SELECT min(used_at) FROM replies").fetchone()[0]


def _drop_some(db: Connection, row: int) -> bool:
    """Take one step; return whether it was the last. A run that was resumed stays."""
    status = db.execute("SELECT status FROM runs WHERE id = ?", [row]).fetchone()
    if status is None or status[0] == "running":
        return True
    events = db.execute(
        "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE run = ? LIMIT ?)",
        [row, _EVENTS_A_STEP],
    ).rowcount
    if events == _EVENTS_A_STEP:
        return False
    db.execute("DELETE FROM runs WHERE id = ?", [row])  # its variables go with it
    return True


def _drop_replies(db: Connection, before: float | None) -> bool:
    """Delete some of the oldest replies; return whether the step was full."""
    dropped = db.execute(
        "DELETE FROM replies WHERE id IN (SELECT id FROM replies "
        "WHERE ? IS NULL OR used_at < ? ORDER BY used_at LIMIT ?)",
        [before, before, _REPLIES_A_STEP],
    )
    return dropped.rowcount == _REPLIES_A_STEP


# Pages are moved from the end of the file into the gaps; a step must be short.
_PAGES_A_STEP = 256


async def shrink(database: Database) -> int:
    """Return free pages to the disk, in steps; return how many.

    Deleted data is then gone from the file; it stays in the write-ahead log until that is merged.

    Raises:
        StoreError: the database could not be written; the rest is returned the next time.
    """
    before = left = await database.read(_free_pages)
    while left:
        rest = await database.write(_cut_some)
        if rest >= left:
            break  # the file was made without auto_vacuum, or others free pages as fast
        left = rest
    return before - left


def _free_pages(db: Connection) -> int:
    return db.execute("PRAGMA freelist_count").fetchone()[0]


def _cut_some(db: Connection) -> int:
    db.execute(f"PRAGMA incremental_vacuum({_PAGES_A_STEP})").fetchall()
    return _free_pages(db)
