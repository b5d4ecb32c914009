"""Models by the names that an operator gives them, each at an endpoint or a command of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace

import anyio
import anyio.to_thread

from rlm_mcp.engine.models.addresses import base_of, host_of, is_local
from rlm_mcp.engine.models.chat import ChatModel, ChatReply, ChatRequest
from rlm_mcp.engine.models.commands.command import CALLS_AT_ONCE, CommandModel
from rlm_mcp.engine.models.commands.presets import PRESETS, Command, preset_command
from rlm_mcp.engine.models.endpoint import Endpoint, Limits, Pace, borrowed
from rlm_mcp.engine.models.http_provider import Provider, ProviderWire
from rlm_mcp.engine.models.kept_prices import KnownModel, look_up
from rlm_mcp.engine.models.local.wire import LocalWire, Wishes
from rlm_mcp.engine.models.metering import Price, PriceList
from rlm_mcp.engine.models.openai_client import ClosableWire, open_wire
from rlm_mcp.engine.models.retry import RetryPolicy, Timing
from rlm_mcp.engine.models.tables import (
    ANTHROPIC_BASE_URL,
    ANTHROPIC_KEY,
    NATIVE,
    ModelTable,
    takes_cache_key,
    takes_schemas,
)
from rlm_mcp.errors import ConfigurationError, ContextLengthError, InvalidInputError, ModelError
from rlm_mcp.text import without_credentials

MILLION = 1_000_000
COMMAND_PREFIX = "command:"
ANTHROPIC_CACHE_WRITE = 1.25  # of the input price, for entries that live five minutes
_TELLING_COMMANDS = frozenset(
    f"{COMMAND_PREFIX}{name}" for name, preset in PRESETS.items() if preset.tells_cost
)
_TELLING_HOSTS = ("openrouter.ai",)


@dataclass(frozen=True)
class Catalogue:
    """What an operator has named.

    Args:
        default: the endpoint of models that have no table.
        tables: by name.
        keys: by name of the environment variable.
        allowed: names that callers may choose; None for every table and every model of the default
            endpoint.
        configured: root and sub model of the settings, which are always allowed.
        environment: what commands get of the environment.
        context_tokens: the window of models of the default endpoint, where it is set.
    """

    default: Provider
    tables: Mapping[str, ModelTable] = field(default_factory=dict[str, ModelTable])
    keys: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    allowed: Sequence[str] | None = None
    configured: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    context_tokens: int | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names that a caller may choose, as far as they are known."""
        chosen = self.tables if self.allowed is None else self.allowed
        return tuple(dict.fromkeys((*self.configured, *chosen)))

    @property
    def prices(self) -> PriceList:
        """Prices that the operator set, and what else is known of costs without asking."""
        tables = self.tables.items()
        return PriceList(
            {name: price for name, table in tables if (price := _price_of(table)) is not None},
            fallbacks={name: table.fallback for name, table in tables if table.fallback},
            telling=frozenset(filter(self._tells_cost, (*self.tables, *_TELLING_COMMANDS))),
        )

    def base_url(self, name: str) -> str:
        """Where a model is, unless it is a command."""
        table = self.tables.get(name)
        usual = self.default.base_url
        if table is not None and table.provider == "anthropic":
            usual = ANTHROPIC_BASE_URL
        return (table.base_url if table else None) or usual

    def is_command(self, name: str) -> bool:
        """Whether a command answers as this model."""
        table = self.tables.get(name)
        return table.provider == "command" if table else name.startswith(COMMAND_PREFIX)

    def place_of(self, name: str) -> str:
        """Say where a model of a table answers, and as which; empty at the default endpoint."""
        table = self.tables.get(name)
        if table is None:
            return ""
        if table.provider == "command":
            return f"command {table.command}"
        address = without_credentials(base_of(self.base_url(name)))
        return f"{table.provider} {address} {self.provider_name(name)}"

    def provider_name(self, name: str) -> str:
        """The name by which the provider knows a model."""
        table = self.tables.get(name)
        return (table.model if table else "") or name

    def _tells_cost(self, name: str) -> bool:
        table = self.tables.get(name)
        if table is None:
            return name in _TELLING_COMMANDS
        preset = PRESETS.get(table.command) if isinstance(table.command, str) else None
        if table.provider == "command":
            return preset is not None and preset.tells_cost
        return self.base_url(name).partition("://")[2].startswith(_TELLING_HOSTS)

    def refuse_not_allowed(self, name: str) -> None:
        """Refuse a name that the operator does not allow.

        Raises:
            InvalidInputError: it is not allowed.
        """
        # A command runs on this machine, so the operator must have named it.
        is_open = self.allowed is None and not name.startswith(COMMAND_PREFIX)
        if not is_open and name not in self.names:
            allowed = ", ".join(map(repr, self.names)) or "none"
            raise InvalidInputError(
                f"The model {name!r} is not allowed here.", fix=f"Allowed are: {allowed}."
            )


