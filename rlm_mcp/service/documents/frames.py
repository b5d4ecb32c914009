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
    if size > MAX_FRAME_BYTES:
        raise FrameError(f"a frame of {size:,} bytes")
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
