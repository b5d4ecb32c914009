"""Requests sent by a client of the `openai` package, as its owner made it.

What the owner gave it or patched onto it (an `http_client` with proxies and certificates, hooks,
instrumentation) does its work. A patched `chat.completions.create` is called; where it is the
package's own, the same request is sent by the client's `post`, which gives the body as it came and
spares the building of the package's models: more than the rest of a call.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from json import JSONDecodeError
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar, cast

import anyio
import anyio.from_thread
import anyio.to_thread

from rlm_mcp.engine.models.addresses import REDIRECTS, place_of, refuse_unusable
from rlm_mcp.engine.models.chat import ChatReply, ChatRequest, OnDelta
from rlm_mcp.engine.models.completions import (
    ErrorInReplyError,
    ReplyParts,
    as_json,
    read_completion,
    read_decoded,
)
from rlm_mcp.engine.models.diagnosis import Faults, passwords_in
from rlm_mcp.engine.models.endpoint import optional_parts
from rlm_mcp.engine.models.event_stream import EventStream
from rlm_mcp.engine.models.http_provider import CHECK_SECONDS
from rlm_mcp.engine.models.refusals import Refused
from rlm_mcp.engine.models.retry import AttemptFailedError, Diagnosis
from rlm_mcp.errors import (
    ConfigurationError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelReplyError,
)
from rlm_mcp.text import without_credentials

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI


PATH = "/chat/completions"
THREADS = 1024  # as many as calls can be on their way; a limiter of calls bounds them before

Client = TypeVar("Client", "OpenAI", "AsyncOpenAI")
Result = TypeVar("Result")


def is_patched(client: OpenAI | AsyncOpenAI) -> bool:
    """Whether methods were put onto this one client, which a copy of it would not have.

    Looks at the client and at what `chat.completions` leads to; methods patched onto the class are
    in every copy.
    """
    parts = (client, client.chat, client.chat.completions)
    return any(map(_has_own_methods, parts)) or not all(map(_is_of_openai, map(type, parts[1:])))


def creates_by_itself(client: OpenAI | AsyncOpenAI) -> bool:
    """Whether `chat.completions.create` is the package's own code: nothing listens to it."""
    create = getattr(type(client.chat.completions), "create", None)
    if is_patched(client) or not isinstance(create, FunctionType):
        return False
    return str(create.__globals__.get("__name__")).startswith("openai.")


class ClientWire:
    """Sends requests through an `AsyncOpenAI`; see `endpoint.Wire`.

    Args:
        source: the client; it stays open.
        attempt_seconds: one request may take this long.
        own_pool: whether its connections belong to another event loop, so that a copy with its own
            is used.
    """

    def __init__(self, source: AsyncOpenAI, attempt_seconds: float, *, own_pool: bool) -> None:
        self._source = source
        self._attempt_seconds = attempt_seconds
        self._own_pool = own_pool
        self._client: AsyncOpenAI | None = None
        self._lock = anyio.Lock()

    async def send(self, body: dict[str, Any], request: ChatRequest) -> ChatReply:
        """Send one request once.

        Raises:
            AttemptFailedError: there is no reply.
            ConfigurationError: there can be none with these settings.
        """
        client = await self._made()
        ask = _ask if creates_by_itself(client) else _ask_patched
        with _translated(client, body), anyio.fail_after(self._attempt_seconds):
            return await ask(client, body, request)

    async def check(self) -> list[str]:
        """Check that the provider is there and takes the key, by listing its models once."""
        client = await self._made()
        with _checking(client), anyio.fail_after(CHECK_SECONDS):
            return [model.id async for model in client.models.list()]
        return []

    async def close(self) -> None:
        """Close the copy's connections, where there is a copy that has its own."""
        if self._own_pool and self._client is not None:
            await self._client.close()

    async def _made(self) -> AsyncOpenAI:
        async with self._lock:
            if self._client is None:
                # Reading certificates takes some 20 ms: not on the event loop.
                self._client = await anyio.to_thread.run_sync(self._make)
            return self._client

    def _make(self) -> AsyncOpenAI:
        from openai import DefaultAsyncHttpxClient  # noqa: PLC0415  # loaded by the client's owner

        refuse_unusable(str(self._source.base_url), self._source.api_key)
        if not self._own_pool:
            return _without_retries(self._source)
        if is_patched(self._source):
            raise ConfigurationError(
                "generate() cannot use an AsyncOpenAI with methods patched onto it: its "
                "connections belong to another event loop, and a copy would lose the methods.",
                fix="Use agenerate(), or hand in a synchronous OpenAI client.",
            )
        return self._source.copy(http_client=DefaultAsyncHttpxClient(), max_retries=0)


