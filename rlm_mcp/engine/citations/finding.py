"""Finds passages in a text of any size, in one pass and in bounded time. Blocking."""

from __future__ import annotations

import re
import time
from bisect import bisect_right
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from rlm_mcp.engine.citations.quotations import any_spelling, longest_word
from rlm_mcp.sandbox.types import ContextSource

# A passage may lie over the edge of two chunks: so much of the first is looked at again.
_OVERLAP_BYTES = 16_384


class Found(NamedTuple):
    """The place of a passage: characters of a document; `is_exact`: word for word."""

    document: int
    start: int
    end: int
    is_exact: bool


@dataclass(frozen=True)
class _Needle:
    quote: str
    exact: bytes
    anchor: bytes
    pattern: re.Pattern[bytes]

    @classmethod
    def of(cls, quote: str) -> _Needle:
        exact = quote.encode("utf-8", "replace")
        return cls(quote, exact, longest_word(quote) or exact, any_spelling(quote))

    def spans(self, text: bytes) -> list[tuple[int, int, bool]]:
        """Return its place: word for word, else in another spelling."""
        if text.find(self.anchor) < 0:
            return []
        at = text.find(self.exact)
        if at >= 0:
            return [(at, at + len(self.exact), True)]
        return [(*match.span(), False) for match in self.pattern.finditer(text)]


class _Documents:
    """Tells which document a byte of the whole text belongs to."""

    def __init__(self, source: ContextSource) -> None:
        self._ends = list(accumulate(source.byte_lengths))
        self._first_chars = [0, *accumulate(source.char_lengths)]
        self.is_ascii = not self._ends or self._ends[-1] == self._first_chars[-1]

    def place(
        self, byte: int, length: int, char: int, chars: int, *, is_exact: bool
    ) -> Found | None:
        """Return the place of a passage; None if it goes over into another document."""
        document = bisect_right(self._ends, byte)
        if document >= len(self._ends) or byte + length > self._ends[document]:
            return None
        start = char - self._first_chars[document]
        return Found(document, start, start + chars, is_exact)


def find_passages(
    source: ContextSource,
    quotes: Sequence[str],
    seconds: float,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[dict[str, Found], bool]:
    """Find each quote once; also return whether the whole text was looked at in time."""
    documents = _Documents(source)
    missing = [_Needle.of(quote) for quote in quotes]
    found: dict[str, Found] = {}
    end = clock() + seconds
    held, byte, char = b"", 0, 0
    with closing(_closable(source)) as chunks:
        for chunk in chunks:
            if not missing:
                break
            if clock() > end:
                return found, False
            window = held + chunk
            missing = [
                needle
                for needle in missing
                if not _note(needle, window, (byte, char), documents, found)
            ]
            held = _tail(window)
            gone = window[: len(window) - len(held)]
            byte, char = byte + len(gone), char + _chars(gone)
    return found, True


def _note(
    needle: _Needle,
    window: bytes,
    before: tuple[int, int],
    documents: _Documents,
    found: dict[str, Found],
) -> bool:
    """Note the place of a passage in a window; return whether it is there."""
    for start, end, is_exact in needle.spans(window):
        place = documents.place(
            before[0] + start,
            end - start,
            before[1] + _chars(window[:start]),
            _chars(window[start:end]),
            is_exact=is_exact,
        )
        if place is not None:
            found[needle.quote] = place
            return True
    return False


def _closable(source: ContextSource) -> Generator[bytes]:
    """Yield the chunks so that what reads them is closed in this thread."""
    yield from source.chunks()


def _tail(window: bytes) -> bytes:
    start = max(0, len(window) - _OVERLAP_BYTES)
    while start < len(window) and window[start] & 0xC0 == 0x80:
        start += 1
    return window[start:]


def _chars(data: bytes) -> int:
    return len(data) if data.isascii() else len(data.decode("utf-8", "replace"))
