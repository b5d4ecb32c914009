"""A provider of OpenAI-compatible models, asked over HTTP without a client library in between.

A sub-call is small and there are hundreds at once, so what a request costs is what a batch takes.
Measured per call in one run: aiohttp 0.2 ms of CPU, httpx2 0.9 to 1.1, the `openai` package 1.9 to
2.6. So the package is left to those whose client does more than send requests.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import anyio
import anyio.to_thread

from rlm_mcp.engine.models.addresses import (
    MOST_REDIRECTS,
    REDIRECTS,
    base_of,
    cleaned,
    is_azure,
    is_same_host,
    join,
    other_bases,
    place_of,
    refuse_unusable,
    unusable,
)
from rlm_mcp.engine.models.chat import ChatReply, ChatRequest, OnDelta
from rlm_mcp.engine.models.completions import (
    ErrorInReplyError,
    ReplyParts,
    as_json,
    read_completion,
    read_model_names,
)
from rlm_mcp.engine.models.diagnosis import Faults, passwords_in
from rlm_mcp.engine.models.endpoint import optional_parts
from rlm_mcp.engine.models.event_stream import Events, EventStream
from rlm_mcp.engine.models.http_session import HttpOptions, HttpRoute, find_route, open_session
from rlm_mcp.engine.models.refusals import PATH_FIX, Refused
from rlm_mcp.engine.models.retry import AttemptFailedError
from rlm_mcp.errors import (
    ModelAuthenticationError,
    ModelConnectionError,
    ModelReplyError,
)
from rlm_mcp.text import without_credentials

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession
    from yarl import URL


OPENAI_BASE_URL = "https://api.openai.com/v1"
CHECK_SECONDS = 3.0
MAX_REPLY_BYTES = 32 << 20  # a hundred times what the longest replies of models take
MAX_ERROR_BYTES = 64 << 10
MAX_LIST_BYTES = 8 << 20
_JWT_START = "eyJ"  # of an access token of Azure's directory, which goes where tokens go
PARSED_AT_ONCE_BYTES = 256 << 10  # larger bodies are parsed in a thread


@dataclass(frozen=True)
class Provider:
    """Where models are: an OpenAI-compatible base URL and a key (none for most local servers).

    `headers` are sent with each request beside those that the key makes.
    """

    base_url: str = OPENAI_BASE_URL
    api_key: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "base_url", cleaned(self.base_url))


class ProviderWire:
    """Sends requests to one provider; see `endpoint.Wire`.

    There are as many connections as calls at once, which the caller limits; idle ones are kept.

    Args:
        provider: where it is.
        attempt_seconds: one request may take this long.
        find_options: says how requests are sent; called once, in a thread.
    """

    path = "chat/completions"
    read_body = staticmethod(read_completion)
    events: Callable[[], Events] = EventStream

    def __init__(
        self,
        provider: Provider,
        attempt_seconds: float,
        find_options: Callable[[], HttpOptions] = HttpOptions,
    ) -> None:
        self._provider = provider
        self._attempt_seconds = attempt_seconds
        self._find_options = find_options
        self._base = base_of(provider.base_url)
        self._is_base_known = False
        self._urls: dict[str, URL] = {}
        secrets = (
            provider.api_key,
            *provider.headers.values(),
            *passwords_in(provider.base_url),
        )
        self._faults = Faults(provider.base_url, secrets)
        self._session: ClientSession | None = None
        self._lock = anyio.Lock()

    async def send(self, body: dict[str, Any], request: ChatRequest) -> ChatReply:
        """Send one request once, at first to each address that may be meant.

        Raises:
            AttemptFailedError: there is no reply.
            ConfigurationError: there can be none with these settings.
        """
        try:
            reply = await self._send(self._base, body, request)
        except AttemptFailedError as failure:
            if not failure.diagnosis.is_elsewhere or self._is_base_known:
                raise
            return await self._send_elsewhere(failure, body, request)
        self._is_base_known = True
        return reply

    async def _send_elsewhere(
        self, failure: AttemptFailedError, body: dict[str, Any], request: ChatRequest
    ) -> ChatReply:
        for base in other_bases(self._base):
            try:
                reply = await self._send(base, body, request)
            except AttemptFailedError as other:
                if other.diagnosis.is_elsewhere:
                    continue
                self._base, self._is_base_known = base, True
                raise
            self._base, self._is_base_known = base, True
            return reply
        raise failure

    async def _send(self, base: str, body: dict[str, Any], request: ChatRequest) -> ChatReply:
        session = self._session or await self._open()
        data = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
        url = self._urls.get(base) or self._urls.setdefault(
            base, self._url(join(self.base_for_requests(base), self.path))
        )
        with self._translated(body), anyio.fail_after(self._attempt_seconds):
            async with self._requested(session, "POST", url, data) as reply:
                odd = await self._refuse(reply, body, asked=url)
                if odd is not None:
                    return self.read_body(odd, request.chars)
                if request.on_delta is None or _holds(reply, "/json"):
                    return await self._read_whole(reply, request)
                return await self._read_stream(reply, request)

    async def check(self) -> list[str]:
        """See that the provider is there and takes the key, by asking for its models once."""
        session = self._session or await self._open()
        try:
            with self._translated({}), anyio.fail_after(CHECK_SECONDS):
                url = self._url(join(self._base, "models"))
                async with self._requested(session, "GET", url) as reply:
                    await self._refuse(reply, {}, asked=url)
                    return read_model_names(await _read_some(reply, MAX_LIST_BYTES))
        except AttemptFailedError as failure:
            # Not every server lists its models: an answer of another kind is one too.
            error = failure.diagnosis.error
            if isinstance(error, (ModelConnectionError, ModelAuthenticationError)):
                raise error from error.__cause__
        return []

    async def look(self, address: str, body: Mapping[str, Any] | None = None, /) -> object:
        """Ask for JSON at an address of this server; returns None where there is none.

        Raises:
            AttemptFailedError: nothing answers, or the server is not ready.
        """
        session, url = self._session or await self._open(), self._url(address)
        data = None if body is None else json.dumps(body).encode()
        with self._translated({}), anyio.fail_after(CHECK_SECONDS):
            async with self._requested(session, "POST" if data else "GET", url, data) as reply:
                if reply.status in {502, 503, 504}:  # not ready
                    await self._refuse(reply, {}, asked=url)
                text = (await _read_some(reply, MAX_LIST_BYTES)).decode("utf-8", "replace")
                return as_json(text) if reply.status < 400 else None

    def base_for_requests(self, base: str) -> str:
        """Return the address below which requests are sent."""
        return base

    def _url(self, address: str) -> URL:
        import yarl  # noqa: PLC0415  # loaded by now

        try:
            return yarl.URL(address)
        except ValueError:
            raise unusable(self._provider.base_url) from None  # whose text quotes the address

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def _open(self) -> ClientSession:
        async with self._lock:
            if self._session is None:
                refuse_unusable(self._provider.base_url, self._provider.api_key)
                # An import, certificates, settings of the system: not on the event loop.
                route = await anyio.to_thread.run_sync(self._find_route)
                self._session = open_session(route)
        return self._session

    def _find_route(self) -> HttpRoute:
        options = self._find_options()
        if options.headers is None:
            options = replace(options, headers=self._headers())
        return find_route(self._provider.base_url, options)

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "User-Agent": "rlm-mcp"}
        key, address = self._provider.api_key, self._provider.base_url
        if key and is_azure(address) and not key.startswith(_JWT_START):
            headers["api-key"] = key
        # A name and a password in the address make a header of the same name.
        elif key and "@" not in urlsplit(address).netloc:
            headers["Authorization"] = f"Bearer {key}"
        return {**headers, **self._provider.headers}

    @asynccontextmanager
    async def _requested(
        self, session: ClientSession, method: str, url: URL, data: bytes | None = None
    ) -> AsyncGenerator[ClientResponse]:
        """Send a request; where it is redirected on the same host, send it there as it is.

        Raises:
            AttemptFailedError: it is redirected to another host, which must not get the prompt.
        """
        for _ in range(MOST_REDIRECTS):
            async with session.request(method, url, data=data, allow_redirects=False) as reply:
                place = place_of(str(url), reply.headers) if reply.status in REDIRECTS else ""
                if not place:
                    yield reply
                    return
            if not is_same_host(str(url), place):
                raise self._faults.failed(self._faults.moved(place), None)
            url = self._url(place)
        raise self._faults.failed(self._faults.moved(str(url)), None)

    async def _refuse(
        self, reply: ClientResponse, body: Mapping[str, Any], *, asked: URL
    ) -> bytes | None:
        """Refuse errors and web pages; returns a reply that calls itself a web page.

        Raises:
            AttemptFailedError: it is not a reply.
        """
        if reply.status >= 400:
            text = (await _read_some(reply, MAX_ERROR_BYTES)).decode("utf-8", "replace")
            headers = {name.lower(): value for name, value in reply.headers.items()}
            refused = Refused(reply.status, as_json(text), headers, optional_parts(body))
            diagnosis = self._faults.refused(refused, body)
            if reply.url != asked:
                diagnosis.error.fix = f"The request was redirected to {_place(reply)!r}: set that."
            raise self._faults.failed(diagnosis, None)
        if _holds(reply, "text/html"):
            read = await _read_some(reply, MAX_REPLY_BYTES)
            if read.lstrip().startswith((b"{", b"data:")):
                return read
            text = read.decode("utf-8", "replace")
            page = ModelReplyError(f"{_place(reply)!r} is a web page, not a model: {text[:200]!r}.")
            diagnosis = replace(self._faults.odd(page, lasts=True, fix=PATH_FIX), is_elsewhere=True)
            raise self._faults.failed(diagnosis, None)
        return None

    async def _read_whole(
        self, reply: ClientResponse, request: ChatRequest, begun: bytes = b""
    ) -> ChatReply:
        body = bytearray(begun)
        async for piece in reply.content.iter_any():
            body += piece
            self._refuse_endless(len(body))
        if len(body) <= PARSED_AT_ONCE_BYTES:
            completion = self.read_body(body, request.chars)
        else:
            completion = await anyio.to_thread.run_sync(self.read_body, body, request.chars)
        if request.on_delta is not None:  # the server does not stream
            await request.on_delta(completion.text)
        return completion

    async def _read_stream(self, reply: ClientResponse, request: ChatRequest) -> ChatReply:
        parts, events, size = ReplyParts(request.chars), self.events(), 0
        on_delta = cast("OnDelta", request.on_delta)
        may_be_whole = isinstance(events, EventStream)  # others have JSON in their lines
        async for piece in reply.content.iter_any():
            if may_be_whole and not size and piece.lstrip()[:1] in {b"{", b"["}:  # no events
                return await self._read_whole(reply, request, piece)
            size += len(piece)
            self._refuse_endless(size)
            for text in parts.add_events(events.feed(piece)):
                await on_delta(text)
            if events.is_done:
                break
        for text in parts.add_events(events.end()):
            await on_delta(text)
        return parts.ended_reply(is_done=events.is_done)

    def _refuse_endless(self, size: int) -> None:
        if size > MAX_REPLY_BYTES:
            endless = ModelReplyError(f"The reply is longer than {MAX_REPLY_BYTES:,} bytes.")
            raise self._faults.failed(self._faults.odd(endless, lasts=True), None)

    @contextmanager
    def _translated(self, body: Mapping[str, Any]) -> Generator[None]:
        """Turn what the HTTP library raises into diagnoses; `body` is what was sent.

        Raises:
            AttemptFailedError: the request failed.
            ConfigurationError: the address is none.
        """
        import aiohttp  # noqa: PLC0415  # loaded by now

        faults = self._faults
        try:
            yield
        except TimeoutError as error:
            raise faults.failed(faults.late(), error) from None
        except ErrorInReplyError as error:
            refused = Refused(200, error.body, {}, optional_parts(body))
            raise faults.failed(faults.refused(refused, body), error) from None
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
            raise unusable(self._provider.base_url) from None  # whose text quotes the address
        except aiohttp.ClientConnectorError as error:
            raise faults.failed(faults.gone(error, was_there=False), error) from None
        except (aiohttp.ClientResponseError, ModelReplyError, UnicodeError) as error:
            raise faults.failed(faults.odd(error), error) from None
        except (aiohttp.ClientError, OSError) as error:
            was_idle = isinstance(error, aiohttp.ServerDisconnectedError)
            raise faults.failed(faults.gone(error, was_idle=was_idle), error) from None


async def _read_some(reply: ClientResponse, size: int) -> bytes:
    read = bytearray()
    async for piece in reply.content.iter_any():
        read += piece
        if len(read) > size:
            break
    return bytes(read[:size])


def _holds(reply: ClientResponse, kind: str) -> bool:
    return kind in reply.headers.get("content-type", "").lower()


def _place(reply: ClientResponse) -> str:
    return without_credentials(str(reply.url))