class ThreadedClientWire:
    """Sends requests through a synchronous `OpenAI`, each in a thread; see `endpoint.Wire`.

    A request under way cannot be ended from outside: a caller that is cancelled stops waiting.
    """

    def __init__(self, source: OpenAI, attempt_seconds: float) -> None:
        self._source = source
        self._attempt_seconds = attempt_seconds
        self._client: OpenAI | None = None
        self._threads = anyio.CapacityLimiter(THREADS)

    async def send(self, body: dict[str, Any], request: ChatRequest) -> ChatReply:
        """Send one request once.

        Raises:
            AttemptFailedError: there is no reply.
            ConfigurationError: there can be none with these settings.
        """
        client = self._made()
        ask = _ask_blocking if creates_by_itself(client) else _ask_patched_blocking
        with _translated(client, body), anyio.fail_after(self._attempt_seconds):
            return await self._in_thread(partial(ask, client, body, request))

    async def check(self) -> list[str]:
        """Check that the provider is there and takes the key, by listing its models once."""
        client = self._made()
        with _checking(client), anyio.fail_after(CHECK_SECONDS):
            return await self._in_thread(lambda: [model.id for model in client.models.list()])
        return []

    async def close(self) -> None:
        """Leave the client open: it is its owner's."""

    def _made(self) -> OpenAI:
        if self._client is None:
            refuse_unusable(str(self._source.base_url), self._source.api_key)
            self._client = _without_retries(self._source)
        return self._client

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._threads)


def _has_own_methods(one: object) -> bool:
    attributes = cast("Mapping[str, object]", getattr(one, "__dict__", {}))
    public = {name: value for name, value in attributes.items() if not name.startswith("_")}
    return any(callable(value) and hasattr(type(one), name) for name, value in public.items())


def _is_of_openai(kind: type) -> bool:
    return kind.__module__.startswith("openai.")


def _without_retries(client: Client) -> Client:
    """Copy a client with the same connections and without retries, which are the endpoint's.

    Returns the client itself where a copy would lose what was patched onto it; with its own retries
    it counts as one attempt then.
    """
    if client.max_retries == 0 or is_patched(client):
        return client
    return client.with_options(max_retries=0)


async def _ask(client: AsyncOpenAI, body: dict[str, Any], request: ChatRequest) -> ChatReply:
    import httpx2  # noqa: PLC0415  # comes with openai, and is as heavy
    from openai import AsyncStream  # noqa: PLC0415  # likewise

    if request.on_delta is None:
        response = await client.post(
            PATH, cast_to=httpx2.Response, body=body, options={"follow_redirects": False}
        )
        return read_completion(response.content, request.chars)
    stream = await client.post(
        PATH,
        cast_to=object,
        body=body,
        options={"follow_redirects": False},
        stream=True,
        stream_cls=AsyncStream[object],
    )
    async with stream:
        reply = stream.response
        if "json" in reply.headers.get("content-type", ""):  # it does not stream
            whole = read_completion(await reply.aread(), request.chars)
            await request.on_delta(whole.text)
            return whole
        parts, events = ReplyParts(request.chars), EventStream()
        async for piece in reply.aiter_bytes():
            for text in parts.add_events(events.feed(piece)):
                await request.on_delta(text)
        for text in parts.add_events(events.end()):
            await request.on_delta(text)
        return parts.ended_reply(is_done=events.is_done)


def _ask_blocking(client: OpenAI, body: dict[str, Any], request: ChatRequest) -> ChatReply:
    import httpx2  # noqa: PLC0415  # comes with openai, and is as heavy
    from openai import Stream  # noqa: PLC0415  # likewise

    if request.on_delta is None:
        response = client.post(
            PATH, cast_to=httpx2.Response, body=body, options={"follow_redirects": False}
        )
        return read_completion(response.content, request.chars)
    with client.post(
        PATH,
        cast_to=object,
        body=body,
        options={"follow_redirects": False},
        stream=True,
        stream_cls=Stream[object],
    ) as stream:
        reply = stream.response
        if "json" in reply.headers.get("content-type", ""):
            whole = read_completion(reply.read(), request.chars)
            _hand_on(request.on_delta, whole.text)
            return whole
        parts, events = ReplyParts(request.chars), EventStream()
        for piece in reply.iter_bytes():
            # Raises once the caller was cancelled, so that no more is read than is wanted.
            anyio.from_thread.check_cancelled()
            for text in parts.add_events(events.feed(piece)):
                _hand_on(request.on_delta, text)
        for text in parts.add_events(events.end()):
            _hand_on(request.on_delta, text)
        return parts.ended_reply(is_done=events.is_done)


