"""Everything that one caller can do: joins store, engine and sandbox for each of them."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import TaskGroup

from rlm_mcp import __version__
from rlm_mcp.service.contexts.contexts import ContextService, Searches
from rlm_mcp.service.contexts.paths import AllowedPaths
from rlm_mcp.service.contexts.ranked_search import IndexBuilds
from rlm_mcp.service.contexts.tickets import SharedTickets, Ticket
from rlm_mcp.service.contexts.transfers import TransferService
from rlm_mcp.service.measures import Measures, measure
from rlm_mcp.service.runs.abandoned import AbandonedRuns
from rlm_mcp.service.runs.exec import CellService
from rlm_mcp.service.runs.execution import RunServices
from rlm_mcp.service.runs.live import LiveRuns, RunQueue
from rlm_mcp.service.runs.other_servers import OtherServers
from rlm_mcp.service.runs.questions import RunDefaults
from rlm_mcp.service.runs.runs import RunService
from rlm_mcp.service.runs.starting import Starter
from rlm_mcp.service.status import Status, model_status, sandbox_status, store_status
from rlm_mcp.settings import Settings
from rlm_mcp.store.contexts.contexts import Contexts
from rlm_mcp.store.database import Database
from rlm_mcp.store.index.indexes import TextIndexes
from rlm_mcp.store.runs.counts import count_by_status

if TYPE_CHECKING:
    from rlm_mcp.service.executor.opening import MakeExecutor, WorkSite

_SHUTDOWN_SECONDS = 10.0


@dataclass(frozen=True)
class Parts:
    """The parts that the services of all callers share."""

    settings: Settings
    database: Database
    texts: Contexts
    runs: RunServices
    queue: RunQueue
    cell_queue: RunQueue
    search_queue: RunQueue
    others: OtherServers
    abandoned: AbandonedRuns
    allowed: AllowedPaths
    tasks: TaskGroup
    builds: IndexBuilds
    make_executor: MakeExecutor
    site: WorkSite
    tickets: SharedTickets
    is_remote: bool = False


class Service:
    """Everything that one caller can do, while the service is open.

    Callers see each other's contexts and runs as little as if each had a database to itself.
    """

    def __init__(self, parts: Parts, caller: str = "") -> None:
        self._parts = parts
        self._runs = runs = parts.runs.as_caller(caller)
        self._texts = texts = parts.texts.as_caller(caller)
        self.caller = caller
        settings = parts.settings
        defaults = RunDefaults(settings.config(), settings.root_model, settings.sub_model)
        self.contexts = ContextService(
            texts,
            Searches(
                parts.search_queue,
                runs.sandbox,
                TextIndexes(parts.database, caller),
                parts.builds,
            ),
            runs.repls,
            parts.allowed,
            max_file_bytes=parts.settings.max_file_bytes,
        )
        executor = parts.make_executor(runs, texts)
        starter = Starter(runs, parts.queue, self.contexts, texts, executor, defaults)
        self.runs = RunService(
            runs.runs,
            runs.live,
            runs.repls,
            parts.others,
            starter,
            parts.abandoned,
        )
        self.cells = CellService(runs, parts.cell_queue, texts, defaults)
        limit = parts.settings.max_upload_bytes
        self.transfers = TransferService(
            texts, parts.tickets, caller=caller, max_upload_bytes=limit
        )

    def as_caller(self, caller: str) -> Service:
        """Return the service as it is to another caller; the empty name is the machine's own."""
        return self if caller == self.caller else Service(self._parts, caller)

    @property
    def wait_seconds(self) -> float | None:
        """How long calls wait for a run where the operator set it; None: he did not."""
        settings = self._parts.settings
        return settings.wait_seconds if "wait_seconds" in settings.model_fields_set else None

    @property
    def kept_seconds(self) -> float | None:
        """How long a run is kept after it has ended; None for ever."""
        return self._parts.settings.keep_runs_days * 86_400 or None

    async def version(self) -> int:
        """Return a number that changes with every change of the store, whichever server made it."""
        return await self._parts.others.version()

    async def changed(self, version: int) -> None:
        """Wait until the store is no longer as it was at `version`; the caller bounds the wait."""
        await self._parts.others.changed(version)

    async def listed(self) -> Hashable:
        """Return a value that changes when texts or runs are added or deleted."""
        texts, runs = await self._texts.list(limit=1), await self._runs.runs.list(limit=1)
        newest = (*(text.handle for text in texts.items), *(run.run_id for run in runs.items))
        return (newest, await self._texts.count(), await self._runs.runs.count())

    async def redeem(self, secret: str) -> tuple[Service, Ticket]:
        """Use up a permission to send a text; returns the service of the caller who gave it.

        Raises:
            NotFoundError: it was used, has expired, or never was.
            StoreError: that it was used could not be stored.
        """
        ticket = await self._parts.tickets.redeem(secret)
        return self.as_caller(ticket.caller), ticket

    async def interrupt_runs(self) -> None:
        """End every run of this process as `interrupted`, so that waiting callers see the end."""
        await end_runs(self._runs.live)

    async def measures(self) -> Measures:
        """Return what the server does, in numbers; a named caller gets those of its own alone."""
        parts, caller = self._parts, self.caller
        queues = {
            "runs": parts.queue,
            "cells": parts.cell_queue,
            "searches": parts.search_queue,
        }
        runs = await count_by_status(parts.database, caller)
        return measure(runs, self._runs.live, self._runs.repls, queues, caller)

    async def _today(self) -> dict[str, Any]:
        """Return what the caller may use today and has used, where that is limited."""
        allowance = await self._runs.allowances.of(self._runs.runs)
        return {} if allowance is None else {"today": allowance.as_json()}

    async def status(self) -> Status:
        """Say how the server is; asks the model endpoint whether it is there."""
        settings = self._parts.settings
        return Status(
            version=__version__,
            model=await model_status(self._runs.models, settings),
            sandbox=await sandbox_status(self._runs.sandbox),
            store=await store_status(
                self._parts.database,
                self._texts,
                self._runs.runs,
                is_shared=bool(self.caller),
                is_remote=self._parts.is_remote,
            ),
            limits={
                **settings.config().model_dump(exclude={"verbose"}),
                "max_concurrent_calls": settings.max_concurrent_calls,
                "max_concurrent_runs": self._parts.queue.places,
                "wait_seconds": settings.wait_seconds,
                "min_isolation": settings.min_isolation,
                **await self._today(),
            },
            cluster=self._parts.site.state(self.caller, is_remote=self._parts.is_remote),
        )


async def end_runs(live: LiveRuns) -> None:
    """End all runs of this process as `interrupted`, and wait a while until they have ended."""
    with anyio.move_on_after(_SHUTDOWN_SECONDS, shield=True):
        working = list(live)
        for run in working:
            run.end("interrupted")
        for run in working:
            await run.ended.wait()
