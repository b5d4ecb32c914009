"""Quotes as people and models write them: shortened, in other case, without the text's line ends.

Each is a pattern over UTF-8, looked for where no stricter spelling of the quote is in a text. Pure.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from rlm_mcp.engine.citations.quotations import MARKS_ALIKE, SPACE_BYTES, composed

# What an ellipsis stands for: so much of the text at most.
MAX_GAP_BYTES = 4_000
# A shorter part between two ellipses tells nothing.
_MIN_PART_CHARS = 5
_MIN_CHARS = 12
_MAX_BEGINNINGS = 1_000  # of a quote in several parts, in one look
_ELLIPSIS = re.compile(r"\[\s*(?:\.\.\.|\u2026)\s*\]|\(\s*(?:\.\.\.|\u2026)\s*\)|\.{3,}|\u2026")
_AROUND = " \t\n\r,;:.!?\"'\u201c\u201d\u2018\u2019*_`"
# Letters that PDF files write as one.
_TOGETHER = {
    "ffi": ("ffi", "\ufb03", "\ufb00i", "f\ufb01"),
    "ffl": ("ffl", "\ufb04", "\ufb00l", "f\ufb02"),
    "ff": ("ff", "\ufb00"),
    "fi": ("fi", "\ufb01"),
    "fl": ("fl", "\ufb02"),
    "st": ("st", "\ufb06", "\ufb05"),
}
_APART = {ligature: letters[0] for letters in _TOGETHER.values() for ligature in letters[1:]}
_PIECES = re.compile("|".join((*_TOGETHER, ".")), re.IGNORECASE | re.DOTALL)
_PLAIN_WORD = re.compile(r"[0-9A-Za-z]{3,}")
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u3005-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef]"
)
_MARKUP = rb"[*_`]{0,3}"  # of Markdown, which a quote leaves out
_SPACE = _MARKUP + rb"(?:" + SPACE_BYTES + rb"|\|)+" + _MARKUP  # cells of a table stand apart


class LooseQuote(NamedTuple):
    """A quote: the parts between its ellipses, and an ASCII word of it in small letters, if any."""

    anchor: bytes
    parts: tuple[re.Pattern[bytes], ...]

    @classmethod
    def of(cls, quote: str) -> LooseQuote:
        """Read a quote; without parts where too little of it is left to look for."""
        whole = composed(_without_ligatures(quote))
        parts = [stripped for one in _ELLIPSIS.split(whole) if (stripped := one.strip(_AROUND))]
        if len(parts) > 1:
            parts = [one for one in parts if len(one) >= _MIN_PART_CHARS]
            parts = parts if sum(map(len, parts)) >= _MIN_CHARS else []
        return cls(_anchor(parts), tuple(re.compile(_any_form(part)) for part in parts))

    def places(self, text: bytes) -> Iterator[tuple[int, int]]:
        """Yield where its parts follow each other in a text."""
        if not self.parts:
            return
        first, *others = self.parts
        for begun in islice(first.finditer(text), _MAX_BEGINNINGS if others else None):
            end = begun.end()
            for part in others:
                found = part.search(text, end, end + MAX_GAP_BYTES)
                if found is None:
                    break
                end = found.end()
            else:
                yield begun.start(), end


def _without_ligatures(text: str) -> str:
    return "".join(_APART.get(char, char) for char in text)


def _anchor(parts: list[str]) -> bytes:
    words = (
        word
        for part in parts
        for piece in re.split("(?i)ff[il]?|f[il]|st", part)
        for word in _PLAIN_WORD.findall(piece)
    )
    return max(words, key=len, default="").lower().encode()


def _any_form(part: str) -> bytes:
    return _SPACE.join(map(_any_word, part.split()))


def _any_word(word: str) -> bytes:
    forms: list[bytes] = []
    pieces = _PIECES.findall(word)
    for place, piece in enumerate(pieces, 1):
        forms.append(_any_piece(piece))
        if place < len(pieces) and (_UNSPACED.match(piece) or piece in MARKS_ALIKE["-"]):
            forms.append(SPACE_BYTES + b"*")  # lines end anywhere there
    return b"".join(forms)


def _any_piece(piece: str) -> bytes:
    alike = next((marks for marks in MARKS_ALIKE.values() if piece in marks), "")
    together = _TOGETHER.get(piece.lower(), ())
    spellings = dict.fromkeys((piece, piece.lower(), piece.upper(), *alike, *together))
    apart = (unicodedata.normalize("NFD", one) for one in tuple(spellings))
    forms = dict.fromkeys((*spellings, *apart))
    encoded = sorted((one.encode("utf-8", "replace") for one in forms), key=len, reverse=True)
    if len(piece) == len(encoded) == 1:
        return re.escape(encoded[0])
    return b"(?:" + b"|".join(map(re.escape, encoded)) + b")"
