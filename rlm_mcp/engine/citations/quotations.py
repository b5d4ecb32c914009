"""Quotations in an answer, and how two spellings of one passage are compared. Pure."""

from __future__ import annotations

import re

MIN_QUOTATION_CHARS = 20
MAX_QUOTATIONS = 50
MAX_QUOTATION_CHARS = 2_000

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
_ALIKE = (
    ("'", "'’‘‚‛`´ʼ"),
    ('"', '"“”„‟«»'),
    ("-", "-‐‑‒–—−"),
)
_PLAIN = {ord(one): plain for plain, alike in _ALIKE for one in alike}
_CLASSES = {one: alike for _, alike in _ALIKE for one in alike}
_SPACE_BYTES = rb"(?:[\s\x1c-\x1f]|\xc2[\x85\xa0]|\xe2\x80[\x80-\x8b\xa8\xa9\xaf]|\xe3\x80\x80)"
_WORD_OF_LETTERS = re.compile(r"\w+")


def quotations(answer: str) -> list[str]:
    """Return the quotations in an answer that are long enough to be looked for, in order."""
    found = {
        match.start(): next(group for group in match.groups() if group)
        for match in _QUOTED.finditer(answer)
    }
    for match in _BLOCK.finditer(answer):
        text = _BLOCK_MARK.sub("", match.group()).strip()
        if len(text) >= MIN_QUOTATION_CHARS:
            found.setdefault(match.start(), text)
    texts = (found[at].strip()[:MAX_QUOTATION_CHARS] for at in sorted(found))
    long = (text for text in texts if len(text) >= MIN_QUOTATION_CHARS)
    return list(dict.fromkeys(long))[:MAX_QUOTATIONS]


def normalised(text: str) -> str:
    """Return a text with plain quotation marks and dashes, and one space for all white space."""
    return " ".join(text.translate(_PLAIN).split())


def longest_word(quote: str) -> bytes:
    """Return the longest word of a quote, which every spelling of it holds."""
    return max(_WORD_OF_LETTERS.findall(quote), key=len, default="").encode()


def any_spelling(quote: str) -> re.Pattern[bytes]:
    """Match a quote in UTF-8, whatever its white space, quotation marks and dashes."""
    words = (b"".join(map(_any_mark, word)) for word in quote.split())
    return re.compile((_SPACE_BYTES + b"+").join(words))


def _any_mark(char: str) -> bytes:
    alike = _CLASSES.get(char)
    if alike is None:
        return re.escape(char.encode("utf-8", "replace"))
    return b"(?:" + b"|".join(re.escape(one.encode()) for one in alike) + b")"
