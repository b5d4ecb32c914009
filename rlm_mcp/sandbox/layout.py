"""How a text is laid out in the file that the host writes and a REPL maps."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass

TEXT_START = 64  # bytes; room for any `str` header, and keeps the characters aligned
WORD_BYTES = 8


@dataclass(frozen=True)
class Layout:
    """Offsets of the file's parts: bytes of text, bytes of names, number of documents.

    `is_ascii`: the writer found only ASCII in the text.
    """

    text_bytes: int
    name_bytes: int
    count: int
    is_list: bool
    is_ascii: bool = False

    @property
    def names_start(self) -> int:
        """Offset of the names, in bytes; the byte before them is zero."""
        return TEXT_START + self.text_bytes + 1

    @property
    def table_start(self) -> int:
        """Offset of the tables of lengths, in bytes."""
        return self.names_start + self.name_bytes

    @property
    def file_bytes(self) -> int:
        """Size of the whole file in bytes; never 0, since an empty file cannot be mapped."""
        return self.table_start + 2 * WORD_BYTES * self.count + WORD_BYTES


def table(lengths: Iterable[int]) -> bytes:
    """Encode lengths as 64-bit numbers in the machine's byte order."""
    return array("Q", lengths).tobytes()
