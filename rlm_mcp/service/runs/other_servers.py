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
    """What this server sees of the others, and they of it."""

    def __init__(
        self, database: Database, leases: RunLeases, cancels: Cancels, live: LiveRuns
    ) -> None:
        self._database = database
        self._leases = leases
        self._cancels = cancels
        self._live = live

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
        await self._leases.interrupt(
            [one for one in await self._leases.lost() if one.run_id == run_id]
        )

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
