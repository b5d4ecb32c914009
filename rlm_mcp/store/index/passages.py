"""Cuts a stored text into the passages that a search ranks. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

# About a page of a book: small enough that its words belong together, and large enough that
# 100 MB are 50,000 of them, which SQLite ranks in less than a tenth of a second.
PASSAGE_BYTES = 2000

# Scripts that put no spaces between words, and Korean, whose words carry their particles: Thai,
# Lao, Burmese, Khmer, kana, Han and Hangul. They are found by groups of three characters.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
)
_UNSPACED_RUN = re.compile(f"[{UNSPACED}]+")


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


def split_scripts(text: str) -> tuple[str, str]:
    """Return the words of a text that spaces part, and its runs of the unspaced scripts, apart."""
    if text.isascii():
        return text, ""
    runs = _UNSPACED_RUN.findall(text)
    # The spaces at the end complete the groups of three that begin at a run's last characters.
    return (_UNSPACED_RUN.sub(" ", text), "  ".join(runs) + "  ") if runs else (text, "")


def _end_within(piece: bytes) -> int:
    for end in (b"\n", b" "):
        if (found := piece.rfind(end) + 1) > 0:
            return found
    end = len(piece)
    while piece[end - 1] & 0xC0 == 0x80:  # bytes that continue a character
        end -= 1
    return end - 1 if piece[end - 1] >= 0xC0 else end
