"""Bodies that come compressed, undone a little at a time and never far beyond what came."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Protocol

from rlm_mcp.errors import InvalidInputError, TooLargeError

PIECE_BYTES = 1 << 20
# Logs shrink to a twentieth, seldom below a hundredth; larger growth is made on purpose.
MAX_GROWTH = 250
ALWAYS_ALLOWED_BYTES = 64 << 20
# The memory that decompressing zstd may use: 64 MiB.
_ZSTD_WINDOW_LOG = 26
_GZIP_WITH_HEADER = 16 + zlib.MAX_WBITS
# Zeros after the last member are common, and gzip(1) passes over them.
_PADDING = b"\0"
CODINGS = ("gzip", "zstd")
_BY_HAND = {"gzip": "gzip -dc", "zstd": "zstd -dc"}


class _Stream(Protocol):
    """What the libraries of both codings give to undo one."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class Unpacker:
    """Undoes one coding.

    Args:
        coding: one of `CODINGS`.
        max_growth: how many times its size a body may become.
    """

    def __init__(self, coding: str, max_growth: int = MAX_GROWTH) -> None:
        self._coding = coding
        self._max_growth = max_growth
        self._taken = 0
        self._given = 0
        self._member = _begin(coding)
        self._is_between = True

    def unpack(self, data: bytes) -> Iterator[bytes]:
        """Return what the next bytes hold, at most `PIECE_BYTES` at once.

        Raises:
            InvalidInputError: they are not of this coding.
            TooLargeError: they hold far more than compressed text does.
        """
        if self._is_between and self._taken:
            data = data.lstrip(_PADDING)
        self._taken += len(data)
        while data or not self._is_between:
            try:
                piece = self._member.decompress(data)
            except (zlib.error, OSError, ValueError, _zstd_error()) as error:
                raise self._no_coding(str(error)) from error
            self._is_between = self._member.eof
            data = b""
            if piece:
                self._count(len(piece))
                yield piece
            if self._is_between:
                data = self._member.unused_data.lstrip(_PADDING)
                self._member = _begin(self._coding)
            elif not piece:
                return

    def end(self) -> None:
        """Refuse a body that ended before its data did.

        Raises:
            InvalidInputError: it did.
        """
        if not self._is_between or not self._taken:
            raise self._no_coding("it ends too early")

    def _count(self, size: int) -> None:
        self._given += size
        if self._given > max(ALWAYS_ALLOWED_BYTES, self._taken * self._max_growth):
            raise TooLargeError(
                f"The first {self._taken:,} bytes of {self._coding} become more than "
                f"{self._given:,}; text does not grow {self._max_growth} times.",
                fix=f"If they really are a text, unpack them first ({_BY_HAND[self._coding]}).",
            )

    def _no_coding(self, why: str) -> InvalidInputError:
        return InvalidInputError(
            f"The bytes are not whole {self._coding}: {why}.",
            fix="Send or copy them again, without Content-Encoding if they are not compressed. "
            f"To store what can still be read, unpack it first ({_BY_HAND[self._coding]}).",
        )


class _Member:
    """One compressed stream of those that a body holds one after another."""

    def __init__(self, stream: _Stream) -> None:
        self._stream = stream

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def decompress(self, data: bytes) -> bytes:
        """Decompress some of what arrived; return nothing once all of it is out."""
        # zlib hands back what it did not get to; zstd keeps it.
        left = getattr(self._stream, "unconsumed_tail", b"")
        return self._stream.decompress(left + data, PIECE_BYTES)


def _begin(coding: str) -> _Member:
    if coding == "gzip":
        return _Member(zlib.decompressobj(_GZIP_WITH_HEADER))
    module = _zstd()
    options = {module.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
    return _Member(module.ZstdDecompressor(options=options))


def _zstd_error() -> type[Exception]:
    return _zstd().ZstdError


def _zstd() -> ModuleType:
    return import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
