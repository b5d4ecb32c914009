"""Cuts a stored text into the passages that a search ranks. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

# About a page of a book: small enough that its words belong together, and large enough that
# 100 MB are 50,000 of them, which SQLite ranks in less than a tenth of a second.
PASSAGE_BYTES = 2000


class Passage(NamedTuple):
    """Where a passage lies: its document, its first character and line there, its bytes."""

    document: int
    start_char: int
    line: int
    start_byte: int
    bytes: int


def cut_passages(
    chunks: Iterator[bytes], documents: Iterable[tuple[int, int]]
) -> Iterator[tuple[Passage, str]]:
    """Cut documents at line ends, and lines that are too long at spaces.

    Args:
        chunks: the UTF-8 of all documents, without gaps.
        documents: positions and sizes in bytes, in order.
    """
    held, at, byte = b"", 0, 0
    for position, size in documents:
        char = line = 0
        end = byte + size
        while byte < end:
            wanted = min(end - byte, PASSAGE_BYTES)
            if len(held) - at < wanted:
                held, at = held[at:] + next(chunks), 0
                continue
            piece = held[at : at + wanted]
            if wanted < end - byte:
                piece = piece[: _end_within(piece)]
            text = piece.decode()
            yield Passage(position, char, line, byte, len(piece)), text
            char, line = char + len(text), line + piece.count(b"\n")
            at, byte = at + len(piece), byte + len(piece)


def _end_within(piece: bytes) -> int:
    for end in (b"\n", b" "):
        if (found := piece.rfind(end) + 1) > 0:
            return found
    end = len(piece)
    while piece[end - 1] & 0xC0 == 0x80:  # bytes that continue a character
        end -= 1
    return end - 1 if piece[end - 1] >= 0xC0 else end
