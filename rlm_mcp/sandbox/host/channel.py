"""The host's end of the socket to a REPL's process."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

import anyio
import anyio.lowlevel

from rlm_mcp.errors import WireError
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

    async def send(
        self, kind: str, fields: Mapping[str, Any], *blobs: bytes, patience_seconds: float = 30
    ) -> None:
        """Send a frame, waiting until the other side reads it.

        Raises:
            EOFError: the other side is gone, or does not read.
            ValueError: the frame is too large.
        """
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
        except OSError as error:  # TimeoutError too
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
                await anyio.wait_readable(self._sock)
        return frame

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
