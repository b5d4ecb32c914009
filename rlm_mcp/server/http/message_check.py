"""Reads the messages that clients POST as those over stdio are read, before the SDK does.

The SDK refuses every message with half of a surrogate pair in it, which programs write that cut a
text in the middle of a character, takes a request whose id is no id for a notification, and says
of a message that is too large neither the limit nor another way.
"""

from __future__ import annotations

from mcp.server.transport_security import DEFAULT_MAX_REQUEST_BODY_SIZE as MAX_MESSAGE_BYTES
from mcp_types import JSONRPCError
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rlm_mcp.server.messages import (
    has_escaped_halves,
    parse_message,
    refusal,
    refusal_of_long,
)
from rlm_mcp.server.results import JSON

_BEGIN_BYTES = 1000
_MOST = f"{MAX_MESSAGE_BYTES:,} bytes"
_INSTEAD = (
    "Send a text with `PUT /contexts/NAME` or to the URL that rlm_context_upload_url gives, or in "
    "parts: with final=false, then its upload_id."
)


class MessageCheck:
    """Answers POST requests that hold no message, and passes on all others.

    Args:
        path: where messages are sent.
    """

    def __init__(self, app: ASGIApp, path: str) -> None:
        self._app = app
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if (scope["method"], scope["path"]) != ("POST", self._path):
            await self._app(scope, receive, send)
            return
        body = await _body(Request(scope, receive))
        if isinstance(body, Response):
            await body(scope, receive, send)
            return
        headers = MutableHeaders(raw=[*scope["headers"]])
        if "transfer-encoding" not in headers:
            headers["content-length"] = str(len(body))
        await self._app({**scope, "headers": headers.raw}, _again(body, receive), send)


async def _body(request: Request) -> bytes | Response:
    """Read the body as the SDK can read it too, or return the answer to it."""
    size = request.headers.get("content-length", "")
    if size.isascii() and size.isdigit() and int(size) > MAX_MESSAGE_BYTES:
        return _too_large(b"")
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_MESSAGE_BYTES:
            return _too_large(bytes(body[:_BEGIN_BYTES]))
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return bytes(body)  # which the SDK refuses with the place
    try:
        message = parse_message(text)
    except (ValueError, RecursionError):
        return _answer(400, refusal(text))
    if not has_escaped_halves(text):
        return bytes(body)
    return message.model_dump_json(by_alias=True, exclude_unset=True).encode()


def _too_large(begin: bytes) -> Response:
    error = refusal_of_long(begin.decode("utf-8", "replace"), "", _MOST, _INSTEAD)
    return _answer(413, error)


def _answer(status: int, error: JSONRPCError) -> Response:
    return Response(error.model_dump_json(exclude_unset=True), status, media_type=JSON)


def _again(body: bytes, receive: Receive) -> Receive:
    """Give a body that was read once more, then what comes after it."""
    read: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def give() -> Message:
        return read.pop() if read else await receive()

    return give
