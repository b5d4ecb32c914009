"""How models are asked: the small protocol, and its adapter for OpenAI-compatible endpoints."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import anyio
import anyio.to_thread

from rlm_mcp.engine.chat import ChatModel, ChatReply, ChatRequest, OnDelta
from rlm_mcp.engine.completion import ReplyParts, diagnose_status, read_completion
from rlm_mcp.engine.retry import (
    AttemptFailedError,
    Diagnosis,
    Pace,
    Patience,
    RetryPolicy,
    Timing,
    borrowed,
    parse_retry_after,
)
from rlm_mcp.errors import (
    ConfigurationError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelError,
    ModelReplyError,
)

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI, OpenAI

__all__ = [
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

OPENAI_BASE_URL = "https://api.openai.com/v1"
CALLS_AT_ONCE = 32
EMPTY_REPLIES_ALLOWED = 1
CHECK_SECONDS = 3.0


@dataclass(frozen=True)
class Provider:
    """Where models are: an OpenAI-compatible base URL and a key (none for most local servers)."""

    base_url: str = OPENAI_BASE_URL
    api_key: str = field(default="", repr=False)


@asynccontextmanager
async def open_endpoint(
    source: Provider | OpenAI | AsyncOpenAI,
    *,
    limiter: anyio.CapacityLimiter | None = None,
    policy: RetryPolicy | None = None,
    timing: Timing | None = None,
    own_pool: bool = False,
) -> AsyncGenerator[Endpoint]:
    """Open a provider's endpoint: one connection pool for all its models, closed at the end.

    Args:
        source: a `Provider`; or a client of the `openai` package. A synchronous one gets an
            asynchronous twin with the same key, address, headers and timeout; the pool of an
            `AsyncOpenAI` is its owner's and stays open.
        limiter: calls at once, shared by whoever holds it; 32 where there is none.
        policy: how patient calls are.
        timing: how to wait between attempts, and what time it is.
        own_pool: whether an `AsyncOpenAI` gets a twin too, since its pool belongs to another event
            loop.
    """
    connection = _Connection(source, own_pool=own_pool)
    timing = timing or Timing()
    limiter = limiter or anyio.CapacityLimiter(CALLS_AT_ONCE)
    limits = _Limits(limiter, policy or RetryPolicy(), Pace(timing), timing)
    try:
        yield Endpoint(connection, limits)
    finally:
        with anyio.CancelScope(shield=True):  # closing sockets takes no round trip
            await connection.close()


@dataclass(frozen=True)
class _Limits:
    limiter: anyio.CapacityLimiter
    policy: RetryPolicy
    pace: Pace
    timing: Timing


class Endpoint:
    """One provider, with what was learnt about it: its pace, and parameters it refused."""

    def __init__(self, connection: _Connection, limits: _Limits) -> None:
        self._connection = connection
        self._limits = limits
        self._refused: dict[str, frozenset[str]] = {}

    def model(self, name: str) -> ChatModel:
        """One model of this endpoint, asked by name."""
        return _EndpointModel(self, name)

    async def check(self) -> None:
        """See that the endpoint is there and takes the key, by asking for its models once.

        Raises:
            ModelConnectionError: nothing answers.
            ModelAuthenticationError: the key was rejected.
        """
        client = await self._connection.client()
        try:
            with _translated(self._connection, {}), anyio.fail_after(CHECK_SECONDS):
                await _get_models(client)
        except AttemptFailedError as failure:
            # Not every server lists its models: an answer of another kind is one too.
            error = failure.diagnosis.error
            if isinstance(error, (ModelConnectionError, ModelAuthenticationError)):
                raise error from None

    async def complete(self, model: str, request: ChatRequest) -> ChatReply:
        """Ask until there is an answer or patience ends.

        Raises:
            ModelError: there is none.
        """
        patience = Patience(self._limits.policy, self._limits.timing.clock)
        empty = 0
        while True:
            try:
                reply = await self._attempt(model, request)
            except AttemptFailedError as failure:
                await self._prepare_next(model, failure.diagnosis, patience)
            else:
                self._limits.pace.recover()
                if reply.text or reply.finish_reason != "stop" or empty == EMPTY_REPLIES_ALLOWED:
                    return reply
                empty += 1
            if request.on_delta is not None:
                await request.on_delta("")

    async def _prepare_next(self, model: str, failed: Diagnosis, patience: Patience) -> None:
        if failed.refused_parameter is not None:
            refused = self._refused.get(model, frozenset())
            self._refused[model] = refused | {failed.refused_parameter}
            return
        pause = patience.pause_after(failed)
        if failed.is_crowded:
            self._limits.pace.slow_down(pause)  # the next attempt waits with all the others
        else:
            await self._limits.timing.sleep(pause)

    async def _attempt(self, model: str, request: ChatRequest) -> ChatReply:
        body = self._body(model, request)
        async with self._limits.pace.turn(), borrowed(self._limits.limiter):
            client = await self._connection.client()
            with _translated(self._connection, body):
                with anyio.fail_after(self._limits.policy.attempt_seconds):
                    if request.on_delta is not None:
                        return await _stream(client, body, request)
                    return await _post(client, body, request)

    def _body(self, model: str, request: ChatRequest) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": model,
            "messages": [_sendable(message) for message in request.messages],
        }
        refused = self._refused.get(model, frozenset())
        optional: dict[str, Any] = {"temperature": request.temperature}
        # Newer models of OpenAI refuse the one name, most other servers know only it.
        name = "max_completion_tokens" if "max_tokens" in refused else "max_tokens"
        optional[name] = request.max_tokens
        if request.on_delta is not None:
            body["stream"] = True
            optional["stream_options"] = {"include_usage": True}
        taken = {k: v for k, v in optional.items() if v is not None and k not in refused}
        return {**body, **taken}


@dataclass(frozen=True)
class _EndpointModel:
    endpoint: Endpoint
    name: str

    async def complete(self, request: ChatRequest) -> ChatReply:
        return await self.endpoint.complete(request.model or self.name, request)


class _Connection:
    """The client behind an endpoint, made on first use."""

    def __init__(self, source: Provider | OpenAI | AsyncOpenAI, *, own_pool: bool) -> None:
        self._source = source
        self._own_pool = own_pool
        self._client: AsyncOpenAI | None = None
        self._lock = anyio.Lock()

    @property
    def base_url(self) -> str:
        """The address without credentials, for error texts."""
        scheme, _, rest = str(self._source.base_url).partition("://")
        return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"

    @property
    def secret(self) -> str:
        """What must not be in any text."""
        return self._source.api_key

    async def client(self) -> AsyncOpenAI:
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


def _make_client(source: Provider | OpenAI | AsyncOpenAI, own_pool: bool) -> AsyncOpenAI:
    from openai import AsyncOpenAI, DefaultAsyncHttpxClient, OpenAIError  # noqa: PLC0415  # heavy: see client()

    if not source.api_key.isascii():
        raise ConfigurationError(
            "The API key holds characters that no key has.", fix="Copy it again from the provider."
        )
    try:
        if isinstance(source, AsyncOpenAI):
            return source.copy(http_client=DefaultAsyncHttpxClient()) if own_pool else source
        if isinstance(source, Provider):
            # An empty key is refused by the client, though local servers want none.
            key = source.api_key or "none"
            return AsyncOpenAI(base_url=source.base_url, api_key=key, max_retries=0)
        return _twin(source)
    except OpenAIError as error:
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


async def _get_models(client: AsyncOpenAI) -> None:
    import httpx2  # noqa: PLC0415  # likewise

    await client.get("/models", cast_to=httpx2.Response, options={"max_retries": 0})


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
        async for chunk in stream:
            if text := parts.add_chunk(chunk):
                await on_delta(text)
    if not parts.is_ended:
        raise ModelReplyError("The stream ended without a finish reason.")
    return parts.reply()


def _sendable(message: Mapping[str, object]) -> dict[str, object]:
    """Copy a message without lone surrogates, which UTF-8 cannot hold."""
    content = message.get("content")
    if isinstance(content, str) and not content.isascii():
        content = content.encode("utf-8", "replace").decode()
    return {**message, "content": content}


@contextmanager
def _translated(connection: _Connection, body: Mapping[str, Any]) -> Generator[None]:
    """Turn what the `openai` package raises into diagnoses.

    Raises:
        AttemptFailedError: the request failed.
    """
    import openai  # noqa: PLC0415  # loaded by now

    fix = "Set RLM_MCP_BASE_URL (or OPENAI_BASE_URL), and see that the server runs."
    at = f"the model endpoint at {connection.base_url!r}"
    try:
        yield
    except openai.APIStatusError as error:
        diagnosis, cause = _diagnose(error, body), error
    except (openai.APITimeoutError, TimeoutError) as error:
        late = ModelConnectionError(f"No answer in time from {at}.", fix=fix)
        diagnosis, cause = Diagnosis(late, "yes"), error
    except openai.APIConnectionError as error:
        reason = type(error.__cause__).__name__
        gone = ModelConnectionError(f"No connection to {at}: {error.__cause__!r}.", fix=fix)
        diagnosis, cause = Diagnosis(gone, "briefly" if "Connect" in reason else "yes"), error
    except (openai.OpenAIError, ModelReplyError, ValueError) as error:
        diagnosis, cause = Diagnosis(ModelReplyError(f"From {at}: {error}"), "yes"), error
    else:
        return
    _hide(diagnosis.error, connection.secret)
    # The package's own text may quote the key, so it is not shown below ours.
    hides = connection.secret and connection.secret in f"{cause} {cause.__cause__}"
    diagnosis.error.__cause__ = None if hides else cause
    raise AttemptFailedError(diagnosis) from None


def _diagnose(error: APIStatusError, body: Mapping[str, Any]) -> Diagnosis:
    wait = parse_retry_after(error.response.headers.get("retry-after"))
    optional = tuple(name for name in body if name not in {"model", "messages", "stream"})
    return diagnose_status(error.status_code, error.body or error.response.text, wait, optional)


def _hide(error: ModelError, secret: str) -> None:
    if secret and secret in error.message:
        error.message = error.message.replace(secret, "***")
        error.args = (error.message,)
