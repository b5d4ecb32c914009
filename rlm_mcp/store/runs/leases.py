"""Leases: which process owns a run for how long, and how runs of dead processes end.

Leases belong to processes, so they cover the runs of every caller.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from sqlite3 import Connection

import anyio
import anyio.to_thread

from rlm_mcp.store.database import CALLER_PATIENCE_SECONDS, Database
from rlm_mcp.store.runs import rows
from rlm_mcp.store.runs.attempts import LostRun, lost_runs, move_run, take_over_run
from rlm_mcp.store.runs.owners import is_surely_alive, is_surely_dead
from rlm_mcp.store.runs.records import LEASE_SECONDS, Claim, NewEvent, Outcome
from rlm_mcp.values import stored_error

_LOST = Outcome(
    "interrupted",
    error=stored_error(
        "interrupted",
        "The server that worked on this run ended before the run did.",
        retryable=True,
        fix="rlm_run_resume continues it where it stopped.",
    ),
)


class _AsProcess:
    """What a database holds, as one server process sees it.

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


class RunLeases(_AsProcess):
    """The leases of runs in a database."""

    async def renew(self, seconds: float = LEASE_SECONDS) -> int:
        """Renew the leases of this process's running runs; return how many there are."""
        until = self._clock() + seconds
        sql = "UPDATE runs SET lease_until = ? WHERE status = 'running' AND owner = ?"
        return await self._database.write(lambda db: db.execute(sql, [until, self._owner]).rowcount)

    async def take_over(
        self, run_id: str, attempt: int, event: NewEvent, seconds: float = LEASE_SECONDS
    ) -> int | None:
        """Take over a run whose worker is lost, as its next attempt; see `take_over_run`."""

        def take(db: Connection) -> int | None:
            now = self._clock()
            return take_over_run(db, run_id, attempt, event, Claim(self._owner, now, now + seconds))

        return await self._database.write(take)

    async def lost(self) -> list[LostRun]:
        """Find the running runs of processes that are gone, oldest first.

        A process is gone if it is known to be dead, or if its lease is over and it is not known to
        live.
        """
        now = self._clock()
        sql = "SELECT owner, min(lease_until) FROM runs WHERE status = 'running' GROUP BY owner"
        owners: list[tuple[str, float]] = await self._database.read(
            lambda db: db.execute(sql).fetchall()
        )
        dead, late = await anyio.to_thread.run_sync(_gone, owners, now)

        def is_lost(owner: str, lease_until: float) -> bool:
            return owner in dead or (owner in late and lease_until < now)

        if not dead and not late:
            return []
        return await self._database.read(lambda db: lost_runs(db, self._owner, is_lost))

    async def move(
        self, lost: LostRun, event: NewEvent, seconds: float = LEASE_SECONDS
    ) -> int | None:
        """Take over a run whose process is gone; see `move_run`."""

        def take(db: Connection) -> int | None:
            now = self._clock()
            return move_run(db, lost, event, Claim(self._owner, now, now + seconds))

        return await self._database.write(take)

    async def interrupt(self, lost: Sequence[LostRun]) -> list[str]:
        """End runs whose process is gone as `interrupted`, if they are as they were found."""
        if not lost:
            return []
        sql = "SELECT id FROM runs WHERE run_id = ? AND status = 'running' AND owner = ?"

        def interrupt(db: Connection) -> list[str]:
            return [
                ended for one in lost for ended in self._interrupt(db, sql, [one.run_id, one.owner])
            ]

        return await self._database.write(interrupt)

    async def interrupt_expired(self, now: float | None = None) -> list[str]:
        """Mark runs of other processes whose lease is over as `interrupted`; return their ids.

        Runs of a process that is known to be alive stay, this one's included: it was only too busy,
        or asleep, to renew.
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
        """Mark the runs of a process that is known to be dead as `interrupted`."""
        sql = "SELECT id FROM runs WHERE status = 'running' AND owner = ?"
        return await self._database.write(lambda db: self._interrupt(db, sql, [owner]))

    async def interrupt_dead(self) -> list[str]:
        """Mark the runs of every process that is surely dead as `interrupted`."""
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
        return [rows.interrupt_run(db, row, _LOST, now) for row in ids]


def _gone(owners: Sequence[tuple[str, float]], now: float) -> tuple[set[str], set[str]]:
    """Return who of the owners is surely dead, and who is late and not surely alive; blocks."""
    dead = {owner for owner, _ in owners if is_surely_dead(owner)}
    late = {owner for owner, until in owners if until < now and not is_surely_alive(owner)}
    return dead, late


_RELEASE_SECONDS = 5.0


class Leases(_AsProcess):
    """The named leases in a database."""

    @asynccontextmanager
    async def holding(self, name: str, seconds: float) -> AsyncGenerator[bool]:
        """Hold a lease during the block, for `seconds` at most; yields whether it was acquired.

        A lease held by a living process is not taken away before its time is over.

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

    async def take_once(self, name: str, until: float) -> bool:
        """Take a lease that nobody gives back; return False where somebody has taken it before.

        It is forgotten once `until` is over, in seconds since the epoch. The first word of its name
        says what it is for.

        Raises:
            StoreError: the database could not be written.
        """

        def take(db: Connection) -> bool:
            kind = f"{name.partition(' ')[0]} *"
            db.execute("DELETE FROM leases WHERE name GLOB ? AND until < ?", [kind, self._clock()])
            sql = "INSERT OR IGNORE INTO leases(name, owner, until) VALUES (?, ?, ?)"
            return db.execute(sql, [name, self._owner, until]).rowcount > 0

        return await self._database.write(take)

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


class Cancels(_AsProcess):
    """The requests in a database to cancel runs."""

    async def request(self, run_id: str) -> None:
        """Ask the owner of a run to cancel it, whichever process that is; one that has ended stays.

        The request lasts once this returns: if the owner dies before it sees the request, the run
        still ends as `cancelled`.

        Raises:
            StoreBusyError: another process is writing and does not end.
        """
        await self._database.write(
            lambda db: _request(db, run_id), patience_seconds=CALLER_PATIENCE_SECONDS
        )

    async def requested(self) -> Sequence[str]:
        """Return the ids of this process's runs with a cancel request."""
        return await self._database.read(lambda db: _requested(db, self._owner))


def _request(db: Connection, run_id: str) -> None:
    sql = "UPDATE runs SET cancel_requested = 1 WHERE run_id = ? AND status = 'running'"
    db.execute(sql, [run_id])


def _requested(db: Connection, owner: str) -> list[str]:
    sql = "SELECT run_id FROM runs WHERE cancel_requested = 1 AND owner = ?"
    return [row[0] for row in db.execute(sql, [owner])]