class Models:
    """Open models by name; made by `open_models`."""

    def __init__(
        self,
        catalogue: Catalogue,
        default: Endpoint,
        named: Mapping[str, ChatModel],
        endpoints: Mapping[str, Endpoint],
    ) -> None:
        self.catalogue = catalogue
        self._named = dict(named)
        self.endpoints = {"": default, **endpoints}
        """By the name of their table; that of all other models has none."""
        self._known: dict[str, KnownModel | None] = {}

    def model(self, name: str) -> ChatModel:
        """One model by name: of a table, a command, or of the default endpoint."""
        return _Routed(self, name)

    async def check(self, name: str) -> list[str]:
        """See that what answers as a model is there: an endpoint (see `Endpoint.check`), a program.

        Raises:
            ModelError: it is not.
        """
        target = self._target(name)
        if isinstance(target, CommandModel):
            await target.check()
            return []
        return await self.endpoints.get(name, self.endpoints[""]).check()

    async def prices(self, *names: str) -> PriceList:
        """Return prices of these models and of those of tables.

        Those that the operator set win; the rest are looked up once, by address and name.
        """
        prices = self.catalogue.prices
        asked = dict.fromkeys((*names, *self.catalogue.tables))
        missing = [name for name in asked if name and name not in prices.own]
        await self.find_known(missing)
        known = {name: one.price for name in missing if (one := self._known.get(name))}
        return replace(prices, known=known)

    async def find_known(self, names: Sequence[str]) -> Mapping[str, KnownModel]:
        """Look models up in the kept table of prices; those that are not in it are left out."""
        catalogue = self.catalogue
        new = [name for name in names if name not in self._known]
        asked = {
            name: (catalogue.provider_name(name), catalogue.base_url(name))
            for name in new
            if not catalogue.is_command(name)
        }
        self._known.update(dict.fromkeys(new))
        if not all(is_local(address) for _, address in asked.values()):
            self._known.update(await anyio.to_thread.run_sync(_look_up_all, asked))
        return {name: one for name in names if (one := self._known.get(name))}

    async def window(self, name: str) -> int | None:
        """Return the window of a model in tokens, where the settings or the kept table have it."""
        table = self.catalogue.tables.get(name)
        if table is not None and table.context_tokens:
            return table.context_tokens
        known = await self.find_known([name])
        return known[name].context_tokens if name in known else None

    async def complete(self, name: str, request: ChatRequest) -> ChatReply:
        """Ask a model, and the one named as its fallback where it fails.

        Raises:
            ModelError: none of them answers.
        """
        asked: set[str] = set()
        while True:
            asked.add(name)
            try:
                asked_for = request if request.model is None else replace(request, model=None)
                reply = await self._target(name).complete(asked_for)
            except ContextLengthError:
                raise
            except ModelError:
                table = self.catalogue.tables.get(name)
                if table is None or not table.fallback or table.fallback in asked:
                    raise
                name = table.fallback
                if request.on_delta is not None:
                    await request.on_delta("")
            else:
                return reply if reply.model == name else replace(reply, model=name)

    def _target(self, name: str) -> ChatModel:
        known = self._named.get(name)
        if known is None and name.startswith(COMMAND_PREFIX):
            preset = name.removeprefix(COMMAND_PREFIX)
            command = preset_command(preset, "", self.catalogue.environment)
            limiter = anyio.CapacityLimiter(CALLS_AT_ONCE)
            known = self._named[name] = CommandModel(name, command, limiter)
        return known or self.endpoints[""].model(name)


