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

RECEIVE_BYTES = 1 << 16  # larger ones are mapped and unmapped each time
MAX_UNWAITED = 16


class Channel:
    """Frames over a non-blocking socket.

    Receiving may be cancelled and taken up again: what has arrived stays. Sending a frame is never
    left half done while the other side lives, so that no cancelled task breaks the stream.
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
        """Send a frame, waiting for the other side to take it.

        Raises:
            EOFError: the other side is gone, or reads no more.
            ValueError: the frame is too large.
        """
        await self.send_frames(wire.encode(kind, fields, *blobs), patience_seconds=patience_seconds)

    async def send_frames(self, frames: bytes, *, patience_seconds: float = 30) -> None:
        """Send frames that are laid out already; see `send`.

        Raises:
            EOFError: the other side is gone, or reads no more.
        """
        try:
            sent = 0 if self._sending.locked() else self._send_now(frames)
            if sent < len(frames):
                await self._send_rest(memoryview(frames)[sent:], patience_seconds)
        except OSError as error:  # TimeoutError too
            self.close_reading()
            raise EOFError("the REPL's process takes no more") from error

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
            is_soon: another task is about to send something, which may well be answered before its
                sending returns; to look again costs much less than to wait for a socket.

        Raises:
            EOFError: the other side is gone.
            WireError: what arrived is no frame; nothing more is read, ever.
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
        """Return the next frame if it is there; None if not, or after many that were there.

        Raises:
            EOFError: the other side is gone.
            WireError: what arrived is no frame; nothing more is read, ever.
        """
        if self._broken:
            raise EOFError("the channel is closed")
        if self._unwaited >= MAX_UNWAITED:
            return None
        try:
            frame = wire.take(self._received, wire.TO_HOST)
            while frame is None and self._receive_some():
                frame = wire.take(self._received, wire.TO_HOST)
        except WireError:
            self.close_reading()
            raise
        self._unwaited += frame is not None
        return frame

    def _receive_some(self) -> bool:
        """Take what has arrived; False if nothing has."""
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
        """Never read again: what may still lie in the buffer must not answer a later question."""
        self._broken = True
        self._received.clear()

    def close(self) -> None:
        """Close the socket."""
        self.close_reading()
        anyio.notify_closing(self._sock)
        self._sock.close()
