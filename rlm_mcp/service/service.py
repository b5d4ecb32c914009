"""Use cases: joins store, engine and sandbox; one function for each thing a user can do."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Hashable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from rlm_mcp import __version__
from rlm_mcp.engine.models.named import Models, open_models
from rlm_mcp.sandbox.choice import OwnedSandbox, make_sandbox
from rlm_mcp.sandbox.types import ReplOptions, Sandbox
from rlm_mcp.service.allowances import Allowances
from rlm_mcp.service.catalogue import catalogue_of
from rlm_mcp.service.contexts.contexts import ContextService, Searches
from rlm_mcp.service.contexts.files import fixed_part
from rlm_mcp.service.contexts.paths import AllowedPaths
from rlm_mcp.service.contexts.ranked_search import IndexBuilds
from rlm_mcp.service.contexts.tickets import SharedTickets, Ticket
from rlm_mcp.service.contexts.transfers import TransferService
from rlm_mcp.service.executor.cluster import Cluster
from rlm_mcp.service.executor.opening import MakeExecutor, Purpose, WorkSite, open_crew
from rlm_mcp.service.housekeeping import Housekeeping, keeping_of
from rlm_mcp.service.machine import (
    FEW_DESCRIPTORS,
    WANTED_DESCRIPTORS,
    Descriptors,
    places,
    share_descriptors,
)
from rlm_mcp.service.measures import Measures, measure
from rlm_mcp.service.repls import Repls
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
from rlm_mcp.store.contexts.text_cache import TextCache
from rlm_mcp.store.database import DATABASE_NAME, Database, open_database
from rlm_mcp.store.index.indexes import TextIndexes
from rlm_mcp.store.runs.abandoned import AbandonedMarks
from rlm_mcp.store.runs.counts import count_by_status
from rlm_mcp.store.runs.leases import Cancels, Leases, RunLeases
from rlm_mcp.store.runs.owners import owner_id
from rlm_mcp.store.runs.replies import Replies, StoredReplies
from rlm_mcp.store.runs.runs import Runs

_SHUTDOWN_SECONDS = 10.0
# Hosts list the tools first, and the sandbox's self-test takes half a second of a core.
_SETTLING_SECONDS = 1.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Parts:
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

    def __init__(self, parts: _Parts, caller: str = "") -> None:
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
        await _end_runs(self._runs.live)

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


@asynccontextmanager
async def open_service(
    settings: Settings,
    *,
    named: Sequence[str] = (),
    shared: OwnedSandbox | None = None,
    is_remote: bool = False,
    cluster: Cluster | None = None,
    purpose: Purpose = "work",
) -> AsyncGenerator[Service]:
    """Open the store and the model endpoint; runs that work at the end are interrupted.

    Args:
        settings: what the machine's owner set.
        is_remote: callers may be on other machines.
        named: paths and globs that may be read too where the settings do not say what may be.
        cluster: where workers are; None for the one of the settings, if they name one.
        shared: a sandbox of several services, whose least isolation holds; None for one of its own.
        purpose: what it is opened for; see `WorkSite`.

    Raises:
        StoreError: the database cannot be opened.
    """
    descriptors = await anyio.to_thread.run_sync(_share_descriptors)
    limiter = anyio.CapacityLimiter(min(settings.max_concurrent_calls, descriptors.calls))
    async with (
        open_database(settings.data_dir / DATABASE_NAME, names_path=not is_remote) as database,
        open_models(catalogue_of(settings), limiter=limiter) as models,
        shared or _own_sandbox(settings) as sandbox,
        open_crew(settings, cluster, purpose) as crew,
        anyio.create_task_group() as tasks,
    ):
        owner = await anyio.to_thread.run_sync(owner_id)
        leases = RunLeases(database, owner=owner)
        site = WorkSite(crew, leases, tasks, purpose)
        repls = site.repls(sandbox, descriptors.kept)
        stored = Runs(database, owner=owner)
        runs = _run_services(settings, stored, repls, models, sandbox, database)
        others = OtherServers(database, leases, Cancels(database, owner=owner), runs.live)
        parts = await _parts(settings, database, runs, others, named, site)
        _start_background(parts, site, Leases(database, owner=owner))
        try:
            yield Service(_reached_from(parts, is_remote=is_remote))
        finally:
            await _end_runs(runs.live)
            tasks.cancel_scope.cancel()


def _run_services(
    settings: Settings,
    runs: Runs,
    repls: Repls,
    models: Models,
    sandbox: Sandbox,
    database: Database,
) -> RunServices:
    replies, allowances = StoredReplies(Replies(database)), Allowances(settings)
    return RunServices(runs, sandbox, repls, models, LiveRuns(), replies, allowances)


def _own_sandbox(settings: Settings) -> OwnedSandbox:
    return make_sandbox(
        settings.sandbox, settings.min_isolation, docker_image=settings.docker_image
    )


async def _parts(
    settings: Settings,
    database: Database,
    runs: RunServices,
    others: OtherServers,
    named: Sequence[str],
    site: WorkSite,
) -> _Parts:
    """Put together what the services of all callers share."""
    await site.end_lost_runs()
    most, tasks = await _most_at_once(settings), site.tasks
    queue, cells = RunQueue(most), RunQueue(most)
    marks, grace_seconds = AbandonedMarks(database), settings.cancel_grace_seconds
    cache = TextCache(database, tasks, settings.text_cache_dir, settings.text_cache_mb)
    return _Parts(
        settings,
        database,
        Contexts(database, cache=cache),
        runs,
        queue,
        cells,
        RunQueue(most),
        others,
        AbandonedRuns(marks, runs.live, tasks, grace_seconds),
        await anyio.to_thread.run_sync(_allowed_paths, settings, named),
        tasks,
        IndexBuilds(tasks),
        site.executors(runs.models, queue, cells),
        site,
        SharedTickets(settings.data_dir, Leases(database, owner="uploads")),
    )


def _reached_from(parts: _Parts, *, is_remote: bool) -> _Parts:
    allowed = replace(parts.allowed, is_remote=is_remote)
    return replace(parts, allowed=allowed, is_remote=is_remote)


def _start_background(parts: _Parts, site: WorkSite, leases: Leases) -> None:
    """Start what the server repeats for as long as it is open, and try the walls once."""
    keeping, cache = keeping_of(parts.settings), parts.texts.cache
    take_up = site.taking_up(parts.runs, parts.texts, parts.make_executor, parts.queue)
    house = Housekeeping(parts.database, site.leases, leases, keeping, cache, take_up)
    for task in (house.renew_leases, house.run_forever, parts.runs.repls.evict):
        parts.tasks.start_soon(task)
    parts.tasks.start_soon(parts.others.watch_cancels)
    parts.tasks.start_soon(_log_missing_isolation, parts.runs.sandbox)


def _share_descriptors() -> Descriptors:
    descriptors = share_descriptors()
    if descriptors.limit < FEW_DESCRIPTORS:
        log.warning(
            "only %d files may be open at once: fewer runs, calls and connections take place at a "
            "time; raise the limit with `ulimit -n %d`",
            descriptors.limit,
            WANTED_DESCRIPTORS,
        )
    return descriptors


async def _end_runs(live: LiveRuns) -> None:
    with anyio.move_on_after(_SHUTDOWN_SECONDS, shield=True):
        working = list(live)
        for run in working:
            run.end("interrupted")
        for run in working:
            await run.ended.wait()


async def _log_missing_isolation(sandbox: Sandbox) -> None:
    """Try the walls before the first question, which need not wait then; say what is missing."""
    await anyio.sleep(_SETTLING_SECONDS)
    isolation = await sandbox.isolation()
    if isolation.missing:
        log.warning("isolation is %r; missing: %s", isolation.level, "; ".join(isolation.missing))


async def _most_at_once(settings: Settings) -> int:
    """How many runs may work at once, and how many cells of callers beside them."""
    most = settings.max_concurrent_runs
    return most or await anyio.to_thread.run_sync(places, ReplOptions().memory_bytes)


def _allowed_paths(settings: Settings, named: Sequence[str]) -> AllowedPaths:
    if settings.allowed_paths is not None:
        return AllowedPaths.chosen(settings.allowed_paths)
    return AllowedPaths.usual(Path.cwd(), Path.home()).beside(map(fixed_part, named))
