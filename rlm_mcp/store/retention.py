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
# In place of a caller's name, and none that a caller can have.
_ANYONE, _NOBODY = "\0anyone", "\0nobody"
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
            # Who keeps runs for a million days, or infinitely many, keeps all since 1970.
            dropped += await self._drop_before(max(0.0, before))
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
        """Drop the oldest of the caller who has most, again and again."""
        dropped = 0
        if await self._database.read(log_bytes) <= most_bytes:
            return 0
        sizes = await self._database.scan(bytes_by_caller)
        while sizes and await self._database.read(log_bytes) > most_bytes:
            caller = max(sizes, key=lambda name: sizes[name])
            step = await self._drop_oldest(caller)
            if step is None:  # the rest of that caller's is running, or new
                del sizes[caller]
            else:
                dropped += step.runs
                sizes[caller] -= step.bytes
        return dropped

    async def _drop_oldest(self, caller: str) -> _Dropped | None:
        """Drop a caller's oldest run or some of the oldest replies; None if there is none."""
        run = await self._oldest_run(self._clock() - GRACE_SECONDS, caller)
        reply_at = await self._database.read(lambda db: _oldest_reply(db, caller))
        if reply_at is not None and (run is None or reply_at <= run.ended_at):
            return await self._database.write(lambda db: _drop_oldest_replies(db, caller))
        if run is None:
            return None
        size = await self._database.read(lambda db: _run_bytes(db, run.row))
        await self._drop_run(run.row)
        return _Dropped(1, size)

    async def _oldest_run(self, before: float, caller: str = _ANYONE) -> _EndedRun | None:
        return await self._database.read(lambda db: _oldest_run(db, before, caller))

    async def _drop_run(self, row: int) -> None:
        while not await self._database.write(lambda db: _drop_some(db, row)):
            pass


@dataclass(frozen=True)
class _EndedRun:
    """A run's row, and when it ended, in seconds since the epoch."""

    row: int
    ended_at: float


@dataclass(frozen=True)
class _Dropped:
    """What one step dropped."""

    runs: int
    bytes: int


def bytes_by_caller(db: Connection) -> dict[str, int]:
    """Return what the runs and replies of each caller take; of one caller alone it is not counted.

    Replies whose run is gone belong to nobody.
    """
    callers = [row[0] for row in db.execute("SELECT DISTINCT caller FROM runs")]
    if len(callers) < 2:
        return {_ANYONE: 0}
    rows = db.execute(
        "SELECT caller, sum(bytes) FROM (SELECT runs.caller AS caller, "
        "sum(length(CAST(detail AS BLOB)) + length(CAST(events.preview AS BLOB))) AS bytes "
        "FROM runs JOIN events ON events.run = runs.id GROUP BY runs.caller "
        "UNION ALL SELECT runs.caller, sum(length(CAST(coalesce(value, '') AS BLOB))) "
        "FROM runs JOIN variables ON variables.run = runs.id GROUP BY runs.caller "
        "UNION ALL SELECT coalesce(runs.caller, ?), sum(length(CAST(reply AS BLOB))) "
        "FROM replies LEFT JOIN runs ON runs.run_id = replies.run GROUP BY 1) GROUP BY caller",
        [_NOBODY],
    )
    return {**dict.fromkeys(callers, 0), **dict(rows.fetchall())}


def _run_bytes(db: Connection, row: int) -> int:
    return db.execute(
        "SELECT (SELECT coalesce(sum(length(CAST(detail AS BLOB))), 0) FROM events WHERE run = ?) "
        "+ (SELECT coalesce(sum(length(CAST(value AS BLOB))), 0) FROM variables WHERE run = ?)",
        [row, row],
    ).fetchone()[0]


def _replies_of(caller: str) -> tuple[str, list[str]]:
    """Return a condition for the replies that a caller's runs paid for, and its values."""
    if caller == _ANYONE:
        return "1", []
    if caller == _NOBODY:
        return "run NOT IN (SELECT run_id FROM runs)", []
    return "run IN (SELECT run_id FROM runs WHERE caller = ?)", [caller]


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


def _oldest_run(db: Connection, before: float, caller: str) -> _EndedRun | None:
    row = db.execute(
        "SELECT id, finished_at FROM runs WHERE finished_at < ? "
        "AND status != 'running' AND ? IN (caller, ?) ORDER BY finished_at LIMIT 1",
        [iso(before), caller, _ANYONE],
    ).fetchone()
    return _EndedRun(row[0], datetime.fromisoformat(row[1]).timestamp()) if row else None


def _oldest_reply(db: Connection, caller: str) -> float | None:
    of_caller, values = _replies_of(caller)
    sql = f"SELECT min(used_at) FROM replies WHERE {of_caller}"  # noqa: S608  # our own words
    return db.execute(sql, values).fetchone()[0]


def _drop_oldest_replies(db: Connection, caller: str) -> _Dropped:
    of_caller, values = _replies_of(caller)
    rows = db.execute(
        f"DELETE FROM replies WHERE id IN (SELECT id FROM replies WHERE {of_caller} "  # noqa: S608  # our own words
        "ORDER BY used_at LIMIT ?) RETURNING length(CAST(reply AS BLOB))",
        [*values, _REPLIES_A_STEP],
    )
    return _Dropped(0, sum(row[0] for row in rows))


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


def _drop_replies(db: Connection, before: float) -> bool:
    """Delete some of the oldest replies; return whether the step was full."""
    dropped = db.execute(
        "DELETE FROM replies WHERE id IN (SELECT id FROM replies "
        "WHERE used_at < ? ORDER BY used_at LIMIT ?)",
        [before, _REPLIES_A_STEP],
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
