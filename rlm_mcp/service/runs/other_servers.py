"""Runs that other servers on the same data directory work on: followed, and cancelled, from here.

Nothing but the file connects the servers. Each looks at it often enough for a person not to notice,
and only while there is something to look for.
"""

from __future__ import annotations

import logging

import anyio

from rlm_mcp.service.runs.live import LiveRuns
from rlm_mcp.store.database import Database
from rlm_mcp.store.runs.leases import Cancels, RunLeases

LOOK_SECONDS = 0.25

log = logging.getLogger(__name__)


class OtherServers:
    """What this server sees of the others, and they of it.

    Args:
        ends_awaited_runs: runs of servers that are gone end as soon as somebody waits for them
            here, as nobody else sees to that.
    """

    def __init__(
        self,
        database: Database,
        leases: RunLeases,
        cancels: Cancels,
        live: LiveRuns,
        *,
        ends_awaited_runs: bool = False,
    ) -> None:
        self._database = database
        self._leases = leases
        self._cancels = cancels
        self._live = live
        self._ends_awaited_runs = ends_awaited_runs

    async def version(self) -> int:
        """Return a number that changes with every change of the file."""
        return await self._database.version()

    async def changed(self, version: int) -> None:
        """Wait until the file is no longer as it was at `version`; the caller bounds the wait."""
        while True:
            await anyio.sleep(LOOK_SECONDS)
            if await self._database.version() != version:
                return

    async def cancel(self, run_id: str) -> None:
        """Have a run's owner cancel it; where that is gone, end the run here.

        Raises:
            StoreBusyError: another process is writing and does not end.
        """
        await self._cancels.request(run_id)
        await self._end_if_lost(run_id)

    async def awaited(self, run_id: str) -> None:
        """Take note that somebody waits for a run that another process works on, or wants it
        resumed: where that process is gone and nobody sees to its runs, this one ends.

        Raises:
            StoreError: the database failed.
        """
        if self._ends_awaited_runs:
            await self._end_if_lost(run_id)

    async def _end_if_lost(self, run_id: str) -> None:
        lost = await self._leases.lost()
        await self._leases.interrupt([one for one in lost if one.run_id == run_id])

    async def watch_cancels(self) -> None:
        """Cancel the runs of ours that others want cancelled, for as long as the server runs."""
        while True:
            await self._live.until_some()
            try:
                for run_id in await self._cancels.requested():
                    run = self._live.get(run_id)
                    if run is not None:
                        run.end("cancelled")
            except Exception:  # the outermost frame of this task: the server continues without it
                log.exception("reading the cancel requests of other servers failed; will retry")
            await anyio.sleep(LOOK_SECONDS)
