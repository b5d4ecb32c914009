"""Words as they are compared: without case and accents. Texts and queries are folded alike. Pure.

SQLite's own folding knows the accents of Latin letters alone, takes a vowel sign for the end of a
word, and so finds neither Greek as it is written nor Arabic with its vowels.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

# Scripts that put no spaces between words, those of India, whose vowels are signs beside a letter,
# and Korean, whose words carry their particles: Devanagari to Sinhala, Thai, Lao, Tibetan, Burmese,
# Khmer, kana, Han and Hangul. They are found by groups of three characters.
UNSPACED = (
    "\u0900-\u0963\u0966-\u0dff\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff"
    "\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
)
_UNSPACED_RUN = re.compile(f"[{UNSPACED}]+")
_PARTS = re.compile(f"([{UNSPACED}]+)")
# Accents and vowel points of Latin, Greek, Cyrillic, Hebrew, Arabic and Syriac, the line that
# stretches an Arabic word, and characters without width.
_MARKS = re.compile(
    "[\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640"
    "\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e8\u06ea-\u06ed\u0711\u0730-\u074a\u1ab0-\u1aff"
    "\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f\xad\u200b-\u200d\u2060\ufeff]+"
)
# Letters that no accent makes of others, though people type them without; and those of which
# Arabic and Persian keyboards write one and the same word with two.
_PLAINLY = str.maketrans(
    {"ł": "l", "ø": "o", "đ": "d", "ħ": "h", "ŧ": "t", "ı": "i", "æ": "ae", "œ": "oe"}
    | {"\u064a": "\u06cc", "\u0649": "\u06cc", "\u0643": "\u06a9"}
)
_HALF_WIDTH = re.compile("[\uff66-\uff9f]+")
_MARKED_KANA = re.compile("[\uff66-\uff9d][\uff9e\uff9f]")
_WITHOUT_WIDTH = re.compile("[\xad\u200b-\u200d\u2060\ufeff]+")


def fold(text: str) -> str:
    """Return a text as its words are compared; what is of an unspaced script stays as it is."""
    if text.isascii():
        return text.lower()
    return "".join(
        piece if at % 2 else _fold_spaced(piece)
        for at, piece in enumerate(_PARTS.split(_of_full_width(text)))
    )


def _of_full_width(text: str) -> str:
    """Return a text without characters of no width, and with kana of the usual width."""
    text = _WITHOUT_WIDTH.sub("", text)
    return _HALF_WIDTH.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text)


def _fold_spaced(text: str) -> str:
    return _MARKS.sub("", unicodedata.normalize("NFKD", text)).casefold().translate(_PLAINLY)


@cache
def fold_char(char: str) -> str:
    """Return what a character becomes in `fold`; nothing for a mark."""
    char = _of_full_width(char)
    return char if is_unspaced(char) else _fold_spaced(char)


def fold_each(text: str) -> list[str]:
    """Return what each character becomes; a kana of half the width has its mark with it."""
    pieces = list(map(fold_char, text))
    for found in _MARKED_KANA.finditer(text):
        pieces[found.start() : found.end()] = [_of_full_width(found[0]), ""]
    return pieces


def is_unspaced(text: str) -> bool:
    """Whether a text begins with a character of an unspaced script."""
    return _UNSPACED_RUN.match(text) is not None


def split_scripts(text: str) -> tuple[str, str]:
    """Return the words of a text that spaces part, folded, and its runs of the unspaced scripts."""
    if text.isascii():
        return text, ""  # SQLite folds that itself, sooner
    text = _of_full_width(text)
    runs = _UNSPACED_RUN.findall(text)
    words = _fold_spaced(_UNSPACED_RUN.sub(" ", text) if runs else text)
    # The spaces at the end complete the groups of three that begin at a run's last characters.
    return words, "  ".join(runs) + "  " if runs else ""
