"""Checks everything that a question needs, and says how to fix what fails."""

from __future__ import annotations

import platform
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import anyio
import anyio.to_thread

from rlm_mcp.engine.models.chat import ChatRequest
from rlm_mcp.engine.models.commands.search import FoundCommand, find_commands
from rlm_mcp.engine.models.named import Models, open_models, provider_of
from rlm_mcp.engine.models.retry import RetryPolicy
from rlm_mcp.errors import (
    ConfigurationError,
    ModelConnectionError,
    ModelError,
    ModelRequestError,
    RLMError,
)
from rlm_mcp.sandbox.choice import make_sandbox
from rlm_mcp.sandbox.types import Isolation
from rlm_mcp.service.catalogue import catalogue_of
from rlm_mcp.service.local_models import (
    LOCAL_SERVERS,
    OfferedModel,
    find_local_model,
    read_served_model,
)
from rlm_mcp.service.machine import is_container
from rlm_mcp.settings import Settings, environment_of_commands
from rlm_mcp.store.connection import free_bytes
from rlm_mcp.store.contexts.text_cache import FOLDER, WORKS_HERE
from rlm_mcp.store.contexts.text_folder import bytes_below
from rlm_mcp.store.database import DATABASE_NAME
from rlm_mcp.store.probe import SQLITE_VERSION, stored_names, try_directory
from rlm_mcp.text import byte_size, duration, nearest

if TYPE_CHECKING:
    from rlm_mcp.service.executor.cluster import Cluster
    from rlm_mcp.service.executor.messages import WorkerStatus

State = Literal["ok", "warning", "failed"]
FindLocalModel = Callable[[], OfferedModel | None]

# What a container lacks is nearly always forbidden by the engine's profiles, not by the kernel.
IN_A_CONTAINER = (
    "This is a container, whose engine forbids some walls: start it with"
    " --security-opt seccomp=packaging/container/seccomp.json and, where the system has AppArmor,"
    " --security-opt apparmor=unconfined."
)
_LITTLE_ROOM_BYTES = 1_000_000_000
_SHOWN_MODELS = 5
_WORKERS_SECONDS = 60.0
# A local server may have to load the model first.
_ONE_ATTEMPT = RetryPolicy(attempts=1, brief_attempts=1, attempt_seconds=60)


@dataclass(frozen=True)
class Check:
    """One check: what was found, and how to fix it (empty where nothing is to be fixed)."""

    name: str
    state: State
    found: str
    fix: str = ""


async def check_all(
    settings: Settings, find_local: FindLocalModel = find_local_model
) -> AsyncIterator[Check]:
    """Run each check in turn; each model is called once, for one token."""
    yield Check("Python", "ok", f"{platform.python_version()} at {sys.executable}")
    yield await anyio.to_thread.run_sync(_check_directory, settings.data_dir)
    yield await _check_database(settings.data_dir / DATABASE_NAME)
    yield await anyio.to_thread.run_sync(_check_text_cache, settings)
    yield await anyio.to_thread.run_sync(_check_paths, settings.allowed_paths)
    yield await _check_isolation(settings)
    for check in await check_workers(settings):
        yield check
    async for check in _check_models(settings, find_local):
        yield check


def _check_directory(directory: Path) -> Check:
    name = "data directory"
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        try_directory(directory)
    except OSError as error:
        fix = "Make it writable, or set RLM_MCP_DATA_DIR to another directory."
        return Check(name, "failed", f"{directory}: {error.strerror}", fix)
    except RLMError as error:
        return Check(name, "failed", error.message, error.fix)
    free = free_bytes(directory)
    found = f"{directory}, {byte_size(free)} free, SQLite {SQLITE_VERSION}"
    if free < _LITTLE_ROOM_BYTES:
        fix = "Free disk space, or set RLM_MCP_DATA_DIR to a directory on a larger disk."
        return Check(name, "warning", found, fix)
    return Check(name, "ok", found)


