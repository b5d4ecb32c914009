"""Requests to cancel a run, left in the file by one process for the one that works on the run."""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Connection

from rlm_mcp.store.database import CALLER_PATIENCE_SECONDS, Database


class Cancels:
    """The requests in a database, as one server process sees them.

    Args:
        owner: this process, from `owner_id()`.
    """

    def __init__(self, database: Database, *, owner: str) -> None:
        self._database = database
        self._owner = owner

    async def request(self, run_id: str) -> None:
        """Ask whoever works on a run to cancel it, whosever it is; one that has ended is let be.

        It lasts once returned: when the owner dies before it sees the request, the run ends as
        `cancelled` all the same.

        Raises:
            StoreBusyError: another process is writing and does not end.
        """
        await self._database.write(
            lambda db: _request(db, run_id), patience_seconds=CALLER_PATIENCE_SECONDS
        )

    async def requested(self) -> Sequence[str]:
        """Return the ids of this process's runs that somebody wants cancelled."""
        return await self._database.read(lambda db: _requested(db, self._owner))


def _request(db: Connection, run_id: str) -> None:
    sql = "UPDATE runs SET cancel_requested = 1 WHERE run_id = ? AND status = 'running'"
    db.execute(sql, [run_id])


def _requested(db: Connection, owner: str) -> list[str]:
    sql = "SELECT run_id FROM runs WHERE cancel_requested = 1 AND owner = ?"
    return [row[0] for row in db.execute(sql, [owner])]
