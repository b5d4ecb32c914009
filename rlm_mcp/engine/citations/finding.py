"""Finds passages in a text of any size, in one pass and in bounded time. Blocking."""

from __future__ import annotations

import re
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from operator import itemgetter
from typing import NamedTuple, Protocol

from rlm_mcp.engine.citations.loose import LooseQuote
from rlm_mcp.engine.citations.quotations import UNSEEN, any_spelling, telling_word
from rlm_mcp.sandbox.types import ContextSource

# A passage may lie over the edge of two chunks: so much of the first is looked at again.
_OVERLAP_BYTES = 16_384


class Found(NamedTuple):
    """The place of a passage: characters of a document; `is_exact`: word for word."""

    document: int
    start: int
    end: int
    is_exact: bool


Span = tuple[int, int]
# A word that is cut at the end of a line, or holds what nobody sees: where it may be cut, or in
# which direction it is written.
_CUT = re.compile(
    rb"\xc2\xad|\xe2\x80[\x8b\x8e\x8f\xaa-\xae]|\xe2\x81\xa0|\xef\xbb\xbf"
    rb"|(?<=[A-Za-z\x80-\xff])(?:-|\xe2\x80\x90)\r?\n[ \t]*(?=[a-z\x80-\xff])"
)
# Found much sooner.
_SIGNS_OF_CUTS = (b"-\n", b"-\r\n", b"\xe2\x80\x90", *(char.encode() for char in UNSEEN))


class _Window:
    """A part of the text, and the same with its words whole."""

    def __init__(self, text: bytes) -> None:
        self.text = text

    def places(self, find: Callable[[bytes], Iterator[Span]]) -> Iterator[Span]:
        """Yield the places of a passage in the text, then those where a word of it is cut."""
        yield from find(self.text)
        if self._cuts:
            for start, end in find(self._whole_words):
                yield self._place(start, bisect_right), self._place(end, bisect_left)

    @cached_property
    def lowered(self) -> bytes:
        """The text in small letters, as far as it is ASCII, with its words whole."""
        return (self._whole_words if self._cuts else self.text).lower()

    @cached_property
    def _cuts(self) -> Sequence[Span]:
        """Where words are cut: in the text with whole words, and where they go on in the text."""
        if not any(sign in self.text for sign in _SIGNS_OF_CUTS):
            return ()
        spans = [match.span() for match in _CUT.finditer(self.text)]
        gone = accumulate((end - start for start, end in spans), initial=0)
        return [(start - less, end) for (start, end), less in zip(spans, gone, strict=False)]

    @cached_property
    def _whole_words(self) -> bytes:
        return _CUT.sub(b"", self.text)

    def _place(self, at: int, bisect: Callable[..., int]) -> int:
        """Return where a byte of the text with whole words is in the text itself."""
        before = bisect(self._cuts, at, key=itemgetter(0))
        if not before:
            return at
        whole, end = self._cuts[before - 1]
        return end + at - whole


class _Needle(Protocol):
    @property
    def quote(self) -> str: ...

    def spans(self, window: _Window) -> Iterator[tuple[int, int, bool]]:
        """Yield where it is in a window, and whether word for word."""
        ...


@dataclass(frozen=True)
class _Strict:
    """A quote word for word, or with other white space, marks and accents."""

    quote: str
    exact: bytes
    anchor: bytes
    pattern: re.Pattern[bytes]

    @classmethod
    def of(cls, quote: str) -> _Strict:
        return cls(
            quote, quote.encode("utf-8", "replace"), telling_word(quote), any_spelling(quote)
        )

    def spans(self, window: _Window) -> Iterator[tuple[int, int, bool]]:
        at = window.text.find(self.exact)
        while at >= 0:
            yield at, at + len(self.exact), True
            at = window.text.find(self.exact, at + 1)
        for start, end in window.places(self._spelled):
            yield start, end, False

    def _spelled(self, text: bytes) -> Iterator[Span]:
        if text.find(self.anchor) >= 0:
            yield from (match.span() for match in self.pattern.finditer(text))


@dataclass(frozen=True)
class _Loose:
    """A quote shortened or in other case, which is not in the text in any stricter form."""

    quote: str
    form: LooseQuote

    @classmethod
    def of(cls, quote: str) -> _Loose:
        return cls(quote, LooseQuote.of(quote))

    def spans(self, window: _Window) -> Iterator[tuple[int, int, bool]]:
        if self.form.anchor in window.lowered:
            for start, end in window.places(self.form.places):
                yield start, end, False


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
    documents, end = _Documents(source), clock() + seconds
    found: dict[str, Found] = {}
    for kind in (_Strict, _Loose):
        missing = [kind.of(quote) for quote in quotes if quote not in found]
        if not _look(source, documents, missing, found, lambda: clock() > end):
            return found, False
    return found, True


def _look(
    source: ContextSource,
    documents: _Documents,
    missing: Sequence[_Needle],
    found: dict[str, Found],
    is_late: Callable[[], bool],
) -> bool:
    """Note the places of quotes; return whether the whole text was looked at in time."""
    held, byte, char = b"", 0, 0
    with closing(_closable(source)) as chunks:
        for chunk in chunks:
            if not missing:
                break
            if is_late():
                return False
            text = held + chunk
            window = _Window(text)
            missing = [
                needle
                for needle in missing
                if not _note(needle, window, (byte, char), documents, found)
            ]
            held = _tail(text)
            gone = text[: len(text) - len(held)]
            byte, char = byte + len(gone), char + _chars(gone)
    return True


def _note(
    needle: _Needle,
    window: _Window,
    before: tuple[int, int],
    documents: _Documents,
    found: dict[str, Found],
) -> bool:
    """Note the place of a passage in a window; return whether it is there."""
    for start, end, is_exact in needle.spans(window):
        place = documents.place(
            before[0] + start,
            end - start,
            before[1] + _chars(window.text[:start]),
            _chars(window.text[start:end]),
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
