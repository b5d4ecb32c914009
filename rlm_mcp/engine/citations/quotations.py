"""Quotations in an answer, and how two spellings of one passage are compared. Pure."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from typing import cast

MIN_QUOTATION_CHARS = 20
MAX_QUOTATIONS = 50
MAX_QUOTATION_CHARS = 2_000

# What fields of typed answers are called that hold the text's own words.
_NAMES_OF_QUOTES = frozenset(
    {"quote", "quotes", "quotation", "quotations", "citation", "citations", "excerpt", "excerpts"}
)
# Pairs of marks, and blocks that begin with `>`; a quotation does not go over a blank line.
_QUOTED = re.compile(
    "|".join(
        f"{first}((?:(?!\\n\\s*\\n)[^{first}{last}]){{{MIN_QUOTATION_CHARS},}}){last}"
        for first, last in ("“”", "„“", "„”", "«»", "»«", "「」", "『』", '""', "‘’")
    )
)
_BLOCK = re.compile(r"(?:^[ \t]*>[^\n]*(?:\n|$))+", re.MULTILINE)
_BLOCK_MARK = re.compile(r"^[ \t]*>[ \t]?", re.MULTILINE)

# Marks that stand for each other in copies of a text.
MARKS_ALIKE = {"'": "'’‘‚‛`´ʼ", '"': '"“”„‟«»', "-": "-‐‑‒–—−"}
_PLAIN = {ord(one): plain for plain, alike in MARKS_ALIKE.items() for one in alike}
_CLASSES = {one: alike for alike in MARKS_ALIKE.values() for one in alike}
_HYPHENS = MARKS_ALIKE["-"]
_DOTS, _ANY_DOTS = "...", rb"(?:\.\.\.|\xe2\x80\xa6)"
# What stands within words and nobody sees.
UNSEEN = "\xad\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\ufeff"
_WITHOUT_UNSEEN = dict.fromkeys(map(ord, UNSEEN))
SPACE_BYTES = rb"(?:[\s\x1c-\x1f]|\xc2[\x85\xa0]|\xe2\x80[\x80-\x8b\xa8\xa9\xaf]|\xe3\x80\x80)"
_WORD_OF_LETTERS = re.compile(r"\w+")
_ASCII_WORD = re.compile(r"[0-9A-Za-z]{3,}")


def quotations(answer: str) -> list[str]:
    """Return the quotations in an answer that are long enough to be looked for, in order.

    In an answer that is JSON they are looked for within its strings, which are none by themselves,
    but for those that are called so.
    """
    strings = list(_strings(answer))
    quoted = (text for words, is_quote in strings for text in ([words] if is_quote else _in(words)))
    texts = (text.strip()[:MAX_QUOTATION_CHARS] for text in quoted)
    long = (text for text in texts if len(text) >= MIN_QUOTATION_CHARS)
    return list(dict.fromkeys(long))[:MAX_QUOTATIONS]


def _in(words: str) -> list[str]:
    found = {
        match.start(): next(group for group in match.groups() if group)
        for match in _QUOTED.finditer(words)
    }
    for match in _BLOCK.finditer(words):
        text = _BLOCK_MARK.sub("", match.group()).strip()
        if len(text) >= MIN_QUOTATION_CHARS:
            found.setdefault(match.start(), text)
    return [found[at] for at in sorted(found)]


def _strings(answer: str) -> Iterator[tuple[str, bool]]:
    """Yield the strings of an answer that is JSON, and whether each is a quote; else all of it."""
    if not answer.lstrip().startswith(("{", "[")):
        return iter([(answer, False)])
    try:
        return _strings_in(json.loads(answer), is_quote=False)
    except (ValueError, RecursionError):
        return iter([(answer, False)])


def _strings_in(value: object, *, is_quote: bool) -> Iterator[tuple[str, bool]]:
    if isinstance(value, str):
        yield value, is_quote
    elif isinstance(value, list):
        for item in cast("list[object]", value):
            yield from _strings_in(item, is_quote=is_quote)
    elif isinstance(value, dict):
        for key, item in cast("dict[str, object]", value).items():
            yield from _strings_in(item, is_quote=key.lower() in _NAMES_OF_QUOTES)


def normalised(text: str) -> str:
    """Return a text with plain quotation marks, dashes and dots, and one space for white space."""
    return " ".join(composed(text).translate(_PLAIN).split())


def composed(text: str) -> str:
    """Return a text with each accent and its letter as one character, where there is one."""
    return unicodedata.normalize("NFC", text).replace("…", _DOTS).translate(_WITHOUT_UNSEEN)


def telling_word(quote: str) -> bytes:
    """Return the longest word of a quote, which every spelling of it holds; empty if none does."""
    whole = composed(quote)
    plain = max(_ASCII_WORD.findall(whole), key=len, default="")
    if plain:
        return plain.encode()
    word = max(_WORD_OF_LETTERS.findall(whole), key=len, default="")
    return word.encode() if unicodedata.is_normalized("NFD", word) else b""


def any_spelling(quote: str) -> re.Pattern[bytes]:
    """Match a quote in UTF-8, whatever its white space, quotation marks, dashes and accents."""
    words = map(_any_word, composed(quote).split())
    return re.compile((SPACE_BYTES + b"+").join(words))


def _any_word(word: str) -> bytes:
    return _ANY_DOTS.join(
        b"".join(_any_mark(char, is_last=place == len(part)) for place, char in enumerate(part, 1))
        for part in word.split(_DOTS)
    )


def _any_mark(char: str, *, is_last: bool) -> bytes:
    alike = _CLASSES.get(char)
    if alike is None:
        apart = unicodedata.normalize("NFD", char)
        spellings = [
            re.escape(one.encode("utf-8", "replace")) for one in dict.fromkeys((char, apart))
        ]
        return spellings[0] if len(spellings) == 1 else b"(?:" + b"|".join(spellings) + b")"
    any_of = b"(?:" + b"|".join(re.escape(one.encode()) for one in alike) + b")"
    # A compound may be parted at the end of a line.
    return any_of + SPACE_BYTES + b"*" if char in _HYPHENS and not is_last else any_of