async def _check_database(path: Path) -> Check:
    if not await anyio.Path(path).exists():
        return Check("database", "ok", "none yet; it is created when needed")
    try:
        await stored_names(path, "runs")
    except RLMError as error:
        return Check("database", "failed", error.message, error.fix)
    size = (await anyio.Path(path).stat()).st_size
    return Check("database", "ok", f"{path.name}, {byte_size(size)}")


def _check_text_cache(settings: Settings) -> Check:
    name, directory = "text cache", settings.text_cache_dir or settings.data_dir / FOLDER
    if not WORKS_HERE:
        return Check(name, "ok", "not used on this system: REPLs copy their text")
    if settings.text_cache_mb == 0:
        return Check(name, "ok", "turned off: RLM_MCP_TEXT_CACHE_MB is 0")
    return Check(name, "ok", f"{directory}, {byte_size(bytes_below(directory))}")


def _check_paths(paths: Sequence[Path] | None) -> Check:
    name = "allowed paths"
    if paths is None:
        return Check(name, "ok", "working directory and home directory, without hidden entries")
    found = ", ".join(map(str, paths)) or "none"
    missing = [str(path) for path in paths if not path.is_dir()]
    if missing:
        fix = f"Correct RLM_MCP_ALLOWED_PATHS: no directory is at {', '.join(missing)}."
        return Check(name, "warning", found, fix)
    return Check(name, "ok", found)


async def _check_isolation(settings: Settings) -> Check:
    name = "isolation"
    sandbox = make_sandbox(
        settings.sandbox, settings.min_isolation, docker_image=settings.docker_image
    )
    in_container = await anyio.to_thread.run_sync(is_container)
    try:
        isolation = await sandbox.require_isolation()
    except RLMError as error:
        fix = f"{IN_A_CONTAINER} {error.fix}" if in_container else error.fix
        return Check(name, "failed", error.message, fix)
    return isolation_check(isolation, in_container=in_container)


def isolation_check(isolation: Isolation, *, in_container: bool) -> Check:
    """Say which walls stand and, in a container, what gives the others."""
    found = f"{isolation.level}: {', '.join(isolation.layers)}"
    if not isolation.missing:
        return Check("isolation", "ok", found)
    fix = f"Missing: {'; '.join(isolation.missing)}."
    if in_container:
        fix = f"{fix} {IN_A_CONTAINER}"
    return Check("isolation", "warning", found, fix)


async def check_workers(settings: Settings, cluster: Cluster | None = None) -> list[Check]:
    """Start a worker on each node of a cluster, by default that of the settings, and end them."""
    from rlm_mcp.service.executor.opening import open_crew  # noqa: PLC0415  # few have a cluster

    try:
        async with open_crew(settings, cluster) as crew:
            if crew is None:
                return []
            missing = await crew.settled(_WORKERS_SECONDS)
            checks = [_worker_check(one.node.address, one.status) for one in crew.workers]
            for address, error in crew.refusals.items():
                checks.append(Check(f"worker {address}", "failed", error.message, error.fix))
            fix = "Read Ray's logs on that node, in /tmp/ray/session_latest/logs."
            found = f"it did not start in {_WORKERS_SECONDS:.0f} s"
            return checks + [Check(f"worker {one}", "failed", found, fix) for one in missing]
    except RLMError as error:
        return [Check("workers", "failed", error.message, error.fix)]


def _worker_check(address: str, status: WorkerStatus) -> Check:
    walls = isolation_check(status.isolation, in_container=False)
    found = f"rlm-mcp {status.version}, Python {status.python}, {status.places} runs at once"
    return Check(f"worker {address}", walls.state, f"{found}, {walls.found}", walls.fix)


