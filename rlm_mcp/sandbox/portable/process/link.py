"""Frames between the process around an instance and the host, and the text that comes first."""

from __future__ import annotations

import codecs
import os
import select
import socket
import threading
from collections.abc import Iterator
from typing import NoReturn

from rlm_mcp.sandbox import wire

RECEIVE_BYTES = 1 << 16
TEXT_BYTES = 1 << 20
_ENCODINGS = {1: "latin-1", 2: "utf-16-le", 4: "utf-32-le"}


class HostLink:
    """The socket to the host. One thread reads and writes; another may wake it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._received = bytearray()
        self._woken = threading.Event()
        self._wake_reader, self._wake_writer = socket.socketpair()
        for end in (self._wake_reader, self._wake_writer):
            end.setblocking(False)

    def send(self, frames: bytes) -> None:
        """Hand frames to the host."""
        self._sock.sendall(frames)

    def fail(self, why: str) -> NoReturn:
        """Tell the host why there is no REPL, and end the process."""
        self.send(wire.encode("failed", {}, wire.utf8(why)))
        os._exit(1)

    def frame(self) -> bytes:
        """Wait for the next frame, whatever wakes this thread meanwhile."""
        while True:
            taken = self.receive()
            if taken:
                return taken

    def receive(self) -> bytes:
        """Wait for a frame of the host; empty where an interrupt came instead."""
        while not (taken := self._taken()):
            ready, _, _ = select.select([self._sock, self._wake_reader], [], [])
            if self._wake_reader in ready:
                self.forget_wake()
                return b""
            self._read()
        return taken

    def sleep(self, seconds: float) -> None:
        """Wait, or until an interrupt comes."""
        if self._woken.wait(seconds):
            self.forget_wake()

    def wake(self) -> None:
        """End a wait of the other thread, or its next one."""
        self._woken.set()
        try:
            self._wake_writer.send(b"i")
        except BlockingIOError:  # it was told often enough
            return

    def forget_wake(self) -> None:
        """Forget what woke this thread."""
        self._woken.clear()
        try:
            self._wake_reader.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return

    def _taken(self) -> bytes:
        if len(self._received) < wire.HEADER.size:
            return b""
        end = wire.HEADER.size + sum(wire.sizes(self._received))
        return self._cut(end) if len(self._received) >= end else b""

    def _cut(self, end: int) -> bytes:
        taken = bytes(self._received[:end])
        del self._received[:end]
        return taken

    def _read(self) -> None:
        data = self._sock.recv(RECEIVE_BYTES)
        if not data:
            os._exit(0)
        self._received += data

    # --- the text, which comes raw, once ---

    def read_into(self, view: memoryview) -> None:
        """Fill memory with what comes next."""
        head = self._cut(min(len(view), len(self._received)))
        view[: len(head)] = head
        place = len(head)
        while place < len(view):
            got = self._sock.recv_into(view[place : place + TEXT_BYTES])
            if not got:
                os._exit(0)
            place += got

    def recode_into(self, view: memoryview, utf8_bytes: int, width: int) -> None:
        """Fill memory with characters of `width` bytes, made of so many bytes of UTF-8."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        place = 0
        for piece in self._pieces(utf8_bytes):
            data = decoder.decode(piece).encode(_ENCODINGS[width], "replace")
            view[place : place + len(data)] = data
            place += len(data)
        if place != len(view):
            raise ValueError(f"the text has {place // width:,} characters, not as announced")

    def _pieces(self, size: int) -> Iterator[bytes]:
        room = bytearray(TEXT_BYTES)
        while size:
            piece = memoryview(room)[: min(size, TEXT_BYTES)]
            self.read_into(piece)
            size -= len(piece)
            yield bytes(piece)
