"""Opens the service: puts its parts together, and starts what a server repeats."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import anyio.to_thread

from rlm_mcp.engine.models.named import Models, open_models
from rlm_mcp.errors import SandboxError
from rlm_mcp.sandbox.choice import OwnedSandbox, make_sandbox
from rlm_mcp.sandbox.types import ReplOptions, Sandbox
from rlm_mcp.service.allowances import Allowances
from rlm_mcp.service.catalogue import catalogue_of
from rlm_mcp.service.contexts.files import fixed_part
from rlm_mcp.service.contexts.paths import AllowedPaths
from rlm_mcp.service.contexts.ranked_search import IndexBuilds
from rlm_mcp.service.contexts.tickets import KEY_NAME, SharedTickets
from rlm_mcp.service.executor.cluster import Cluster
from rlm_mcp.service.executor.opening import Purpose, WorkSite, open_crew
from rlm_mcp.service.housekeeping import Housekeeping, keeping_of
from rlm_mcp.service.machine import (
    FEW_DESCRIPTORS,
    WANTED_DESCRIPTORS,
    Descriptors,
    places,
    share_descriptors,
)
from rlm_mcp.service.repls import Repls
from rlm_mcp.service.runs.abandoned import AbandonedRuns
from rlm_mcp.service.runs.execution import RunServices
from rlm_mcp.service.runs.live import LiveRuns, RunQueue
from rlm_mcp.service.runs.other_servers import OtherServers
from rlm_mcp.service.service import Parts, Service, end_runs
from rlm_mcp.settings import Settings
from rlm_mcp.store.contexts.contexts import Contexts
from rlm_mcp.store.contexts.text_cache import FOLDER as TEXTS_FOLDER
from rlm_mcp.store.contexts.text_cache import TextCache
from rlm_mcp.store.database import DATABASE_NAME, PAGE_PREFIX, Database, open_database
from rlm_mcp.store.index.files import FOLDER as SEARCH_FOLDER
from rlm_mcp.store.runs.abandoned import AbandonedMarks
from rlm_mcp.store.runs.leases import Cancels, Leases, RunLeases
from rlm_mcp.store.runs.owners import owner_id
from rlm_mcp.store.runs.replies import Replies, StoredReplies
from rlm_mcp.store.runs.runs import Runs

# Hosts list the tools first, and the sandbox's self-test takes half a second of a core.
_SETTLING_SECONDS = 1.0

log = logging.getLogger(__name__)


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
        others = _others(database, site, Cancels(database, owner=owner), runs.live)
        parts = await _parts(settings, database, runs, others, named, site)
        _start_background(parts, site, Leases(database, owner=owner))
        try:
            yield Service(_reached_from(parts, is_remote=is_remote))
        finally:
            await end_runs(runs.live)
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


def _others(database: Database, site: WorkSite, cancels: Cancels, live: LiveRuns) -> OtherServers:
    ends = site.ends_awaited_runs
    return OtherServers(database, site.leases, cancels, live, ends_awaited_runs=ends)


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
) -> Parts:
    """Put together what the services of all callers share."""
    await site.end_lost_runs()
    most, tasks = await _most_at_once(settings), site.tasks
    queue, cells = RunQueue(most), RunQueue(most)
    marks, grace_seconds = AbandonedMarks(database), settings.cancel_grace_seconds
    cache = TextCache(database, tasks, settings.text_cache_dir, settings.text_cache_mb)
    return Parts(
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


def _reached_from(parts: Parts, *, is_remote: bool) -> Parts:
    allowed = replace(parts.allowed, is_remote=is_remote)
    return replace(parts, allowed=allowed, is_remote=is_remote)


def _start_background(parts: Parts, site: WorkSite, leases: Leases) -> None:
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


async def _log_missing_isolation(sandbox: Sandbox) -> None:
    """Try the walls before the first question, which need not wait then; say what is missing."""
    await anyio.sleep(_SETTLING_SECONDS)
    try:
        isolation = await sandbox.isolation()
    except (OSError, SandboxError) as error:
        log.warning("isolation could not be tried, and is tried again when a REPL opens: %s", error)
        return
    if isolation.missing:
        log.warning("isolation is %r; missing: %s", isolation.level, "; ".join(isolation.missing))


async def _most_at_once(settings: Settings) -> int:
    """How many runs may work at once, and how many cells of callers beside them."""
    most = settings.max_concurrent_runs
    return most or await anyio.to_thread.run_sync(places, ReplOptions().memory_bytes)


def _allowed_paths(settings: Settings, named: Sequence[str]) -> AllowedPaths:
    own = _own_paths(settings)
    if settings.allowed_paths is not None:
        return replace(AllowedPaths.chosen(settings.allowed_paths), own=own)
    usual = AllowedPaths.usual(Path.cwd(), Path.home()).beside(map(fixed_part, named))
    return replace(usual, own=own)


def _own_paths(settings: Settings) -> tuple[str, ...]:
    """Return how the paths begin of what the server keeps: texts of all callers, keys and tokens.

    Other files may lie beside them, where somebody chose a directory that has some.
    """
    data = settings.data_dir.resolve()
    files = (DATABASE_NAME, KEY_NAME, PAGE_PREFIX)
    folders = (data / SEARCH_FOLDER, (settings.text_cache_dir or data / TEXTS_FOLDER).resolve())
    return (*(str(data / name) for name in files), *(f"{one}{os.sep}" for one in folders))
