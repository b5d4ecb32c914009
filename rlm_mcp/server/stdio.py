"""The protocol over stdin and stdout, read so that no request goes unanswered.

The SDK's own reader drops a line that it cannot parse, including every line with half of a
surrogate pair in it, which programs write that cut a text in the middle of a character. It also
blocks all other work while it parses a large text four times over. Its writer goes to a thread
twice for each message; ours goes once for all that wait.

The SDK lets the first request decide between the protocol's two eras. But a client may only probe
with `server/discover`, and greet with `initialize` when the answer comes late: so probes that come
before any other request are answered by a loop of their own, and the first other request decides.
"""

from __future__ import annotations

import io
import json
import logging
import os
import stat
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from concurrent.futures import CancelledError
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from threading import Thread
from typing import Any, BinaryIO, TextIO

import anyio
import anyio.to_thread
from anyio.abc import ObjectReceiveStream, ObjectSendStream
from anyio.from_thread import BlockingPortal
from anyio.streams.memory import MemoryObjectReceiveStream
from mcp.server.lowlevel import Server
from mcp.server.runner import serve_dual_era_loop
from mcp.shared.message import SessionMessage
from mcp_types import (
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCRequest,
    JSONRPCResponse,
)
from pydantic_core import PydanticSerializationError

from rlm_mcp.server.messages import parse_message, refusal, refusal_of_long
from rlm_mcp.server.sendable import sendable

Incoming = SessionMessage | Exception
# Whoever sends requests through a pipe closes it at once, and still wants to read the answers. A
# host that is gone does not hold the server for longer.
_ANSWER_SECONDS = 1.0
_PROBE = "server/discover"
# Parsing so many holds everything else for half a second, and takes five times their memory.
MAX_LINE_CHARS = 100_000_000
_PIECE_CHARS = 4096
_INSTEAD = (
    "Give `path` for a text in a file, or send a text in parts: with final=false, then its "
    "upload_id."
)

log = logging.getLogger(__name__)


async def serve_stdio(server: Server[Any]) -> None:
    """Serve over stdin and stdout until the host closes either of them."""
    try:
        await _serve(server, await anyio.to_thread.run_sync(_take_stdin))
    except* BrokenPipeError:
        log.info("The host reads no more: it has closed this server's stdout.")


async def _serve(server: Server[Any], stdin: TextIO) -> None:
    outgoing, messages = anyio.create_memory_object_stream[SessionMessage](0)
    unanswered = Unanswered()
    with _own_stdout() as file:
        async with anyio.create_task_group() as writing:
            writing.start_soon(write_messages, messages, file, unanswered)
            async with (
                server.lifespan(server) as state,
                _open_lines(stdin) as lines,
                anyio.create_task_group() as reading,
            ):
                reading.start_soon(_end_when_unread, file)
                async with outgoing, anyio.create_task_group() as serving:
                    probes, first = anyio.create_memory_object_stream[Incoming](0)
                    incoming, rest = anyio.create_memory_object_stream[Incoming](0)
                    read = partial(_read, lines, probes, incoming, outgoing.send, unanswered)
                    reading.start_soon(read)
                    for receiver in (first, rest):
                        loop = partial(
                            serve_dual_era_loop,
                            lifespan_state=state,
                            init_options=server.create_initialization_options(),
                        )
                        serving.start_soon(loop, server, receiver, outgoing.clone())
                reading.cancel_scope.cancel()


async def _read(
    lines: ObjectReceiveStream[str | JSONRPCError],
    probes: ObjectSendStream[Incoming],
    incoming: ObjectSendStream[Incoming],
    answer: Callable[[SessionMessage], Awaitable[None]],
    unanswered: Unanswered,
) -> None:
    chosen = probes
    async with probes, incoming:
        async for line in lines:
            if isinstance(line, JSONRPCError):
                await answer(SessionMessage(line))
                continue
            if line.isspace():
                continue
            try:
                message = parse_message(line)
            except (ValueError, RecursionError):
                await answer(SessionMessage(refusal(line)))
            else:
                if isinstance(message, JSONRPCRequest):
                    unanswered.add(message)
                    chosen = chosen if message.method == _PROBE else incoming
                await chosen.send(SessionMessage(message))
        with anyio.move_on_after(_ANSWER_SECONDS):
            await unanswered.until_none()


class Unanswered:
    """The requests of a host that have no answer yet."""

    def __init__(self) -> None:
        self._ids = set[int | str]()
        self._changed = anyio.Event()

    def add(self, request: JSONRPCRequest) -> None:
        """Note a request."""
        self._ids.add(request.id)

    def remove(self, message: JSONRPCMessage) -> None:
        """Note what was written, if it is an answer."""
        if isinstance(message, JSONRPCResponse | JSONRPCError) and message.id is not None:
            self._ids.discard(message.id)
            self._changed.set()

    async def until_none(self) -> None:
        """Wait until all are answered."""
        while self._ids:
            self._changed = anyio.Event()
            await self._changed.wait()


