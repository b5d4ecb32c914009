"""What the converter's process and the server say to each other: frames over two pipes.

A request is a header with the document's name, kind and size, and then its bytes. The answers are
documents, each as a header, data and an end, and small texts and what was left out, many in one
frame; a last frame ends the request. Standard library alone: both processes import this.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

BEGUN, DATA, ENDED, SMALL, DONE = b"B", b"D", b"E", b"S", b"F"
REQUEST = b"R"
PIECE_BYTES = 1 << 20
MAX_FRAME_BYTES = 16 << 20
_HEADER = struct.Struct("!cI")
_SIZE = struct.Struct("!I")


class Small(NamedTuple):
    """A short text that is stored as it is, or a document that was left out and why.

    `name` is empty for the file itself. An archive may hold a hundred thousand of them, so they
    cost the server as little as can be.
    """

    name: str
    data: bytes = b""
    reason: str = ""


class FrameError(Exception):
    """The other side ended, or sent something that is not a frame."""


def write_frame(stream: BinaryIO, kind: bytes, body: bytes) -> None:
    """Write one frame; the caller flushes."""
    stream.write(_HEADER.pack(kind, len(body)))
    stream.write(body)


def write_json(stream: BinaryIO, kind: bytes, value: Any) -> None:
    """Write a frame whose body is JSON."""
    write_frame(stream, kind, json.dumps(value).encode())


def write_small(stream: BinaryIO, some: Sequence[Small]) -> None:
    """Write a frame of short texts and of what was left out, in order."""
    header = json.dumps([(one.name, len(one.data), one.reason) for one in some]).encode()
    body = (_SIZE.pack(len(header)), header, *(one.data for one in some))
    write_frame(stream, SMALL, b"".join(body))


def small_of(body: bytes) -> Iterator[Small]:
    """Yield what a frame of `write_small` holds."""
    (size,) = _SIZE.unpack_from(body)
    at = _SIZE.size + size
    for name, length, reason in json.loads(body[_SIZE.size : at]):
        yield Small(name, body[at : at + length], reason)
        at += length


def read_frame(stream: BinaryIO) -> tuple[bytes, bytes]:
    """Read one frame.

    Raises:
        FrameError: the stream ended, or the frame is too large.
    """
    kind, size = _HEADER.unpack(read_exactly(stream, _HEADER.size))
    _check_size(size)
    return kind, read_exactly(stream, size)


def read_exactly(stream: BinaryIO, size: int) -> bytes:
    """Read so many bytes.

    Raises:
        FrameError: the stream ended before.
    """
    data = bytearray()
    while len(data) < size:
        more = stream.read(min(PIECE_BYTES, size - len(data)))
        if not more:
            raise FrameError("the stream ended")
        data += more
    return bytes(data)


class FrameReader:
    """Takes frames out of bytes that arrive split anywhere."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """Take in more; return the frames that are whole by now.

        Raises:
            FrameError: the stream ended, which no bytes mean, or a frame is too large.
        """
        if not data:
            raise FrameError("the stream ended")
        self._data += data
        frames: list[tuple[bytes, bytes]] = []
        at = 0
        while len(self._data) - at >= _HEADER.size:
            kind, size = _HEADER.unpack_from(self._data, at)
            _check_size(size)
            end = at + _HEADER.size + size
            if end > len(self._data):
                break
            frames.append((kind, bytes(self._data[end - size : end])))
            at = end
        del self._data[:at]
        return frames


def _check_size(size: int) -> None:
    if size > MAX_FRAME_BYTES:
        raise FrameError(f"a frame of {size:,} bytes")
