"""What the converter's process and the server say to each other: frames over two pipes.

A request is a header with the document's name, kind and size, and then its bytes. The answers are
documents, each as a header, data and an end, and documents that were left out; a last frame ends
the request. Standard library alone: both processes import this.
"""

from __future__ import annotations

import json
import struct
from typing import Any, BinaryIO

BEGUN, DATA, ENDED, LEFT_OUT, DONE = b"B", b"D", b"E", b"L", b"F"
REQUEST = b"R"
PIECE_BYTES = 1 << 20
MAX_FRAME_BYTES = 16 << 20
_HEADER = struct.Struct("!cI")


class FrameError(Exception):
    """The other side ended, or said something that is no frame."""


def write_frame(stream: BinaryIO, kind: bytes, body: bytes) -> None:
    """Write one frame; the caller flushes."""
    stream.write(_HEADER.pack(kind, len(body)))
    stream.write(body)


def write_json(stream: BinaryIO, kind: bytes, value: Any) -> None:
    """Write a frame whose body is JSON."""
    write_frame(stream, kind, json.dumps(value).encode())


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
