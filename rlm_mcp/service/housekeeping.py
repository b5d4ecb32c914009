"""Work that a server repeats: it renews leases, drops what is old and shrinks the file."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio

from rlm_mcp.settings import Settings
from rlm_mcp.store.contexts.contexts import Contexts
from rlm_mcp.store.contexts.forgetting import forget_ended
from rlm_mcp.store.contexts.text_cache import TextCache
from rlm_mcp.store.database import Database
from rlm_mcp.store.retention import Keeping, Retention, shrink
from rlm_mcp.store.runs.leases import Leases, RunLeases

_ROUND_SECONDS = 20.0
_RETENTION_SECONDS = 3600.0
# A server that has just started has a client to serve first.
_SETTLING_SECONDS = 60.0
# The lease of a process that is stuck, or on another machine, is taken over after this.
_LEASE_SECONDS = 1800.0

log = logging.getLogger(__name__)


@dataclass
class Housekeeping:
    """Keeps the store in order, for as long as the server runs."""

    database: Database
    run_leases: RunLeases
    leases: Leases
    keeping: Keeping
    cache: TextCache | None = None
    take_up: Callable[[], Awaitable[None]] | None = None
    """Continues the runs of processes that are gone; None: they end as `interrupted`."""

    async def renew_leases(self) -> None:
        """Renew the leases of this process's runs, and see to those of processes that are gone.

        A task of its own: housekeeping can take minutes, and a process that cannot see this one
        live must not take its runs for lost meanwhile.
        """
        while True:
            try:
                await self.run_leases.renew()
                await (self.take_up or self._interrupt)()
            except Exception:  # the outermost frame of this task: the server continues without it
                log.exception("renewing leases failed; will retry")
            await anyio.sleep(_ROUND_SECONDS)

    async def _interrupt(self) -> None:
        await self.run_leases.interrupt_dead()
        await self.run_leases.interrupt_expired()

    async def run_forever(self) -> None:
        """Drop what belongs to deleted texts every twenty seconds, and what is old every hour."""
        next_retention = anyio.current_time() + _SETTLING_SECONDS
        while True:
            try:
                is_due = anyio.current_time() >= next_retention
                await self.tidy(is_due=is_due)
                if is_due:
                    next_retention = anyio.current_time() + _RETENTION_SECONDS
            except Exception:  # the outermost frame of this task: the server continues without it
                log.exception("housekeeping failed; will retry")
            await anyio.sleep(_ROUND_SECONDS)

    async def tidy(self, *, is_due: bool = True) -> None:
        """Drop what belongs to deleted texts and, if it is due, what is old; shrink the file.

        One process at a time does this for all; the others have nothing to do then. But each
        tidies its own directory of text files: another server may have another one.

        Raises:
            StoreError: the database could not be written.
        """
        async with self.leases.holding("housekeeping", _LEASE_SECONDS) as is_ours:
            if is_ours:
                forgotten = await forget_ended(self.database)
                forgotten += await Contexts(self.database).drop_unused()
                if is_due:
                    await Retention(self.database, self.keeping).drop_old()
                if await shrink(self.database) or forgotten or is_due:
                    await self.database.merge_log()
        if self.cache is not None:
            await self.cache.sweep()


def keeping_of(settings: Settings) -> Keeping:
    """Return how long what is stored is kept."""
    days, megabytes = settings.keep_runs_days, settings.keep_runs_mb
    return Keeping(
        run_seconds=days * 86_400 if days else None,
        run_bytes=megabytes * 1_000_000 if megabytes else None,
        upload_seconds=settings.keep_uploads_hours * 3600,
    )
