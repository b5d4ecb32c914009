"""The adapter for OpenAI-compatible endpoints; the only home of the `openai` package."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from json import JSONDecodeError
from typing import TYPE_CHECKING, Any, cast

import anyio
import anyio.to_thread

from rlm_mcp.engine.models.chat import ChatModel, ChatReply, ChatRequest, OnDelta
from rlm_mcp.engine.models.completions import (
    ReplyParts,
    diagnose_status,
    read_completion,
    read_model_names,
)
from rlm_mcp.engine.models.diagnosis import Faults
from rlm_mcp.engine.models.endpoint import Endpoint, Limits
from rlm_mcp.engine.models.http_provider import (
    CHECK_SECONDS,
    OPENAI_BASE_URL,
    Provider,
    ProviderWire,
    refuse_unusable,
)
from rlm_mcp.engine.models.http_session import Manner
from rlm_mcp.engine.models.retry import (
    AttemptFailedError,
    Diagnosis,
    Pace,
    RetryPolicy,
    Timing,
    parse_retry_after,
)
from rlm_mcp.errors import (
    ConfigurationError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelReplyError,
)

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI, OpenAI


__all__ = [
    "OPENAI_BASE_URL",
    "ChatModel",
    "ChatReply",
    "ChatRequest",
    "Endpoint",
    "OnDelta",
    "Provider",
    "RetryPolicy",
    "Timing",
    "open_endpoint",
]

CALLS_AT_ONCE = 32


@asynccontextmanager
async def open_endpoint(
    source: Provider | OpenAI | AsyncOpenAI,
    *,
    limiter: anyio.CapacityLimiter | None = None,
    policy: RetryPolicy | None = None,
    timing: Timing | None = None,
    own_pool: bool = False,
) -> AsyncGenerator[Endpoint]:
    """Open a provider's endpoint, for all its models; connections are closed at the end.

    Args:
        source: a `Provider`; or a client of the `openai` package. A synchronous one gets an
            asynchronous twin with the same key, address, headers and timeout, but not with the
            `http_client` it may have been given (proxies, certificates: hand in an `AsyncOpenAI`).
            The pool of an `AsyncOpenAI` is its owner's and stays open. Where a client does no more
            than hold key, address and headers, requests are sent as to a `Provider`, with those.
        limiter: calls at once, shared by whoever holds it; 32 where there is none.
        policy: how patient calls are.
        timing: how to wait between attempts, and what time it is.
        own_pool: whether an `AsyncOpenAI` gets a twin too, since its pool belongs to another event
            loop.
    """
    policy = policy or RetryPolicy()
    seconds = policy.attempt_seconds
    if isinstance(source, Provider):
        connection = ProviderWire(source, seconds)
    elif _is_plain(source):
        provider = Provider(str(source.base_url), source.api_key)
        connection = ProviderWire(provider, seconds, partial(_manner_of, source))
    else:
        connection = _Connection(source, seconds, own_pool=own_pool)
    timing = timing or Timing()
    limiter = limiter or anyio.CapacityLimiter(CALLS_AT_ONCE)
    limits = Limits(limiter, policy, Pace(timing), timing)
    try:
        yield Endpoint(connection, limits)
    finally:
        with anyio.CancelScope(shield=True):  # closing sockets takes no round trip
            await connection.close()


def _is_plain(client: OpenAI | AsyncOpenAI) -> bool:
    """Whether a client's requests need nothing but what it shows: no code of its owner's."""
    import openai  # noqa: PLC0415  # loaded by whoever made the client
    from openai._base_client import AsyncHttpxClientWrapper  # noqa: PLC0415  # has no public name

    if type(client) not in (openai.OpenAI, openai.AsyncOpenAI):
        return False
    pool = client._client  # pyright: ignore[reportPrivateUsage]  # has no public name
    has_own_pool = isinstance(client, openai.OpenAI) or type(pool) is AsyncHttpxClientWrapper
    has_key = bool(client.api_key) and client.workload_identity is None
    return has_own_pool and has_key and not client.default_query


def _manner_of(client: OpenAI | AsyncOpenAI) -> Manner:
    import httpx2  # noqa: PLC0415  # comes with openai

    headers = {**client.auth_headers, **client.default_headers}
    sent = {name: value for name, value in headers.items() if isinstance(value, str)}
    limit = client.timeout
    if isinstance(limit, httpx2.Timeout):
        return Manner(sent, limit.connect, limit.read)
    return Manner(sent, limit, limit)


class _Connection:
    """A client of the `openai` package behind an endpoint, made on first use."""

    def __init__(
        self, source: OpenAI | AsyncOpenAI, attempt_seconds: float, *, own_pool: bool
    ) -> None:
        self._source = source
        self._attempt_seconds = attempt_seconds
        self._own_pool = own_pool
        self._client: AsyncOpenAI | None = None
        self._lock = anyio.Lock()

    @property
    def faults(self) -> Faults:
        """Makes diagnoses of what fails."""
        # A key that is made on demand is known to the client once it was made.
        return Faults(str(self._source.base_url), (self._client or self._source).api_key)

    async def send(self, body: dict[str, Any], request: ChatRequest) -> ChatReply:
        """Send one request once.

        Raises:
            AttemptFailedError: there is no reply.
            ConfigurationError: there can be none with these settings.
        """
        client = await self._made()
        with _translated(self, body), anyio.fail_after(self._attempt_seconds):
            if request.on_delta is not None:
                return await _stream(client, body, request)
            return await _post(client, body, request)

    async def check(self) -> list[str]:
        """See that the endpoint is there and takes the key, by asking for its models once."""
        client = await self._made()
        try:
            with _translated(self, {}), anyio.fail_after(CHECK_SECONDS):
                return await _get_models(client)
        except AttemptFailedError as failure:
            # Not every server lists its models: an answer of another kind is one too.
            error = failure.diagnosis.error
            if isinstance(error, (ModelConnectionError, ModelAuthenticationError)):
                raise error from error.__cause__
        return []

    async def _made(self) -> AsyncOpenAI:
        async with self._lock:
            if self._client is None:
                # The import takes a second, reading certificates some 20 ms: not on the event loop.
                self._client = await anyio.to_thread.run_sync(
                    _make_client, self._source, self._own_pool
                )
            return self._client

    async def close(self) -> None:
        if self._client is not None and self._client is not self._source:
            await self._client.close()


def _make_client(source: OpenAI | AsyncOpenAI, own_pool: bool) -> AsyncOpenAI:
    import httpx2  # noqa: PLC0415  # comes with openai, and is as heavy
    from openai import AsyncOpenAI, DefaultAsyncHttpxClient, OpenAIError  # noqa: PLC0415  # heavy: see _made()

    refuse_unusable(str(source.base_url), source.api_key)
    try:
        if isinstance(source, AsyncOpenAI):
            return source.copy(http_client=DefaultAsyncHttpxClient()) if own_pool else source
        return _twin(source)
    except (OpenAIError, httpx2.InvalidURL) as error:
        raise ConfigurationError(f"The model client cannot be made: {error}") from error


def _twin(client: OpenAI) -> AsyncOpenAI:
    from openai import AsyncOpenAI, OpenAI  # noqa: PLC0415  # likewise

    if type(client) is not OpenAI:
        raise ConfigurationError(
            f"There is no asynchronous twin for a {type(client).__name__!r}.",
            fix=f"Hand in its asynchronous kind, Async{type(client).__name__}.",
        )
    return AsyncOpenAI(
        base_url=client.base_url,
        api_key=client.api_key or _key_provider(client),
        organization=client.organization,
        project=client.project,
        default_headers=client._custom_headers,  # pyright: ignore[reportPrivateUsage]  # has no public name
        default_query=client._custom_query,  # pyright: ignore[reportPrivateUsage]  # likewise
        timeout=client.timeout,
        max_retries=0,
    )


def _key_provider(client: OpenAI) -> Callable[[], Awaitable[str]] | None:
    make_key = client._api_key_provider  # pyright: ignore[reportPrivateUsage]  # likewise
    if make_key is None:
        return None

    async def make() -> str:
        return await anyio.to_thread.run_sync(make_key)

    return make


async def _post(client: AsyncOpenAI, body: dict[str, Any], request: ChatRequest) -> ChatReply:
    import httpx2  # noqa: PLC0415  # comes with openai, and is as heavy

    # The raw response: building the package's models costs more than the rest of a call.
    response = await client.post(
        "/chat/completions", cast_to=httpx2.Response, body=body, options={"max_retries": 0}
    )
    return read_completion(response.content, request.chars)


async def _get_models(client: AsyncOpenAI) -> list[str]:
    import httpx2  # noqa: PLC0415  # likewise

    reply = await client.get("/models", cast_to=httpx2.Response, options={"max_retries": 0})
    return read_model_names(reply.content)


async def _stream(client: AsyncOpenAI, body: dict[str, Any], request: ChatRequest) -> ChatReply:
    from openai import AsyncStream  # noqa: PLC0415  # likewise

    parts = ReplyParts(request.chars)
    on_delta = cast("OnDelta", request.on_delta)
    stream = await client.post(
        "/chat/completions",
        cast_to=object,
        body=body,
        options={"max_retries": 0},
        stream=True,
        stream_cls=AsyncStream[object],
    )
    async with stream:
        if "json" in stream.response.headers.get("content-type", ""):  # it does not stream
            reply = read_completion(await stream.response.aread(), request.chars)
            await on_delta(reply.text)
            return reply
        async for chunk in stream:
            if text := parts.add_chunk(chunk):
                await on_delta(text)
    if not parts.is_ended:
        raise ModelReplyError("The stream ended without a finish reason.")
    return parts.reply()


@contextmanager
def _translated(connection: _Connection, body: Mapping[str, Any]) -> Generator[None]:
    """Turn what the `openai` package raises into diagnoses.

    Raises:
        AttemptFailedError: the request failed.
    """
    import httpx2  # noqa: PLC0415  # loaded by now
    import openai  # noqa: PLC0415  # likewise

    of_packages = (openai.OpenAIError, httpx2.HTTPError)
    try:
        yield
    except (*of_packages, TimeoutError, ModelReplyError, JSONDecodeError, UnicodeError) as error:
        faults = connection.faults  # now, when a key that is made on demand has been made
        raise faults.failed(_meaning(faults, error, body), error) from None


def _meaning(faults: Faults, error: Exception, body: Mapping[str, Any]) -> Diagnosis:
    import httpx2  # noqa: PLC0415  # likewise
    import openai  # noqa: PLC0415  # likewise

    if isinstance(error, openai.APIStatusError):
        return _diagnose(error, body)
    if isinstance(error, (openai.APITimeoutError, TimeoutError)):
        return faults.late()
    if isinstance(error, (openai.APIConnectionError, httpx2.HTTPError)):
        why = error.__cause__ or error
        return faults.gone(why, was_there=not isinstance(why, httpx2.ConnectError))
    return faults.odd(error)


def _diagnose(error: APIStatusError, body: Mapping[str, Any]) -> Diagnosis:
    wait = parse_retry_after(error.response.headers.get("retry-after"))
    optional = tuple(name for name in body if name not in {"model", "messages", "stream"})
    return diagnose_status(error.status_code, error.body or error.response.text, wait, optional)
