"""How a text is laid out in the file that the host writes and a REPL maps."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass

TEXT_START = 64  # bytes; room for any header, and keeps the characters aligned


WORD_BYTES = 8


@dataclass(frozen=True)
class Layout:
    """Where things lie in the file: bytes of text, bytes of names, number of documents.

    `is_ascii` says that whoever wrote the text found nothing else in it.
    """

    text_bytes: int
    name_bytes: int
    count: int
    is_list: bool
    is_ascii: bool = False

    @property
    def names_start(self) -> int:
        """Where the names begin, in bytes; a zero byte lies before them."""
        return TEXT_START + self.text_bytes + 1

    @property
    def table_start(self) -> int:
        """Where the tables of lengths begin, in bytes."""
        return self.names_start + self.name_bytes

    @property
    def file_bytes(self) -> int:
        """The size of the whole file; never 0, since an empty file cannot be mapped."""
        return self.table_start + 2 * WORD_BYTES * self.count + WORD_BYTES


def table(lengths: Iterable[int]) -> bytes:
    """Lay out lengths as 64-bit numbers in the machine's byte order."""
    return array("Q", lengths).tobytes()