async def write_messages(
    messages: MemoryObjectReceiveStream[SessionMessage], file: BinaryIO, unanswered: Unanswered
) -> None:
    """Write messages in order, all that wait at once, until nobody sends any more."""
    async with messages:
        async for first in messages:
            waiting = [first]
            with suppress(anyio.WouldBlock, anyio.EndOfStream):
                while True:
                    waiting.append(messages.receive_nowait())
            await anyio.to_thread.run_sync(_send, file, b"".join(map(_line, waiting)))
            for sent in waiting:
                unanswered.remove(sent.message)


def _line(sent: SessionMessage) -> bytes:
    try:
        text = sent.message.model_dump_json(by_alias=True, exclude_unset=True)
    except PydanticSerializationError:  # of halves of characters, wherever they came from
        fit = sendable(sent.message.model_dump(by_alias=True, exclude_unset=True))
        text = json.dumps(fit, ensure_ascii=False)
    return f"{text}\n".encode()


def _send(file: BinaryIO, lines: bytes) -> None:
    file.write(lines)
    file.flush()


@asynccontextmanager
async def _open_lines(file: TextIO) -> AsyncGenerator[ObjectReceiveStream[str | JSONRPCError]]:
    """Read lines in a thread for which the process does not wait when it ends.

    In place of a line that is too long comes the answer to it.

    A thread that reads cannot be interrupted. At a terminal, and where the host keeps stdin open
    but reads no more, it would wait for a line that never comes.
    """
    sender, receiver = anyio.create_memory_object_stream[str | JSONRPCError](0)
    async with BlockingPortal() as portal, receiver:
        Thread(target=_send_lines, args=(file, portal, sender), daemon=True).start()
        yield receiver


def _send_lines(
    file: TextIO, portal: BlockingPortal, sender: ObjectSendStream[str | JSONRPCError]
) -> None:
    # The server may end at any time: then nobody takes the line, or the portal is closed.
    with suppress(anyio.BrokenResourceError, RuntimeError, CancelledError):
        try:
            for line in iter(partial(file.readline, MAX_LINE_CHARS), ""):
                is_cut = len(line) == MAX_LINE_CHARS and not line.endswith("\n")
                sent = _refusal_of(line, _rest_of(file)) if is_cut else line
                portal.call(sender.send, sent)
        finally:
            portal.call(sender.aclose)


def _refusal_of(begin: str, end: str) -> JSONRPCError:
    return refusal_of_long(begin, end, f"{MAX_LINE_CHARS:,} characters", _INSTEAD)


def _rest_of(file: TextIO) -> str:
    """Read to the end of a line; return what it ends with."""
    end = ""
    while piece := file.readline(_PIECE_CHARS):
        end = (end + piece)[-_PIECE_CHARS:]
        if end.endswith("\n"):
            break
    return end


async def _end_when_unread(stdout: BinaryIO) -> None:
    """End the server when nobody can read what it says: writing alone would show it, if ever.

    Linux tells of it at once: a pipe that nobody reads any more counts as readable.

    Raises:
        BrokenPipeError: the host has closed its end.
    """
    try:
        descriptor = stdout.fileno()
        is_pipe = stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    except (OSError, ValueError):  # it stands for stdout, and is not a file of the system
        return
    if is_pipe and sys.platform == "linux":
        await anyio.wait_readable(descriptor)
        raise BrokenPipeError


def _take_stdin() -> TextIO:
    """Take stdin away from everything else in this process; blocks."""
    try:
        own = os.dup(sys.stdin.fileno())
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, sys.stdin.fileno())
        os.close(nothing)
    except (OSError, ValueError, io.UnsupportedOperation):
        return sys.stdin  # it cannot be replaced, so it is read directly
    # A worker thread may still wait for this descriptor at the end, so it is never closed.
    # Some shells of Windows begin what they pipe with a byte order mark.
    file = os.fdopen(own, "rb", closefd=False)
    return io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace")


@contextmanager
def _own_stdout() -> Generator[BinaryIO]:
    """Have stdout alone: what others in this process print meanwhile goes to stderr; blocks."""
    try:
        number = sys.stdout.fileno()
        own, theirs = os.dup(number), _stderr_or_nothing()
        os.dup2(theirs, number)
        os.close(theirs)
    except (OSError, ValueError, io.UnsupportedOperation):
        yield sys.stdout.buffer  # it cannot be replaced, so it is written to directly
        return
    try:
        # A worker thread may still wait for this descriptor at the end, so it is never closed.
        yield os.fdopen(own, "wb", closefd=False)
    finally:
        sys.stdout.flush()  # else what others printed goes to the host
        os.dup2(own, number)


def _stderr_or_nothing() -> int:
    try:
        return os.dup(sys.stderr.fileno())
    except (OSError, ValueError, io.UnsupportedOperation):
        return os.open(os.devnull, os.O_WRONLY)
