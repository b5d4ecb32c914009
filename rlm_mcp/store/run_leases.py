"""How long a run is its process's own, and what becomes of those whose process is gone.

A matter of processes, so it concerns the runs of every caller.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from sqlite3 import Connection

import anyio.to_thread

from rlm_mcp.store import run_rows
from rlm_mcp.store.database import Database
from rlm_mcp.store.owners import is_surely_alive, is_surely_dead
from rlm_mcp.store.run_records import Outcome

LEASE_SECONDS = 60.0
_LOST = Outcome(
    "interrupted",
    error={
        "code": "interrupted",
        "message": "The server that worked on this run ended before the run did.",
        "retryable": True,
        "fix": "rlm_run_resume goes on where it was.",
    },
)


class RunLeases:
    """The leases of runs in a database, as one server process sees them.

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

    async def renew(self, seconds: float = LEASE_SECONDS) -> int:
        """Put off the end of the leases of this process's runs; return how many work."""
        until = self._clock() + seconds
        sql = "UPDATE runs SET lease_until = ? WHERE status = 'running' AND owner = ?"
        return await self._database.write(lambda db: db.execute(sql, [until, self._owner]).rowcount)

    async def interrupt_expired(self, now: float | None = None) -> list[str]:
        """Mark as `interrupted` others' runs whose lease is over; return their ids.

        Runs of a process that is known to live are let be, those of this one among them: it was
        only too busy, or asleep, to renew.
        """
        moment = self._clock() if now is None else now
        late = "status = 'running' AND lease_until < ? AND owner != ?"
        sql = f"SELECT DISTINCT owner FROM runs WHERE {late}"  # noqa: S608  # our own words
        found = await self._database.read(
            lambda db: [row[0] for row in db.execute(sql, [moment, self._owner])]
        )
        interrupted: list[str] = []
        for owner in found:
            if not await anyio.to_thread.run_sync(is_surely_alive, owner):
                interrupted += await self._interrupt_late(owner, moment)
        return interrupted

    async def _interrupt_late(self, owner: str, moment: float) -> list[str]:
        sql = "SELECT id FROM runs WHERE status = 'running' AND lease_until < ? AND owner = ?"
        return await self._database.write(lambda db: self._interrupt(db, sql, [moment, owner]))

    async def interrupt_owner(self, owner: str) -> list[str]:
        """Mark as `interrupted` the runs of a process that is known to be gone."""
        sql = "SELECT id FROM runs WHERE status = 'running' AND owner = ?"
        return await self._database.write(lambda db: self._interrupt(db, sql, [owner]))

    async def interrupt_dead(self) -> list[str]:
        """Mark as `interrupted` the runs of every process that is surely gone."""
        sql = "SELECT DISTINCT owner FROM runs WHERE status = 'running'"
        owners = await self._database.read(lambda db: [row[0] for row in db.execute(sql)])
        interrupted: list[str] = []
        for owner in owners:
            if await anyio.to_thread.run_sync(is_surely_dead, owner):
                interrupted += await self.interrupt_owner(owner)
        return interrupted

    def _interrupt(self, db: Connection, sql: str, arguments: Sequence[float | str]) -> list[str]:
        now = self._clock()
        ids = [row[0] for row in db.execute(sql, arguments).fetchall()]
        return [run_rows.interrupt_run(db, row, _LOST, now) for row in ids]
