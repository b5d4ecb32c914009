"""Work that one process at a time does for all that share the file."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from sqlite3 import Connection

import anyio
import anyio.to_thread

from rlm_mcp.store.database import Database
from rlm_mcp.store.owners import is_surely_dead

_RELEASE_SECONDS = 5.0


class Leases:
    """The leases in a database, as one process takes them.

    Args:
        owner: this process, from `owner_id()`.
        clock: seconds since the epoch.
    """

    def __init__(
        self, database: Database, *, owner: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._owner = owner
        self._clock = clock

    @asynccontextmanager
    async def holding(self, name: str, seconds: float) -> AsyncGenerator[bool]:
        """Hold a lease while the block lasts, and for `seconds` at most; gives whether it was had.

        Another process that holds it and lives is let be; it loses it when its time is over.

        Raises:
            StoreError: the database could not be written.
        """
        holder = await self._database.read(lambda db: _holder(db, name))
        is_gone = holder is not None and await anyio.to_thread.run_sync(is_surely_dead, holder)
        gone = holder if is_gone else None
        is_held = await self._database.write(lambda db: self._take(db, name, seconds, gone))
        try:
            yield is_held
        finally:
            if is_held:
                with anyio.move_on_after(_RELEASE_SECONDS, shield=True):
                    await self._database.write(lambda db: self._release(db, name))

    def _take(self, db: Connection, name: str, seconds: float, gone: str | None) -> bool:
        now = self._clock()
        changed = db.execute(
            "INSERT INTO leases(name, owner, until) VALUES (?, ?, ?) ON CONFLICT(name) DO UPDATE "
            "SET owner = excluded.owner, until = excluded.until "
            "WHERE until < ? OR owner IS ? OR owner = excluded.owner",
            [name, self._owner, now + seconds, now, gone],
        )
        return changed.rowcount > 0

    def _release(self, db: Connection, name: str) -> None:
        db.execute("DELETE FROM leases WHERE name = ? AND owner = ?", [name, self._owner])


def _holder(db: Connection, name: str) -> str | None:
    row = db.execute("SELECT owner FROM leases WHERE name = ?", [name]).fetchone()
    return row[0] if row else None
