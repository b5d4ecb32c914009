"""`search` and `lines`: search a text without a model. Runs in the REPL's process.

Nothing here copies the whole text. Words are found with the substring search of `str` and `mmap`, a
few hundred megabytes per second; only lines that contain a word are examined further.
"""

from __future__ import annotations

import heapq
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from rlm_mcp.sandbox.child.documents import Documents

SHOWN_CHARS = 500
SCORED_CHARS = 4_000
HEAD_CHARS = 80
NEIGHBOUR_CHARS = 60
STRETCHES = 64
HITS_PER_STRETCH = 256
MANY_TIES = 20  # no further words tell so many apart


class Match(NamedTuple):
    """A line or document that `search` found.

    `at` is the start of the line in `context`, or the document's index; `text` is the line or the
    document: all of it if it is short, else its beginning and the part around the first hit.
    """

    at: int
    text: str
    score: float


class Matches(list[Match]):
    """What `search` returns; already printed, so a cell does not echo it.

    `ties` is the number of omitted matches that score as high as the best.
    """

    ties: int = 0


class _Haystack(Protocol):
    def __len__(self) -> int: ...
    def find(self, word: str, start: int, end: int) -> int: ...
    def piece(self, hit: int) -> tuple[int, int]: ...
    def text(self, start: int, end: int) -> str: ...
    def place(self, start: int) -> int: ...


class _Lines:
    """One `str`, searched by lines."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __len__(self) -> int:
        return len(self._text)

    def find(self, word: str, start: int, end: int) -> int:
        return self._text.find(word, start, end)

    def piece(self, hit: int) -> tuple[int, int]:
        end = self._text.find("\n", hit)
        return self._text.rfind("\n", 0, hit) + 1, len(self._text) if end < 0 else end

    def text(self, start: int, end: int) -> str:
        return self._text[start:end]

    def place(self, start: int) -> int:
        return start


class _Documents:
    """A list of documents, searched in the file's UTF-8."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._size = documents.span(len(documents) - 1)[1] if documents else 0

    def __len__(self) -> int:
        return self._size

    def find(self, word: str, start: int, end: int) -> int:
        return self._documents.find(word.encode("utf-8", "replace"), start, end)

    def piece(self, hit: int) -> tuple[int, int]:
        return self._documents.span(self._documents.document_at(hit))

    def text(self, start: int, end: int) -> str:
        return self._documents.cut(start, end)

    def place(self, start: int) -> int:
        return self._documents.document_at(start)


def search(context: str | Documents, words: str | Iterable[str], k: int = 5) -> Matches:
    """Find the lines (documents, where `context` is a list) that contain the rarest words.

    Case is ignored. The fewer places contain a word, the more it counts; a whole word counts twice
    as much as a part of another.
    """
    wanted = _words(words)
    stack: _Haystack = _Lines(context) if isinstance(context, str) else _Documents(context)
    hits = {word: _hits(stack, word) for word in wanted}
    weights = {
        word: math.log(1 + len(stack) / (1 + len(found))) for word, found in hits.items() if found
    }
    pieces: dict[int, tuple[int, int]] = {}
    for word in weights:
        for hit in hits[word]:
            start, end = stack.piece(hit)
            pieces.setdefault(start, (end, hit))
    scores: Counter[float] = Counter()

    def scored() -> Iterator[Match]:
        for start, (end, hit) in pieces.items():
            match = _scored(stack, start, end, hit, weights)
            scores[match.score] += 1
            yield match

    best = heapq.nsmallest(max(int(k), 0), scored(), key=lambda match: (-match.score, match.at))
    matches = Matches(best)
    if best:
        matches.ties = scores[best[0].score] - sum(each.score == best[0].score for each in best)
    return matches


def lines(context: str | Iterable[str]) -> Iterator[str]:
    """Iterate over the lines of a text, or of each text of a list, without splitting all of it."""
    for text in [context] if isinstance(context, str) else context:
        start, size = 0, len(text)
        while start < size:
            end = text.find("\n", start)
            end = size if end < 0 else end
            yield text[start : end - 1] if text[end - 1 : end] == "\r" else text[start:end]
            start = end + 1


def shown(matches: Matches, context: str | Documents, around: int = 0) -> str:
    """Describe matches: each line with `around` lines before and after it, or each document."""
    if not matches:
        return "search: nothing found; the text has none of these words"
    if isinstance(context, str):
        found = [f"[at {each.at}] {_with_neighbours(context, each, around)}" for each in matches]
    else:
        found = [f"[document {each.at}] {each.text}" for each in matches]
    if matches.ties:
        found.append(_describe_ties(matches.ties))
    return "\n".join(found)


def _describe_ties(ties: int) -> str:
    if ties < MANY_TIES:
        return f"[{ties} more match just as well; add words to tell them apart]"
    return f"[{ties} more match just as well: go through all of them with code]"


def _with_neighbours(text: str, match: Match, around: int) -> str:
    if around <= 0:
        return match.text
    before = text[max(0, match.at - SCORED_CHARS) : match.at].split("\n")[-1 - around : -1]
    end = text.find("\n", match.at)
    after = text[end + 1 : end + 1 + SCORED_CHARS].split("\n")[:around] if end >= 0 else []
    near = [line[:NEIGHBOUR_CHARS] for line in (*before, "", *after)]
    near[len(before)] = match.text
    return "\n".join(near)


def _words(words: str | Iterable[str]) -> list[str]:
    asked = words.split() if isinstance(words, str) else [str(word) for word in words]
    cleaned = (word.strip(".,;:!?()[]{}\"'`") or word for word in asked)
    return list(dict.fromkeys(word.casefold() for word in cleaned if word))


def _spellings(word: str) -> set[str]:
    return {word, word.lower(), word.upper(), word.capitalize(), word.title()}


def _hits(stack: _Haystack, word: str) -> list[int]:
    """Find the places of a word: all if it is rare, else a sample spread over the text."""
    step = max(len(stack) // STRETCHES, 1 << 16)
    found: list[int] = []
    for spelling in _spellings(word):
        for start in range(0, len(stack), step):
            end, at, left = start + step + len(word), start, HITS_PER_STRETCH
            while left and (at := stack.find(spelling, at, end)) >= 0:
                found.append(at)
                at, left = at + len(spelling), left - 1
    return found


def _scored(stack: _Haystack, start: int, end: int, hit: int, weights: dict[str, float]) -> Match:
    near = max(start, hit - SCORED_CHARS // 4)
    text = stack.text(near, min(end, near + SCORED_CHARS))
    folded = text.casefold()
    score = sum(
        weight * (2 if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", folded) else 1)
        for word, weight in weights.items()
        if word in folded
    )
    around = _around(text, hit - near)
    if around.startswith("…"):
        # The start often holds a document's title, or says what a long line is about.
        head = stack.text(start, min(end, start + HEAD_CHARS)).split("\n")[0]
        around = f"{head} {around}"
    return Match(stack.place(start), around, round(score, 2))


def _around(text: str, hit: int) -> str:
    if len(text) <= SHOWN_CHARS:
        return text
    start = max(min(hit - SHOWN_CHARS // 3, len(text) - SHOWN_CHARS), 0)
    end = start + SHOWN_CHARS
    return ("…" if start else "") + text[start:end] + ("…" if end < len(text) else "")
