"""An OpenAI-compatible endpoint that answers by a script, over real HTTP on loopback.

Tests, benchmarks and the demo talk to it as to any provider. It speaks HTTP/1.1 on a plain socket,
since a server framework hides what must be shown here: connections cut before the headers or in
mid-body, and the moment at which a client hangs up.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import anyio
from anyio.abc import SocketAttribute, SocketStream

from rlm_mcp.testing.scripted_native import (
    messages_body,
    messages_events,
    responses_body,
    responses_events,
)
from rlm_mcp.testing.scripted_replies import (
    Answer,
    ChatRequestView,
    Fault,
    Reply,
    Script,
    as_function,
    by_model,
    completion,
    context_too_long,
    cut_connection,
    empty_choices,
    malformed,
    no_answer,
    rate_limited,
    rejected,
    rejected_parameter,
    server_error,
    stream_events,
    unauthorized,
)

__all__ = [
    "Answer",
    "ChatRequestView",
    "Fault",
    "Reply",
    "Script",
    "ScriptedModel",
    "by_model",
    "context_too_long",
    "cut_connection",
    "empty_choices",
    "malformed",
    "no_answer",
    "open_scripted_model",
    "rate_limited",
    "rejected",
    "rejected_parameter",
    "server_error",
    "unauthorized",
]

PageAnswer = str | Mapping[str, Any] | Fault
Page = PageAnswer | Callable[[Any], PageAnswer]
MAX_HEAD_BYTES = 64 * 1024
# By the end of a path, how a reply is written there: whole, and as events.
_WORDS = {
    "/chat/completions": (completion, stream_events),
    "/v1/messages": (messages_body, messages_events),
    "/responses": (responses_body, responses_events),
}


@asynccontextmanager
async def open_scripted_model(
    reply: Script, *, keep: int = 100_000
) -> AsyncGenerator[ScriptedModel]:
    """Serve on a free port of 127.0.0.1 until the block is left.

    Args:
        reply: a function of the request, replies to be used in order, or one text for all.
        keep: how many of the latest requests are recorded.
    """
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(SocketAttribute.local_port)  # noqa: S610  # no Django here
        model = ScriptedModel(f"http://127.0.0.1:{port}/v1", as_function(reply), keep)
        failure: Exception | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(listener.serve, model.serve_connection)
            try:
                yield model
            except Exception as error:  # noqa: BLE001  # raised again below, outside the group
                failure = error
            group.cancel_scope.cancel()
        if failure is not None:
            raise failure


class ScriptedModel:
    """The running endpoint: what it was asked, and how much at once."""

    def __init__(
        self, base_url: str, script: Callable[[ChatRequestView], Answer], keep: int
    ) -> None:
        self.base_url = base_url
        self.model_names: list[str] = []
        """What it lists when asked for its models."""
        self.pages: dict[str, Page] = {}
        """What it answers at further paths: JSON, or a function of the JSON that it was sent."""
        self.asked: list[tuple[str, Any]] = []
        """The paths of those that it was asked for, each with the JSON that was sent."""
        self.requests: deque[ChatRequestView] = deque(maxlen=keep)
        self.received = 0
        self.connections = 0
        self.in_flight = 0
        self.most_in_flight = 0
        self.hung_up = 0
        """Requests whose client closed the connection before it had the whole reply."""
        self._script = script
        self._changed = anyio.Event()

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until `is_so()`, asked after every change; the caller bounds the wait."""
        while not is_so():
            await self._changed.wait()

    async def serve_connection(self, stream: SocketStream) -> None:
        """Answer the requests of one connection, one after another."""
        self.connections += 1
        try:
            await self._converse(stream)
        finally:
            self.connections -= 1
            self._tell()

    async def _converse(self, stream: SocketStream) -> None:
        async with stream:
            connection = _Connection(stream)
            while (request := await connection.read_request()) is not None:
                try:
                    is_kept = await self._handle(connection, request)
                except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                    return  # the client left while we wrote
                if not is_kept:
                    return

    async def _handle(self, connection: _Connection, request: _HttpRequest) -> bool:
        if request.path in self.pages:
            await connection.send(self._page(request))
            return True
        if request.method == "GET" and request.path.endswith("/models"):
            listed = [{"id": name, "object": "model"} for name in self.model_names]
            await connection.send(_whole(200, {"object": "list", "data": listed}))
            return True
        if not _place(request.path).endswith(tuple(_WORDS)):
            await connection.send(_whole(404, {"error": {"message": f"No {request.path!r} here."}}))
            return True
        try:
            body = json.loads(request.body)
        except ValueError:
            await connection.send(_whole(400, {"error": {"message": "The body is not JSON."}}))
            return True
        return await self._answer(connection, self._record(request, body))

    def _page(self, request: _HttpRequest) -> bytes:
        sent = json.loads(request.body or b"null")
        self.asked.append((request.path, sent))
        page = self.pages[request.path]
        answer = page(sent) if callable(page) else page
        if isinstance(answer, Fault):
            return _whole(answer.status, answer.body, answer.headers)
        return _whole(200, answer)

    def _record(self, request: _HttpRequest, body: dict[str, Any]) -> ChatRequestView:
        self.received += 1
        view = ChatRequestView(
            messages=tuple(body.pop("messages", None) or body.pop("input", ())),
            model=str(body.pop("model", "")),
            params=body,
            at=anyio.current_time(),
            headers=request.headers,
            number=self.received,
            path=_place(request.path),
        )
        self.requests.append(view)
        return view

    async def _answer(self, connection: _Connection, request: ChatRequestView) -> bool:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self._tell()
        is_answered = is_kept = False
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(connection.cancel_when_closed, group.cancel_scope)
                # In here, since outside it would come as a group: the client left while we wrote.
                with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                    is_kept = await _send_answer(connection, request, self._script(request))
                    is_answered = True
                group.cancel_scope.cancel()
        finally:
            self.in_flight -= 1
            self.hung_up += not is_answered
            self._tell()
        return is_kept

    def _tell(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()


@dataclass(frozen=True)
class _HttpRequest:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class _Connection:
    """One client's socket, with what was read from it ahead of time."""

    def __init__(self, stream: SocketStream) -> None:
        self._stream = stream
        self._pending = bytearray()

    async def send(self, data: bytes) -> None:
        await self._stream.send(data)

    async def read_request(self) -> _HttpRequest | None:
        """Read one request; None when the client has no more."""
        while (end := self._pending.find(b"\r\n\r\n")) < 0:
            if len(self._pending) > MAX_HEAD_BYTES or not await self._fill():
                return None
        first, *lines = bytes(self._pending[:end]).decode("latin-1").split("\r\n")
        del self._pending[: end + 4]
        pairs = (line.partition(":") for line in lines)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        length = int(headers.get("content-length", "0"))
        while len(self._pending) < length:
            if not await self._fill():
                return None
        body = bytes(self._pending[:length])
        del self._pending[:length]
        method, path, _ = first.split(" ", 2)
        return _HttpRequest(method, path, headers, body)

    async def cancel_when_closed(self, scope: anyio.CancelScope) -> None:
        """Cancel `scope` when the client hangs up; what it sends meanwhile is kept."""
        while await self._fill():
            pass
        scope.cancel()

    async def _fill(self) -> bool:
        try:
            self._pending += await self._stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            return False
        return True


async def _send_answer(connection: _Connection, request: ChatRequestView, answer: Answer) -> bool:
    """Send one answer; False when the connection is to be closed after it."""
    if isinstance(answer, str):
        answer = Reply(answer)
    if answer.gate is not None:
        await answer.gate.wait()
    if isinstance(answer, Fault):
        return await _send_fault(connection, request, answer)
    if answer.latency_seconds:
        await anyio.sleep(answer.latency_seconds)
    whole, events = next(made for end, made in _WORDS.items() if request.path.endswith(end))
    if not request.streamed:
        await connection.send(_whole(200, whole(request, answer)))
        return True
    await connection.send(_head(200, {"content-type": "text/event-stream", "connection": "close"}))
    sent = list(events(request, answer))
    for index, event in enumerate(sent):
        if answer.halfway is not None and index == len(sent) // 2:
            await answer.halfway.wait()
        await connection.send(event)
    return False  # without a length, the end of the body is the end of the connection


async def _send_fault(connection: _Connection, request: ChatRequestView, fault: Fault) -> bool:
    if fault.way == "answer":
        await connection.send(_whole(fault.status, fault.body, fault.headers))
    elif fault.way == "hang":
        await anyio.sleep(math.inf)
    elif fault.way == "cut_in_body":
        await connection.send(_half_of_a_reply(request))
    return fault.way == "answer"


def _half_of_a_reply(request: ChatRequestView) -> bytes:
    reply = Reply("This reply is cut off in the middle of its body.")
    if not request.streamed:
        whole = _whole(200, completion(request, reply))
        return whole[: len(whole) - 80]
    head = _head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
    event = next(stream_events(request, reply))
    return head + b"%x\r\n%b\r\n" % (len(event), event)  # the closing chunk never comes


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {headers[name]}" for name in headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _whole(
    status: int, body: str | Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> bytes:
    data = (body if isinstance(body, str) else json.dumps(body)).encode()
    usual = {"content-type": "application/json", "content-length": str(len(data))}
    return _head(status, {**usual, **(headers or {})}) + data


def _place(path: str) -> str:
    """Leave out the query that programs for the Messages API send; any other stays and is wrong."""
    bare = path.partition("?")[0]
    return bare if bare.endswith("/messages") else path
