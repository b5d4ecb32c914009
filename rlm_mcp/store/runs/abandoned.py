"""Marks of runs whose request was cancelled. Any server may remove one; the owner acts on it."""

from __future__ import annotations

import time
from collections.abc import Callable

from rlm_mcp.store.database import Database


class AbandonedMarks:
    """The marks in a database.

    Args:
        clock: seconds since the epoch.
    """

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    async def set(self, run_id: str) -> float:
        """Mark a running run as one that nobody waits for; return the mark.

        Raises:
            StoreError: the database could not be written.
        """
        mark = self._clock()
        sql = "UPDATE runs SET abandoned_at = ? WHERE run_id = ? AND status = 'running'"
        await self._database.write(lambda db: db.execute(sql, [mark, run_id]))
        return mark

    async def remove(self, run_id: str) -> None:
        """Remove a run's mark: somebody looks at it.

        Raises:
            StoreError: the database could not be written.
        """
        sql = "UPDATE runs SET abandoned_at = NULL WHERE run_id = ?"
        await self._database.write(lambda db: db.execute(sql, [run_id]))

    async def use(self, run_id: str, mark: float) -> bool:
        """Remove this very mark; return whether it was still there.

        Raises:
            StoreError: the database could not be written.
        """
        sql = "UPDATE runs SET abandoned_at = NULL WHERE run_id = ? AND abandoned_at = ?"
        used = await self._database.write(lambda db: db.execute(sql, [run_id, mark]).rowcount)
        return used > 0