async def _check_models(settings: Settings, find_local: FindLocalModel) -> AsyncIterator[Check]:
    commands = await find_commands(environment_of_commands())
    if commands:
        yield _check_commands(commands, settings)
    if not settings.root_model:
        local = await anyio.to_thread.run_sync(find_local)
        fix = _how_to_name(local, commands)
        yield Check("root model", "failed", "RLM_MCP_ROOT_MODEL is not set", fix)
        return
    try:
        catalogue = catalogue_of(settings)
        async with open_models(
            catalogue, limiter=anyio.CapacityLimiter(1), policy=_ONE_ATTEMPT
        ) as models:
            root = await _check_model("root model", settings.root_model, models)
            yield root
            if settings.sub_model and settings.sub_model != settings.root_model:
                yield await _check_model("sub model", settings.sub_model, models)
            else:
                yield Check("sub model", root.state, "the root model")
    except ConfigurationError as error:
        yield Check("models", "failed", error.message, error.fix)


def _check_commands(commands: Sequence[FoundCommand], settings: Settings) -> Check:
    found = ", ".join(map(str, commands))
    ready = next((one.name for one in commands if one.is_logged_in is not False), None)
    if settings.root_model or ready is None:
        return Check("commands", "ok", found)
    return Check("commands", "ok", f"{found}; RLM_MCP_ROOT_MODEL=command:{ready} needs no key")


def _how_to_name(local: OfferedModel | None, commands: Sequence[FoundCommand]) -> str:
    if local is not None:
        return (
            f"{local.server} runs here: set RLM_MCP_BASE_URL={local.base_url} and "
            f"RLM_MCP_ROOT_MODEL={local.name}."
        )
    ready = next((one.name for one in commands if one.is_logged_in), None)
    if ready is not None:
        return f"{ready} is logged in here: set RLM_MCP_ROOT_MODEL=command:{ready}."
    return (
        "Set it, with RLM_MCP_API_KEY or, for a server of your own, with RLM_MCP_BASE_URL; or "
        "start Ollama."
    )


async def _check_model(part: str, name: str, models: Models) -> Check:
    if models.catalogue.is_command(name):
        return await _check_command(part, name, models)
    request = ChatRequest([{"role": "user", "content": "Say OK."}], max_tokens=1)
    began = anyio.current_time()
    try:
        await models.model(name).complete(request)
    except ModelConnectionError as error:
        hint = _is_it_running(models.catalogue.base_url(name))
        return Check(part, "failed", error.message, f"{error.fix}{hint}")
    except ModelRequestError as error:
        return Check(part, "failed", error.message, await _other_names(name, models) or error.fix)
    except RLMError as error:
        return Check(part, "failed", error.message, error.fix)
    seconds = anyio.current_time() - began
    answered = Check(part, "ok", f"{name} answered in {duration(seconds)}")
    return await _with_window(answered, name, models)


async def _with_window(check: Check, name: str, models: Models) -> Check:
    """Add what a server of one's own says of the model, which has just been loaded."""
    catalogue = models.catalogue
    served = await read_served_model(
        provider_of(name, catalogue), catalogue.provider_name(name), _ONE_ATTEMPT.attempt_seconds
    )
    if served is None:
        return check
    state = "warning" if served.how_to_widen else "ok"
    return Check(check.name, state, f"{check.found}; {served.found}", served.how_to_widen)


async def _check_command(part: str, name: str, models: Models) -> Check:
    """Look for the program; it is not asked, since a reply may cost."""
    try:
        await models.check(name)
    except ModelError as error:
        return Check(part, "failed", error.message, error.fix)
    return Check(part, "ok", f"{name}: the program is installed; it was not asked")


def _is_it_running(base_url: str) -> str:
    place = urlsplit(base_url)
    if place.hostname not in {"127.0.0.1", "localhost", "::1"}:
        return ""
    server = next((name for name, port in LOCAL_SERVERS if port == place.port), "the model server")
    return f" Is {server} running?"


async def _other_names(wanted: str, models: Models) -> str:
    """Suggest models of the endpoint whose names are near."""
    try:
        names = await models.check(wanted)
    except ModelError:
        return ""
    if not names or wanted in names:
        return ""
    near = nearest(wanted, names, _SHOWN_MODELS, cutoff=0.5)
    some = near or names[:_SHOWN_MODELS]
    shown = ", ".join(some)
    more = f" and {len(names) - len(some)} more" * (len(names) > len(some))
    return f"The endpoint has no {wanted!r}; it has {shown}{more}."
