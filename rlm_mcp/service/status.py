"""How the server is: its model, its sandbox, its store, its limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rlm_mcp.engine.models.metering import Ledger, Price
from rlm_mcp.engine.models.named import MILLION, Models
from rlm_mcp.errors import ModelError
from rlm_mcp.sandbox.types import Sandbox
from rlm_mcp.service.executor.cluster import ClusterState
from rlm_mcp.settings import Settings
from rlm_mcp.store.contexts.contexts import Contexts
from rlm_mcp.store.database import Database
from rlm_mcp.store.runs.runs import Runs
from rlm_mcp.text import without_credentials


@dataclass(frozen=True)
class AllowedModel:
    """A model that a caller may choose: its window, and its prices in USD per million tokens.

    What is not known is None; the cost of one with `tells_cost` is what its provider says.
    """

    name: str
    context_tokens: int | None
    input_price: float | None
    cached_input_price: float | None
    output_price: float | None
    tells_cost: bool


@dataclass(frozen=True)
class ModelStatus:
    """The endpoint as it answers now; `reachable` is None while no model is configured.

    `models` are those that a caller may choose by name, as JSON-like `AllowedModel`s.
    """

    configured: bool
    base_url: str
    root_model: str | None
    sub_model: str | None
    reachable: bool | None
    error: str | None
    models: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class SandboxStatus:
    """What stands between model-written code and the machine."""

    isolation: str
    layers: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True)
class TextCacheStatus:
    """The large texts that lie in files, so that REPLs map them; of one caller of several, theirs.

    `path` is None for callers on other machines.
    """

    path: str | None
    bytes: int


@dataclass(frozen=True)
class StoreStatus:
    """The database file, and what the caller has in it.

    `path` is None for callers on other machines. `bytes` is the size of the file on disk; for one
    caller of several it is the size of that caller's texts, since the size of the file would reveal
    something of the others.
    """

    path: str | None
    contexts: int
    runs: int
    bytes: int
    text_cache: TextCacheStatus | None


@dataclass(frozen=True)
class Status:
    """The server's state."""

    version: str
    model: ModelStatus
    sandbox: SandboxStatus
    store: StoreStatus
    limits: Mapping[str, Any]
    cluster: ClusterState | None = None


async def model_status(models: Models, settings: Settings) -> ModelStatus:
    """Ask the endpoint whether it is there."""
    error = None
    if settings.root_model:
        try:
            await models.check(settings.root_model)
        except ModelError as raised:
            error = str(raised)
    else:
        error = "RLM_MCP_ROOT_MODEL is not set."
    return ModelStatus(
        configured=bool(settings.root_model),
        base_url=without_credentials(models.catalogue.default.base_url),
        root_model=settings.root_model,
        sub_model=settings.sub_model or settings.root_model,
        reachable=error is None if settings.root_model else None,
        error=error,
        models=await _allowed(models, settings),
    )


async def _allowed(models: Models, settings: Settings) -> tuple[Mapping[str, Any], ...]:
    names = models.catalogue.names
    prices = await models.prices(*names)
    windows = {name: await models.window(name) for name in names}
    usual = Price(settings.cost_per_input_token, settings.cost_per_output_token)
    ledger = Ledger(prices, usual if usual.input or usual.output else None)
    return tuple(
        asdict(_described(name, ledger.price_of(name), windows[name], name in prices.telling))
        for name in names
    )


def _described(
    name: str, price: Price | None, window: int | None, tells_cost: bool
) -> AllowedModel:
    given, cached, made = (
        (price.input, price.cached_input, price.output) if price else (None, None, None)
    )
    return AllowedModel(
        name,
        window,
        _per_million(given),
        _per_million(cached),
        _per_million(made),
        tells_cost,
    )


def _per_million(usd: float | None) -> float | None:
    return None if usd is None else round(usd * MILLION, 6)


async def sandbox_status(sandbox: Sandbox) -> SandboxStatus:
    """Say what the walls hold."""
    isolation = await sandbox.isolation()
    return SandboxStatus(isolation.level, isolation.layers, isolation.missing)


async def store_status(
    database: Database, contexts: Contexts, runs: Runs, *, is_shared: bool, is_remote: bool
) -> StoreStatus:
    """Count what is stored.

    Args:
        is_shared: the caller is one of several.
        is_remote: the caller may be on another machine, which learns no path of this one.
    """
    return StoreStatus(
        path=None if is_remote else str(database.path),
        contexts=await contexts.count(),
        runs=await runs.count(),
        bytes=await (contexts.total_bytes() if is_shared else database.size_bytes()),
        text_cache=await _text_cache(contexts, is_shared=is_shared, is_remote=is_remote),
    )


async def _text_cache(
    contexts: Contexts, *, is_shared: bool, is_remote: bool
) -> TextCacheStatus | None:
    cache = contexts.cache
    if cache is None:
        return None
    path = None if is_remote else str(cache.directory)
    return TextCacheStatus(path, await cache.held_bytes(contexts.caller if is_shared else None))
