"""A provider of OpenAI-compatible models, asked over HTTP without a client library in between.

What the `openai` package does for one small call costs twice as much as the call itself (measured
with openai 3.54: 3.1 ms of CPU against 1.6), so it is left to those who hand in a client of theirs.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from ssl import SSLContext
from typing import TYPE_CHECKING, Any, cast

import anyio
import anyio.to_thread

from rlm_mcp.engine.chat import ChatReply, ChatRequest, OnDelta
from rlm_mcp.engine.completion import ReplyParts, diagnose_status, read_completion
from rlm_mcp.engine.retry import AttemptFailedError, Diagnosis, parse_retry_after
from rlm_mcp.errors import (
    ConfigurationError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelReplyError,
)

if TYPE_CHECKING:
    from httpx2 import AsyncClient, Response

OPENAI_BASE_URL = "https://api.openai.com/v1"
CHECK_SECONDS = 3.0
CONNECT_SECONDS = 5.0
_FIX = "Set RLM_MCP_BASE_URL (or OPENAI_BASE_URL), and see that the server runs."


@dataclass(frozen=True)
class Provider:
    """Where models are: an OpenAI-compatible base URL and a key (none for most local servers)."""

    base_url: str = OPENAI_BASE_URL
    api_key: str = field(default="", repr=False)


def refuse_unusable(base_url: str, api_key: str) -> None:
    """Refuse what no request can be made of.

    Raises:
        ConfigurationError: the address or the key is none.
    """
    if not all("!" <= character <= "~" for character in api_key):
        # Refused here, since an error of the HTTP library would quote the header it cannot send.
        raise ConfigurationError(
            "The API key holds characters that no key has.", fix="Copy it again from the provider."
        )
    if not base_url.startswith(("http://", "https://")):
        raise ConfigurationError(
            f"The base URL {without_credentials(base_url)!r} is no address.",
            fix="Set RLM_MCP_BASE_URL to one that begins with http:// or https://.",
        )


@dataclass(frozen=True)
class Faults:
    """Makes diagnoses of what went wrong on the way to an endpoint; the key is in none of them."""

    base_url: str
    secret: str

    @property
    def _at(self) -> str:
        return f"the model endpoint at {without_credentials(self.base_url)!r}"

    def late(self) -> Diagnosis:
        """There was no answer in time."""
        return Diagnosis(
            ModelConnectionError(f"No answer in time from {self._at}.", fix=_FIX), "yes"
        )

    def gone(self, why: BaseException) -> Diagnosis:
        """There is no connection, or none any more."""
        error = ModelConnectionError(f"No connection to {self._at}: {why!r}.", fix=_FIX)
        return Diagnosis(error, "briefly" if "Connect" in type(why).__name__ else "yes")

    def odd(self, why: Exception) -> Diagnosis:
        """What came is no completion."""
        return Diagnosis(ModelReplyError(f"From {self._at}: {why}"), "yes")

    def failed(self, diagnosis: Diagnosis, cause: BaseException | None) -> AttemptFailedError:
        """Make the error of one attempt, from which the key was taken out."""
        error = diagnosis.error
        if self.secret and self.secret in error.message:
            error.message = error.message.replace(self.secret, "***")
            error.args = (error.message,)
        # The library's own text may quote the key, so it is not shown below ours.
        hides = self.secret and cause and self.secret in f"{cause} {cause.__cause__}"
        error.__cause__ = None if hides else cause
        return AttemptFailedError(diagnosis)


def without_credentials(address: str) -> str:
    """Leave out of an address what may be secret."""
    scheme, separator, rest = address.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2].partition('?')[0]}"


class ProviderWire:
    """Sends requests to one provider; see `endpoint.Wire`.

    Each request has a connection to itself, and a pool of one: a pool of many looks through all of
    its connections and waiting requests for every request. The connection used last is used next.
    """

    def __init__(self, provider: Provider, attempt_seconds: float) -> None:
        self._provider = provider
        self._attempt_seconds = attempt_seconds
        self._faults = Faults(provider.base_url, provider.api_key)
        self._idle: list[AsyncClient] = []
        self._tls: SSLContext | None = None
        self._lock = anyio.Lock()

    async def send(self, body: dict[str, Any], request: ChatRequest) -> ChatReply:
        """Send one request once.

        Raises:
            AttemptFailedError: there is no reply.
            ConfigurationError: there can be none with these settings.
        """
        async with self._lane() as client:
            with self._translated(), anyio.fail_after(self._attempt_seconds):
                async with client.stream("POST", self._url("chat/completions"), json=body) as reply:
                    await self._refuse_error(reply, body)
                    if request.on_delta is None or _is_json(reply):
                        return await _read_whole(reply, request)
                    return await _read_stream(reply, request)

    async def check(self) -> None:
        """See that the provider is there and takes the key, by asking for its models once."""
        try:
            async with self._lane() as client:
                with self._translated(), anyio.fail_after(CHECK_SECONDS):
                    async with client.stream("GET", self._url("models")) as reply:
                        await self._refuse_error(reply, {})
        except AttemptFailedError as failure:
            # Not every server lists its models: an answer of another kind is one too.
            error = failure.diagnosis.error
            if isinstance(error, (ModelConnectionError, ModelAuthenticationError)):
                raise error from error.__cause__

    async def close(self) -> None:
        """Close the connections."""
        while self._idle:
            await self._idle.pop().aclose()

    def _url(self, path: str) -> str:
        base, question, query = self._provider.base_url.partition("?")
        return f"{base.rstrip('/')}/{path}{question}{query}"

    @asynccontextmanager
    async def _lane(self) -> AsyncGenerator[AsyncClient]:
        client = self._idle.pop() if self._idle else await self._new_lane()
        try:
            yield client
        finally:
            self._idle.append(client)

    async def _new_lane(self) -> AsyncClient:
        async with self._lock:
            if self._tls is None:
                refuse_unusable(self._provider.base_url, self._provider.api_key)
                # The import and the reading of certificates take their time: not on the event loop.
                self._tls = await anyio.to_thread.run_sync(_make_tls)
        import httpx2  # noqa: PLC0415  # loaded by now

        key = self._provider.api_key
        return httpx2.AsyncClient(
            verify=self._tls,
            headers={"Authorization": f"Bearer {key}"} if key else None,
            limits=httpx2.Limits(max_connections=1, max_keepalive_connections=1),
            timeout=httpx2.Timeout(None, connect=CONNECT_SECONDS),
            follow_redirects=True,
        )

    async def _refuse_error(self, reply: Response, body: Mapping[str, Any]) -> None:
        if reply.status_code < 400:
            return
        text = (await reply.aread()).decode("utf-8", "replace")
        wait = parse_retry_after(reply.headers.get("retry-after"))
        optional = tuple(name for name in body if name not in {"model", "messages", "stream"})
        diagnosis = diagnose_status(reply.status_code, _as_json(text), wait, optional)
        raise self._faults.failed(diagnosis, None)

    @contextmanager
    def _translated(self) -> Generator[None]:
        """Turn what the HTTP library raises into diagnoses.

        Raises:
            AttemptFailedError: the request failed.
            ConfigurationError: the address is none.
        """
        import httpx2  # noqa: PLC0415  # loaded by now

        faults = self._faults
        try:
            yield
        except (httpx2.TimeoutException, TimeoutError) as error:
            raise faults.failed(faults.late(), error) from None
        except httpx2.HTTPError as error:
            raise faults.failed(faults.gone(error), error) from None
        except httpx2.InvalidURL as error:
            raise ConfigurationError(f"The base URL cannot be used: {error}") from error
        except (ModelReplyError, UnicodeError) as error:
            raise faults.failed(faults.odd(error), error) from None


def _make_tls() -> SSLContext:
    import httpx2  # noqa: PLC0415  # heavy: see _new_lane()

    return httpx2.create_ssl_context()


async def _read_whole(reply: Response, request: ChatRequest) -> ChatReply:
    completion = read_completion(await reply.aread(), request.chars)
    if request.on_delta is not None:  # the server does not stream
        await request.on_delta(completion.text)
    return completion


async def _read_stream(reply: Response, request: ChatRequest) -> ChatReply:
    parts = ReplyParts(request.chars)
    on_delta = cast("OnDelta", request.on_delta)
    async for data in _events(reply):
        if text := parts.add_chunk(_chunk(data)):
            await on_delta(text)
    if not parts.is_ended:
        raise ModelReplyError("The stream ended without a finish reason.")
    return parts.reply()


async def _events(reply: Response) -> AsyncIterator[str]:
    """Read server-sent events until the provider says that it is done (WHATWG HTML, 9.2.6)."""
    data: list[str] = []
    async for line in reply.aiter_lines():
        if line.startswith("data:"):
            data.append(line.removeprefix("data:").removeprefix(" "))
        elif not line and data:
            event, data = "\n".join(data), []
            if event.startswith("[DONE]"):
                return
            yield event
    if data and data != ["[DONE]"]:
        yield "\n".join(data)


def _chunk(data: str) -> object:
    chunk = _as_json(data)
    if isinstance(chunk, str):
        raise ModelReplyError(f"The stream holds what is not JSON: {data[:200]!r}.")
    if isinstance(chunk, Mapping):
        problem = cast("Mapping[str, object]", chunk).get("error")
        if problem:
            raise ModelReplyError(f"The stream holds an error: {json.dumps(problem)[:500]}.")
    return cast("object", chunk)


def _is_json(reply: Response) -> bool:
    return "json" in reply.headers.get("content-type", "")


def _as_json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
