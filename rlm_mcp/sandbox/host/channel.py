"""The host's ends of sockets: to a REPL's process, and to a process that forks REPLs."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import anyio
import anyio.lowlevel

from rlm_mcp.errors import SandboxError, TooManyFilesError, WireError
from rlm_mcp.sandbox import wire
from rlm_mcp.sandbox.wire import Frame

RECEIVE_BYTES = 1 << 16  # larger buffers are mapped and unmapped for each use
MAX_UNWAITED = 16


class Channel:
    """Frames over a non-blocking socket.

    Receiving may be cancelled and repeated without loss. Sending a frame is always finished while
    the other side lives, so that a cancelled task does not break the stream.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._received = bytearray()
        self._sending = anyio.Lock(fast_acquire=True)
        self._broken = False
        self._unwaited = 0
        self.orders = 0  # sent so far: all frames but replies to calls

    async def send(
        self, kind: str, fields: Mapping[str, Any], *blobs: bytes, patience_seconds: float = 30
    ) -> None:
        """Send a frame, waiting until the other side reads it.

        Raises:
            EOFError: the other side is gone, or does not read.
            ValueError: the frame is too large.
        """
        self.orders += 1
        await self.send_frames(wire.encode(kind, fields, *blobs), patience_seconds=patience_seconds)

    async def send_frames(self, frames: bytes, *, patience_seconds: float = 30) -> None:
        """Send encoded frames; see `send`.

        Raises:
            EOFError: the other side is gone, or does not read.
        """
        try:
            sent = 0 if self._sending.locked() else self._send_now(frames)
            if sent < len(frames):
                await self._send_rest(memoryview(frames)[sent:], patience_seconds)
        except (OSError, anyio.ClosedResourceError) as error:  # TimeoutError too
            self.close_reading()
            raise EOFError("the REPL's process does not read") from error

    def _send_now(self, data: bytes | memoryview) -> int:
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0

    async def _send_rest(self, rest: memoryview, patience_seconds: float) -> None:
        async with self._sending:
            with anyio.fail_after(patience_seconds, shield=True):
                while rest:
                    if self._broken:
                        raise BrokenPipeError
                    await anyio.wait_writable(self._sock)
                    rest = rest[self._send_now(rest) :]

    async def receive(self, *, is_soon: bool = False) -> Frame:
        """Receive the next frame.

        Args:
            is_soon: another task is about to send something that may be answered before its sending
                returns; trying again costs much less than waiting for a socket.

        Raises:
            EOFError: the other side is gone.
            WireError: not a valid frame; the channel is closed for reading.
        """
        if self._unwaited >= MAX_UNWAITED:  # a flood of frames must not starve the event loop
            self._unwaited = 0
            await anyio.lowlevel.checkpoint()
        while (frame := self.receive_now()) is None:
            self._unwaited = 0
            if is_soon:
                await anyio.lowlevel.checkpoint()
                is_soon = False
            else:
                await self._until_readable()
        return frame

    async def _until_readable(self) -> None:
        try:
            await anyio.wait_readable(self._sock)
        except anyio.ClosedResourceError as error:  # by another task, such as at the server's end
            raise EOFError("the channel is closed") from error

    def receive_now(self) -> Frame | None:
        """Return the next frame if it has arrived; None if not, or after many in a row.

        Raises:
            EOFError: the other side is gone.
            WireError: not a valid frame; the channel is closed for reading.
        """
        if self._broken:
            raise EOFError("the channel is closed")
        if self._unwaited >= MAX_UNWAITED:
            return None
        try:
            frame = wire.take_frame(self._received, wire.TO_HOST)
            while frame is None and self._receive_some():
                frame = wire.take_frame(self._received, wire.TO_HOST)
        except WireError:
            self.close_reading()
            raise
        self._unwaited += frame is not None
        return frame

    def _receive_some(self) -> bool:
        """Receive available bytes; False if there are none."""
        try:
            data = self._sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return False
        except OSError as error:
            raise EOFError("the REPL's process is gone") from error
        if not data:
            raise EOFError("the REPL's process closed its end")
        self._received += data
        return True

    def close_reading(self) -> None:
        """Stop reading for good: what is buffered must not be taken for a later answer."""
        self._broken = True
        self._received.clear()

    def close(self) -> None:
        """Close the socket."""
        self.close_reading()
        anyio.notify_closing(self._sock)
        self._sock.close()


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Return a connected pair: the host's end, the child's end."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    return ours, theirs


MAX_ANSWER_BYTES = 1 << 16


class Control:
    """Sends orders to a process that forks, and receives its answers, one at a time.

    Its socket preserves their boundaries.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._turn = anyio.Lock()
        self._sending = anyio.Lock()
        self.is_closed = False

    async def request(
        self, order: Mapping[str, Any], descriptors: Sequence[int] = (), *, seconds: float
    ) -> tuple[dict[str, Any], list[int]]:
        """Send an order and wait for its answer; the caller closes the returned descriptors.

        Raises:
            SandboxError: the process is gone, does not answer, or failed.
        """
        async with self._turn:
            try:
                # Shielded: cancelling one task must not break the process for others.
                with anyio.fail_after(seconds, shield=True):
                    await self.send_order(order, descriptors)
                    return await self.receive_answer()
            except OSError as error:  # TimeoutError too
                self.close()  # a late answer must not be taken for that of the next order
                raise SandboxError(f"the fork server does not answer: {error!s}") from error

    async def send_order(self, order: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Send an order without waiting for an answer."""
        assert sys.platform == "linux"  # noqa: S101  # nothing else has a fork server
        async with self._sending:  # anyio lets only one task wait for a socket
            if self.is_closed:
                raise BrokenPipeError("it was closed")
            with _closed_as_gone():
                await anyio.wait_writable(self._sock)
            socket.send_fds(self._sock, [json.dumps(order).encode()], descriptors)

    async def receive_answer(self) -> tuple[dict[str, Any], list[int]]:
        """Wait for an answer.

        Raises:
            OSError: the process is gone.
            SandboxError: the order failed.
            TooManyFilesError: this process has no room for the descriptors of the answer.
        """
        assert sys.platform == "linux"  # noqa: S101  # nothing else has a fork server
        with _closed_as_gone():
            await anyio.wait_readable(self._sock)
        data, descriptors, flags, _ = socket.recv_fds(self._sock, MAX_ANSWER_BYTES, 4)
        if not data:
            raise ConnectionResetError("its process is gone")
        said = json.loads(data)
        is_cut = bool(flags & socket.MSG_CTRUNC)  # there was no room for the descriptors
        if is_cut or "error" in said:
            for descriptor in descriptors:
                os.close(descriptor)
        if is_cut:
            raise TooManyFilesError
        if "error" in said:
            raise SandboxError(f"the fork server failed: {said['error']}")
        return said, descriptors

    @property
    def is_gone(self) -> bool:
        """Whether the process is gone."""
        if self.is_closed:
            return True
        try:
            return not self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def close(self) -> None:
        """Close the host's end; the process then ends itself."""
        if not self.is_closed:
            self.is_closed = True
            anyio.notify_closing(self._sock)
            self._sock.close()


@contextlib.contextmanager
def _closed_as_gone() -> Generator[None]:
    """Another task may close the socket while this one waits for it."""
    try:
        yield
    except anyio.ClosedResourceError as error:
        raise ConnectionResetError("the socket was closed") from error


def control_pair() -> tuple[Control, socket.socket]:
    """Return a control and the child's end of its socket."""
    assert sys.platform == "linux"  # noqa: S101  # nothing else has a fork server
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Control(ours), theirs