async def _ask_patched(
    client: AsyncOpenAI, body: dict[str, Any], request: ChatRequest
) -> ChatReply:
    create = cast("Any", client.chat.completions.create)  # typed by parameter; here are all
    answer = await create(**body)
    if request.on_delta is None:
        return read_decoded(_decoded(answer), request.chars)
    parts = ReplyParts(request.chars)
    async for chunk in cast("AsyncIterator[object]", answer):
        if text := parts.add_chunk(_decoded(chunk)):
            await request.on_delta(text)
    return parts.ended_reply()


def _ask_patched_blocking(client: OpenAI, body: dict[str, Any], request: ChatRequest) -> ChatReply:
    answer = cast("Any", client.chat.completions.create)(**body)
    if request.on_delta is None:
        return read_decoded(_decoded(answer), request.chars)
    parts = ReplyParts(request.chars)
    for chunk in cast("Iterator[object]", answer):
        anyio.from_thread.check_cancelled()
        if text := parts.add_chunk(_decoded(chunk)):
            _hand_on(request.on_delta, text)
    return parts.ended_reply()


def _hand_on(on_delta: OnDelta, text: str) -> None:
    """Call a listener from a thread, on the event loop."""

    async def call() -> None:
        await on_delta(text)

    anyio.from_thread.run(call)


def _decoded(answer: object) -> object:
    """Turn what `create` gave into what the JSON of it would be."""
    if isinstance(answer, str):  # what was no JSON
        return as_json(answer)
    dump = getattr(answer, "model_dump", None)
    return dump(exclude_unset=True, warnings=False) if callable(dump) else answer


@contextmanager
def _checking(client: OpenAI | AsyncOpenAI) -> Generator[None]:
    """Pass over failures that say nothing of address and key: not every server lists its models."""
    try:
        with _translated(client, {}):
            yield
    except AttemptFailedError as failure:
        error = failure.diagnosis.error
        if isinstance(error, (ModelConnectionError, ModelAuthenticationError)):
            raise error from error.__cause__


@contextmanager
def _translated(client: OpenAI | AsyncOpenAI, body: Mapping[str, Any]) -> Generator[None]:
    """Turn what the `openai` package raises into diagnoses.

    Raises:
        AttemptFailedError: the request failed.
        ConfigurationError: the client cannot send requests.
    """
    import httpx2  # noqa: PLC0415  # loaded by now
    import openai  # noqa: PLC0415  # likewise

    of_packages = (openai.OpenAIError, httpx2.HTTPError)
    try:
        yield
    except httpx2.InvalidURL:
        shown = without_credentials(str(client.base_url))
        raise ConfigurationError(
            f"The model client cannot be used: {shown!r} is not a web address."
        ) from None  # whose text quotes it
    except (*of_packages, TimeoutError, ModelReplyError, JSONDecodeError, UnicodeError) as error:
        # A key that is made on demand is known to the client once it was made.
        base_url = str(client.base_url)
        faults = Faults(base_url, (client.api_key, *passwords_in(base_url)))
        raise faults.failed(_meaning(faults, error, body), error) from None


def _meaning(faults: Faults, error: Exception, body: Mapping[str, Any]) -> Diagnosis:
    import httpx2  # noqa: PLC0415  # loaded by now
    import openai  # noqa: PLC0415  # likewise

    sent = optional_parts(body)
    if isinstance(error, openai.APIStatusError):
        reply = error.response
        headers = {name.lower(): value for name, value in reply.headers.items()}
        if reply.status_code in REDIRECTS and (place := place_of(str(reply.url), headers)):
            return faults.moved(place)
        told = error.body or reply.text
        return faults.refused(Refused(reply.status_code, told, headers, sent), body)
    if isinstance(error, (openai.APITimeoutError, TimeoutError)):
        return faults.late()
    if isinstance(error, (openai.APIConnectionError, httpx2.HTTPError)):
        why = error.__cause__ or error
        return faults.gone(why, was_there=not isinstance(why, httpx2.ConnectError))
    if isinstance(error, (openai.APIError, ErrorInReplyError)):
        return faults.refused(Refused(200, error.body or str(error), {}, sent), body)
    return faults.odd(error)
