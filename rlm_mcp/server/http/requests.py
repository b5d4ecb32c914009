"""Requests in progress: each must send its body in time, and all end when the server stops."""

from __future__ import annotations

import logging

import anyio
import anyio.lowlevel
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rlm_mcp.server.http.answers import refusal
from rlm_mcp.server.http.timeouts import Patience

log = logging.getLogger(__name__)


class Exchanges:
    """Passes requests on, and tracks them until they are answered."""

    def __init__(self, app: ASGIApp, patience: Patience) -> None:
        self._app = app
        self._patience = patience
        self._working: set[_Exchange] = set()
        self._idle = anyio.Event()
        self._is_closed = False
        self._stopping = anyio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        # For answers that would never end by themselves.
        scope.setdefault("state", {})["stopping"] = self._stopping
        exchange = _Exchange(scope, receive, send, self._patience)
        if self._is_closed:
            await exchange.answer(_stopping())
            return
        self._working.add(exchange)
        try:
            await exchange.run(self._app)
        finally:
            self._working.discard(exchange)
            if not self._working:
                self._idle.set()

    async def close(self) -> None:
        """Refuse new requests, and end those that have no answer in time."""
        self.refuse()
        self._stopping.set()
        if not self._working:
            return
        self._idle = anyio.Event()
        with anyio.move_on_after(self._patience.answers):
            await self._idle.wait()
        for exchange in self._working:
            exchange.scope.cancel()

    def refuse(self) -> None:
        """Refuse new requests."""
        self._is_closed = True


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, patience: Patience) -> None:
        headers = Headers(scope=scope)
        self.scope = anyio.CancelScope()
        self._request = scope
        self._receive = receive
        self._send = send
        self._patience = patience
        self._waited = 0.0
        self._received = 0
        self._is_body_due = "transfer-encoding" in headers or _length(headers) != 0
        self._is_too_slow = False
        self._is_gone = False
        self._is_started = False
        # Two statements of where the body ends: a proxy may have used the other one.
        self._is_ambiguous = "transfer-encoding" in headers and "content-length" in headers

    async def run(self, app: ASGIApp) -> None:
        """Let the application answer the request."""
        if self._is_ambiguous:
            await self.answer(Response("Content-Length and Transfer-Encoding", 400))
            return
        try:
            with self.scope:
                await app(self._request, self.receive, self.send)
        except ClientDisconnect:
            return
        if self.scope.cancelled_caught and not (self._is_started or self._is_gone):
            await self.answer(_too_slow() if self._is_too_slow else _stopping())

    async def answer(self, response: Response) -> None:
        """Answer without the application."""
        await response(self._request, self._receive, self.send)

    async def receive(self) -> Message:
        """Return more of the body, if it arrives fast enough."""
        if not self._is_body_due:
            return await self._receive()
        started = anyio.current_time()
        due = self._patience.body + self._received / self._patience.body_bytes
        with anyio.move_on_after(due - self._waited):
            message = await self._receive()
            if message["type"] == "http.disconnect":
                # Ended here, because the application would report it as a defect of its own.
                log.warning(
                    "%s: the client closed the connection before it had sent everything",
                    self._request["method"],
                )
                self._is_gone = True
                await self._end()
            self._waited += anyio.current_time() - started
            self._received += len(message.get("body", b""))
            self._is_body_due = message["type"] == "http.request" and message["more_body"]
            return message
        self._is_too_slow = True
        await self._end()
        raise ClientDisconnect  # not reached

    async def _end(self) -> None:
        """End the request at once, whatever the application is doing; does not return."""
        self.scope.cancel()
        await anyio.lowlevel.checkpoint()

    async def send(self, message: Message) -> None:
        """Send on; when an answer comes before the whole body did, nothing may follow it."""
        if message["type"] == "http.response.start":
            self._is_started = True
            if self._is_body_due:
                headers = [*message.get("headers", []), (b"connection", b"close")]
                message = {**message, "headers": headers}
        elif self._is_body_due and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await self._discard_body()
            message = {"type": "http.response.body"}
        await self._send(message)

    async def _discard_body(self) -> None:
        """Read on for a moment: many clients see no answer before they have sent all they have.

        Closing with unread data resets the connection and loses the answer.
        """
        with anyio.move_on_after(0 if self._is_too_slow else self._patience.rest):
            while self._is_body_due:
                message = await self._receive()
                self._is_body_due = message["type"] == "http.request" and message["more_body"]


def _length(headers: Headers) -> int:
    text = headers.get("content-length", "0")
    return int(text) if text.isascii() and text.isdigit() else 0


def _too_slow() -> Response:
    return refusal(408, "The body came too slowly.", fix="Send it again, without pauses.")


def _stopping() -> Response:
    return refusal(
        503, "The server is stopping.", fix="Try again in a moment.", headers={"retry-after": "5"}
    )
