"""Finds the line of a passage that answers a query best. Pure."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate
from typing import NamedTuple

from rlm_mcp.store.index.folding import UNSPACED, fold_each, is_unspaced

MAX_LINE_CHARS = 1000


class Located(NamedTuple):
    """The words found on the best line: characters of the passage, the line from 0, its text."""

    start: int
    end: int
    line: int
    text: str


def best_line(passage: str, weights: Mapping[str, float], context_lines: int) -> Located:
    """Return the line whose distinct terms weigh most; the first of equals.

    Args:
        passage: its text.
        weights: by folded term.
        context_lines: how many lines of the passage are given before and after it.
    """
    lines = [line + "\n" for line in passage.split("\n")]
    pattern = _any_of(weights)
    best, number = (-1.0, 0, 0), 0
    for index, line in enumerate(lines):
        folded = _Folded(line)
        terms = list(pattern.finditer(folded.text))
        weight = sum(weights[term] for term in {match[0] for match in terms})
        if terms and weight > best[0]:
            span = folded.place(terms[0].start()), folded.end(terms[-1].end())
            best, number = (weight, *span), index
    before = sum(map(len, lines[:number]))
    start = best[1]
    end = max(start, min(best[2], start + MAX_LINE_CHARS))
    shown = _around(lines, number, start, context_lines)
    return Located(before + start, before + end, number, shown)


class _Folded:
    """A line as its words are compared, and where each character of that is in the line."""

    def __init__(self, line: str) -> None:
        pieces = [line.lower()] if line.isascii() else fold_each(line)
        self.text = "".join(pieces)
        self._ends = None if line.isascii() else list(accumulate(map(len, pieces)))

    def place(self, at: int) -> int:
        """Return where a character is in the line."""
        return at if self._ends is None else bisect_right(self._ends, at)

    def end(self, at: int) -> int:
        """Return where the characters before one end in the line, with the marks on the last."""
        return max(self.place(at), self.place(at - 1) + 1)


def _around(lines: list[str], number: int, start: int, context_lines: int) -> str:
    line = lines[number].rstrip("\n")
    if len(line) > MAX_LINE_CHARS:
        first = max(0, min(start - MAX_LINE_CHARS // 4, len(line) - MAX_LINE_CHARS))
        line = line[first : first + MAX_LINE_CHARS]
    above = "".join(lines[max(0, number - context_lines) : number])
    below = "".join(lines[number + 1 : number + 1 + context_lines]).rstrip("\n")
    return f"{above}{line}" + (f"\n{below}" if below else "")


def _any_of(weights: Mapping[str, float]) -> re.Pattern[str]:
    """Match any term: a word as a whole, a group of an unspaced script anywhere."""
    spaced = [re.escape(term) for term in weights if not is_unspaced(term)]
    unspaced = [re.escape(term) for term in weights if is_unspaced(term)]
    parts = [rf"(?<![^\W_{UNSPACED}])(?:{'|'.join(spaced)})(?![^\W_{UNSPACED}])"] if spaced else []
    return re.compile("|".join([*parts, *unspaced]) or r"(?!)")
