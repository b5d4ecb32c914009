"""Bytes that wait for their end: in memory, or in a file where they are many. Blocking."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from tempfile import TemporaryFile
from typing import IO
from weakref import finalize

MEMORY_BYTES = 8 << 20
PIECE_BYTES = 1 << 20


class Spool:
    """Takes in bytes, and gives them back from the beginning, as often as wanted."""

    def __init__(self) -> None:
        self._file: IO[bytes] = BytesIO()
        self.size = 0

    def write(self, data: bytes) -> None:
        """Take in more.

        Raises:
            OSError: the file cannot be written.
        """
        if isinstance(self._file, BytesIO) and self.size + len(data) > MEMORY_BYTES:
            file: IO[bytes] = TemporaryFile()  # noqa: SIM115  # closed with this object
            finalize(self, file.close)
            file.write(self._file.getvalue())
            self._file = file
        self._file.write(data)
        self.size += len(data)

    def head(self, size: int) -> bytes:
        """Return the first bytes."""
        self._file.seek(0)
        return self._file.read(size)

    def pieces(self) -> Iterator[bytes]:
        """Yield all of it."""
        self._file.seek(0)
        while piece := self._file.read(PIECE_BYTES):
            yield piece

    def lines(self) -> Iterator[bytes]:
        """Yield all of it by lines; one without end comes in pieces."""
        self._file.seek(0)
        while line := self._file.readline(PIECE_BYTES):
            yield line
