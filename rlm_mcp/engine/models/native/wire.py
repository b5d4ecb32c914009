"""Sends requests in a provider's own words through the client of its own package.

The endpoint makes the body of a chat completion; a `Dialect` turns it into the provider's own and
reads what comes back. So pace, patience and what was refused are the same for every provider.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, Protocol, cast

import anyio
import anyio.to_thread

from rlm_mcp.engine.models.addresses import refuse_unusable
from rlm_mcp.engine.models.chat import ChatReply, ChatRequest
from rlm_mcp.engine.models.completions import ErrorInReplyError
from rlm_mcp.engine.models.diagnosis import Faults, passwords_in
from rlm_mcp.engine.models.event_stream import EventStream
from rlm_mcp.engine.models.http_provider import CHECK_SECONDS, Provider
from rlm_mcp.engine.models.refusals import Refused
from rlm_mcp.engine.models.retry import AttemptFailedError, Diagnosis
from rlm_mcp.errors import ModelAuthenticationError, ModelConnectionError, ModelReplyError

_NEVER_LEFT_OUT = frozenset({"model", "messages", "input", "system", "store"})
NO_KEY = "none"  # for servers that need none; without one, the packages look into the environment


class Reader(Protocol):
    """Reads one reply."""

    def read(self, data: object) -> ChatReply:
        """Read a whole reply.

        Raises:
            ErrorInReplyError: it is an error.
            ModelReplyError: it is not a reply.
        """
        ...

    def add(self, event: object) -> str:
        """Add one event of a stream; returns the text in it.

        Raises:
            ErrorInReplyError: it is an error.
        """
        ...

    def ended(self) -> ChatReply:
        """Make the reply of a stream that has ended.

        Raises:
            ModelReplyError: it broke off.
        """
        ...


@dataclass(frozen=True)
class Dialect:
    """How one provider is spoken to.

    Args:
        path: of its endpoint.
        body: turns the body of a chat completion into the provider's own.
        reader: makes what reads one reply, given the characters of the prompt.
        chat_name: gives the name in chat completions of a parameter of a body, by the provider's.
    """

    path: str
    body: Callable[[Mapping[str, Any]], dict[str, Any]]
    reader: Callable[[int], Reader]
    chat_name: Callable[[str, Mapping[str, Any]], str]


@dataclass(frozen=True)
class Package:
    """A provider's package: its module, which has the errors, and a client that is closed here."""

    module: ModuleType
    client: Any


class NativeWire:
    """Sends requests through a package's client; see `endpoint.Wire`.

    Args:
        provider: where it is.
        dialect: how it is spoken to.
        load: makes the client; called once, in a thread, since that takes long.
        attempt_seconds: one request may take this long.
    """

    def __init__(
        self,
        provider: Provider,
        dialect: Dialect,
        load: Callable[[Provider], Package],
        attempt_seconds: float,
    ) -> None:
        self._provider = provider
        self._dialect = dialect
        self._load = load
        self._attempt_seconds = attempt_seconds
        secrets = (provider.api_key, *provider.headers.values(), *passwords_in(provider.base_url))
        self._faults = Faults(provider.base_url, secrets)
        self._package: Package | None = None
        self._lock = anyio.Lock()

    async def send(self, body: dict[str, Any], request: ChatRequest) -> ChatReply:
        """Send one request once.

        Raises:
            AttemptFailedError: there is no reply.
            ConfigurationError: there can be none with these settings.
        """
        package = await self._loaded()
        own = self._dialect.body(body)
        with self._translated(package, own), anyio.fail_after(self._attempt_seconds):
            return await self._ask(package, own, request)

    async def check(self) -> list[str]:
        """Check that the provider is there and takes the key, by listing its models once."""
        package = await self._loaded()
        try:
            with self._translated(package, {}), anyio.fail_after(CHECK_SECONDS):
                return [model.id async for model in package.client.models.list()]
        except AttemptFailedError as failure:
            # Not every server lists its models: an answer of another kind is one too.
            error = failure.diagnosis.error
            if isinstance(error, (ModelConnectionError, ModelAuthenticationError)):
                raise error from error.__cause__
        return []

    async def close(self) -> None:
        """Close the connections."""
        if self._package is not None:
            await self._package.client.close()

    async def _loaded(self) -> Package:
        async with self._lock:
            if self._package is None:
                refuse_unusable(self._provider.base_url, self._provider.api_key)
                self._package = await anyio.to_thread.run_sync(self._load, self._provider)
            return self._package

    async def _ask(self, package: Package, body: dict[str, Any], request: ChatRequest) -> ChatReply:
        import httpx2  # noqa: PLC0415  # comes with the packages, and is as heavy

        post, path = package.client.post, self._dialect.path
        reader, options = self._dialect.reader(request.chars), {"follow_redirects": False}
        if request.on_delta is None:
            reply = await post(path, cast_to=httpx2.Response, body=body, options=options)
            return reader.read(json.loads(reply.content))
        stream_class = cast("Any", package.module).AsyncStream[object]
        stream = await post(
            path, cast_to=object, body=body, options=options, stream=True, stream_cls=stream_class
        )
        async with stream:
            if "json" in stream.response.headers.get("content-type", ""):  # it does not stream
                whole = reader.read(json.loads(await stream.response.aread()))
                await request.on_delta(whole.text)
                return whole
            events = EventStream()
            async for piece in stream.response.aiter_bytes():
                for event in events.feed(piece):
                    if text := reader.add(event):
                        await request.on_delta(text)
        return reader.ended()

    @contextmanager
    def _translated(self, package: Package, body: Mapping[str, Any]) -> Generator[None]:
        """Turn what the package raises into diagnoses; `body` is what was sent.

        Raises:
            AttemptFailedError: the request failed.
        """
        import httpx2  # noqa: PLC0415  # loaded by now

        module: Any = package.module
        of_packages = (module.APIError, httpx2.HTTPError)
        try:
            yield
        except (*of_packages, TimeoutError, ModelReplyError, ValueError) as error:
            raise self._faults.failed(self._meaning(module, error, body), error) from None

    def _meaning(self, module: Any, error: Exception, body: Mapping[str, Any]) -> Diagnosis:
        import httpx2  # noqa: PLC0415  # loaded by now

        if isinstance(error, module.APIStatusError):
            refused = self._faults.refused(_refused(error, body), body)
            return self._in_chat_names(refused, body)
        if isinstance(error, (module.APITimeoutError, TimeoutError)):
            return self._faults.late()
        if isinstance(error, (module.APIConnectionError, httpx2.HTTPError)):
            why = error.__cause__ or error
            return self._faults.gone(why, was_there=not isinstance(why, httpx2.ConnectError))
        if isinstance(error, ErrorInReplyError):
            return self._faults.refused(Refused(200, error.body, {}, ()), body)
        return self._faults.odd(error)

    def _in_chat_names(self, diagnosis: Diagnosis, body: Mapping[str, Any]) -> Diagnosis:
        name = diagnosis.refused_parameter
        if name is None:
            return diagnosis
        return replace(diagnosis, refused_parameter=self._dialect.chat_name(name, body))


def _refused(error: Any, body: Mapping[str, Any]) -> Refused:
    """Describe an error status; `error` is that of the package."""
    sent = tuple(name for name in body if name not in _NEVER_LEFT_OUT)
    headers = {name.lower(): value for name, value in error.response.headers.items()}
    return Refused(error.response.status_code, error.body or error.response.text, headers, sent)
