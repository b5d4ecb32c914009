"""Opens a provider's endpoint, from its settings or from a client of the `openai` package."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Protocol

import anyio

from rlm_mcp.engine.models.client_wire import ClientWire, ThreadedClientWire, creates_by_itself
from rlm_mcp.engine.models.endpoint import Endpoint, Limits, Pace, Wire
from rlm_mcp.engine.models.http_provider import Provider, ProviderWire
from rlm_mcp.engine.models.http_session import HttpOptions
from rlm_mcp.engine.models.retry import RetryPolicy, Timing
from rlm_mcp.engine.models.tables import ModelTable, takes_schemas
from rlm_mcp.errors import ConfigurationError

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI


CALLS_AT_ONCE = 32


class ClosableWire(Wire, Protocol):
    """A wire with connections of its own."""

    async def close(self) -> None:
        """Close the connections."""
        ...


@asynccontextmanager
async def open_endpoint(
    source: Provider | OpenAI | AsyncOpenAI,
    *,
    limiter: anyio.CapacityLimiter | None = None,
    policy: RetryPolicy | None = None,
    timing: Timing | None = None,
    own_pool: bool = False,
    direct: bool = False,
) -> AsyncGenerator[Endpoint]:
    """Open a provider's endpoint, for all its models; connections are closed at the end.

    Args:
        source: a `Provider`; or a client of the `openai` package, which stays open and sends the
            requests itself: a synchronous one from threads.
        limiter: calls at once, shared by all who use it; 32 where there is none.
        policy: how patient calls are.
        timing: how to wait between attempts, and what time it is.
        own_pool: whether the connections of an `AsyncOpenAI` belong to another event loop, so that
            a copy with connections of its own is used.
        direct: whether requests are sent without the client, with its address, key, headers and
            time limits alone: ten times cheaper, but past its `http_client` and its hooks.

    Raises:
        ConfigurationError: `direct` for a client of which more is needed.
    """
    policy = policy or RetryPolicy()
    seconds = policy.attempt_seconds
    timing = timing or Timing()
    limiter = limiter or anyio.CapacityLimiter(CALLS_AT_ONCE)
    if isinstance(source, Provider):
        wire = ProviderWire(source, seconds)
    elif direct:
        wire = _direct_wire(source, seconds)
    else:
        wire = _client_wire(source, seconds, own_pool=own_pool)
    async with open_wire(wire, Limits(limiter, policy, Pace(timing), timing)) as endpoint:
        endpoint.takes_schemas = takes_schemas(ModelTable(), str(source.base_url))
        yield endpoint


@asynccontextmanager
async def open_wire(wire: ClosableWire, limits: Limits) -> AsyncGenerator[Endpoint]:
    """Open the endpoint that a wire reaches; the wire is closed at the end."""
    try:
        yield Endpoint(wire, limits)
    finally:
        with anyio.CancelScope(shield=True):  # closing sockets takes no round trip
            await wire.close()


def _client_wire(
    client: OpenAI | AsyncOpenAI, attempt_seconds: float, *, own_pool: bool
) -> ClientWire | ThreadedClientWire:
    from openai import AsyncOpenAI  # noqa: PLC0415  # loaded by whoever made the client

    if isinstance(client, AsyncOpenAI):
        return ClientWire(client, attempt_seconds, own_pool=own_pool)
    return ThreadedClientWire(client, attempt_seconds)


def _direct_wire(client: OpenAI | AsyncOpenAI, attempt_seconds: float) -> ProviderWire:
    if problem := _what_is_lost(client):
        raise ConfigurationError(
            f"direct_http=True sends requests past the client, and this one has {problem}.",
            fix="Leave out direct_http.",
        )
    provider = Provider(str(client.base_url), client.api_key)
    return ProviderWire(provider, attempt_seconds, partial(_options_of, client))


def _what_is_lost(client: OpenAI | AsyncOpenAI) -> str:
    """Name what a client has, as far as its public attributes tell, that a request would lack."""
    import openai  # noqa: PLC0415  # loaded by whoever made the client

    if type(client) not in (openai.OpenAI, openai.AsyncOpenAI):
        return f"its own class, {type(client).__name__!r}"
    if not creates_by_itself(client):
        return "methods patched onto it"
    if client.workload_identity is not None or not client.api_key:
        return "a key that is made on demand"
    return "a default_query" if client.default_query else ""


def _options_of(client: OpenAI | AsyncOpenAI) -> HttpOptions:
    import httpx2  # noqa: PLC0415  # comes with openai

    headers = {**client.auth_headers, **client.default_headers}
    sent = {name: value for name, value in headers.items() if isinstance(value, str)}
    limit = client.timeout
    if isinstance(limit, httpx2.Timeout):
        return HttpOptions(sent, limit.connect, limit.read)
    return HttpOptions(sent, limit, limit)