@asynccontextmanager
async def open_models(
    catalogue: Catalogue, *, limiter: anyio.CapacityLimiter, policy: RetryPolicy | None = None
) -> AsyncGenerator[Models]:
    """Open the default endpoint and those of all tables; `limiter` bounds their calls together.

    Raises:
        ConfigurationError: a table cannot be used.
    """
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        usual = ModelTable(context_tokens=catalogue.context_tokens)
        default = await enter(_open(catalogue.default, usual, limiter, policy))
        default.takes_cache_key = takes_cache_key(usual, catalogue.default.base_url)
        default.takes_schemas = takes_schemas(usual, catalogue.default.base_url)
        named: dict[str, ChatModel] = {}
        endpoints: dict[str, Endpoint] = {}
        for name, table in catalogue.tables.items():
            _refuse_unknown_fallback(name, table, catalogue)
            bounds = anyio.CapacityLimiter(table.max_concurrent_calls or CALLS_AT_ONCE)
            if table.provider == "command":
                named[name] = CommandModel(name, _command(name, table, catalogue), bounds)
                continue
            source = _provider(table, catalogue)
            endpoint = await enter(_open(source, table, limiter, policy))
            endpoint.extras = table.extras
            endpoint.takes_cache_key = takes_cache_key(table, source.base_url)
            endpoint.takes_schemas = takes_schemas(table, source.base_url)
            endpoints[name] = endpoint
            model = endpoint.model(table.model or name)
            named[name] = _Bounded(model, bounds) if table.max_concurrent_calls else model
        yield Models(catalogue, default, named, endpoints)


def _open(
    source: Provider,
    table: ModelTable,
    limiter: anyio.CapacityLimiter,
    policy: RetryPolicy | None,
) -> AbstractAsyncContextManager[Endpoint]:
    """Open the endpoint of a table, in its provider's own words."""
    policy, timing = policy or RetryPolicy(), Timing()
    wire = _wire(source, table, policy.attempt_seconds)
    return open_wire(wire, Limits(limiter, policy, Pace(timing), timing))


def _wire(source: Provider, table: ModelTable, attempt_seconds: float) -> ClosableWire:
    if table.provider in NATIVE:
        from rlm_mcp.engine.models.native.providers import make_wire  # noqa: PLC0415  # for few

        return make_wire(table.provider, source, attempt_seconds)
    server = table.server
    is_own = bool(host_of(source.base_url)) and is_local(source.base_url)
    if server in {"openai", "other"} or (server is None and not is_own):
        return ProviderWire(source, attempt_seconds)
    return LocalWire(source, attempt_seconds, Wishes(server, table.context_tokens))


def _look_up_all(asked: Mapping[str, tuple[str, str]]) -> Mapping[str, KnownModel | None]:
    return {name: look_up(model, address) for name, (model, address) in asked.items()}


def _price_of(table: ModelTable) -> Price | None:
    if table.input_price is None and table.output_price is None:
        return None
    given, cached = (table.input_price or 0.0) / MILLION, table.cached_input_price
    return Price(
        given,
        (table.output_price or 0.0) / MILLION,
        None if cached is None else cached / MILLION,
        given * ANTHROPIC_CACHE_WRITE if table.provider == "anthropic" else None,
    )


def _refuse_unknown_fallback(name: str, table: ModelTable, catalogue: Catalogue) -> None:
    if table.fallback and table.fallback not in catalogue.tables:
        raise ConfigurationError(
            f"The fallback {table.fallback!r} of the model {name!r} has no table.",
            fix=f"Add [models.{table.fallback}], or remove the fallback.",
        )


def provider_of(name: str, catalogue: Catalogue) -> Provider:
    """Return where a model is that is not a command."""
    table = catalogue.tables.get(name)
    return _provider(table, catalogue) if table else catalogue.default


def _provider(table: ModelTable, catalogue: Catalogue) -> Provider:
    headers = {name: value.get_secret_value() for name, value in table.headers.items()}
    key = catalogue.keys.get(table.api_key_env or "", "")
    if table.provider == "anthropic":
        key = key if table.api_key_env else catalogue.keys.get(ANTHROPIC_KEY, "")
        return Provider(table.base_url or ANTHROPIC_BASE_URL, key, headers)
    if table.base_url is None:
        default = catalogue.default
        return Provider(default.base_url, key or default.api_key, headers)
    return Provider(table.base_url, key, headers)


def _command(name: str, table: ModelTable, catalogue: Catalogue) -> Command:
    if isinstance(table.command, str):
        return preset_command(table.command, table.model, catalogue.environment)
    if not table.command:
        raise ConfigurationError(
            f"The model {name!r} is a command, and its table has none.",
            fix="Set `command` to argv, or to a preset: claude, codex, gemini, llm.",
        )
    return Command(table.command, catalogue.environment)


@dataclass(frozen=True)
class _Routed:
    """A model by name, or the one that a request names instead."""

    models: Models
    name: str

    async def complete(self, request: ChatRequest) -> ChatReply:
        return await self.models.complete(request.model or self.name, request)


@dataclass(frozen=True)
class _Bounded:
    """A model with a limit of its own on calls at once."""

    model: ChatModel
    limiter: anyio.CapacityLimiter

    async def complete(self, request: ChatRequest) -> ChatReply:
        async with borrowed(self.limiter):
            return await self.model.complete(request)
