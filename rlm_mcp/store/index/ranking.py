"""Ranks the passages of one indexed text by the words of a query (BM25). Blocking."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from sqlite3 import Connection
from typing import NamedTuple

from rlm_mcp.store.index.folding import UNSPACED, fold, is_unspaced
from rlm_mcp.store.index.passages import Passage

MAX_WORDS = 64
# How many of the best passages are given, over all pages of a result.
MAX_RANKED = 500
# A word in more than this share of the passages says little about any of them, unless the text is
# short; and ranking stops at so many occurrences, which bounds its time.
_COMMON_SHARE = 0.1
_COMMON_PASSAGES = 500
_MAX_RANKED_ROWS = 25_000
_MAX_EXPANSIONS = 50
# Where no word of a query is rare, so many of its longest ones are looked for.
_COMMON_TERMS = 3
_GRAM = 3

_WORD = re.compile(rf"[{UNSPACED}]+|[^\W_{UNSPACED}]+")


class QueryTerms(NamedTuple):
    """What a query looks for: words that spaces part, and runs of the unspaced scripts."""

    words: tuple[str, ...]
    runs: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        """Both, as they are looked for in a passage: of long runs, each group of three."""
        return (*self.words, *dict.fromkeys(gram for run in self.runs for gram in _grams(run)))


class Ranked(NamedTuple):
    """A passage and its score, the larger the better."""

    score: float
    passage: Passage


@dataclass(frozen=True)
class Ranking:
    """The best passages, best first, and what each term weighs when a line is chosen."""

    found: Sequence[Ranked]
    weights: Mapping[str, float]


def query_terms(query: str) -> QueryTerms:
    """Read a query's distinct terms, in order; at most `MAX_WORDS` of them."""
    composed = unicodedata.normalize("NFC", query)
    found = list(dict.fromkeys(_WORD.findall(fold(composed))))[:MAX_WORDS]
    words = tuple(term for term in found if not is_unspaced(term))
    runs = tuple(term for term in found if is_unspaced(term))
    longer = tuple(run for run in runs if len(run) > 1)
    # A single character is in too many groups of three to be looked for beside anything else.
    return QueryTerms(words, longer or (() if words else runs))


def rank(db: Connection, terms: QueryTerms, limit: int) -> Ranking:
    """Return the passages that hold any of the terms, best first.

    Args:
        db: an index that `build_index` made.
        terms: what is looked for.
        limit: how many passages at most.
    """
    total = db.execute("SELECT count(*) FROM passages").fetchone()[0]
    by_word = {word: [word] for word in terms.words}
    by_gram = {gram: _expanded(db, gram) for run in terms.runs for gram in _grams(run)}
    scores: dict[int, float] = {}
    weights: dict[str, float] = {}
    for table, meant in (("words", by_word), ("grams", by_gram)):
        counts = _counts(db, table, meant, total)
        weights |= {term: math.log(1 + total / count) for term, count in counts.items() if count}
        for row, score in _scored(db, table, meant, counts, limit):
            scores[row] = scores.get(row, 0.0) + score
    best = sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:limit]
    return Ranking([Ranked(round(score, 4), _passage(db, row)) for row, score in best], weights)


def _grams(run: str) -> list[str]:
    """Cut a run into overlapping groups of three characters; a shorter one is one group."""
    return [run[at : at + _GRAM] for at in range(max(1, len(run) - _GRAM + 1))]


def _expanded(db: Connection, gram: str) -> list[str]:
    """Return the groups of three in the index that begin with a shorter one."""
    if len(gram) == _GRAM:
        return [gram]
    sql = "SELECT term FROM gram_terms WHERE term >= ? AND term < ? LIMIT ?"
    rows = db.execute(sql, [gram, gram + "\U0010ffff", _MAX_EXPANSIONS])
    return [row[0] for row in rows]


def _counts(
    db: Connection, table: str, meant: Mapping[str, Sequence[str]], total: int
) -> dict[str, int]:
    """Count the passages of each term, up to one more than make it common."""
    most = _most(total) + 1
    sql = f"SELECT count(*) FROM (SELECT 1 FROM {table} WHERE {table} MATCH ? LIMIT ?)"  # noqa: S608  # ours
    return {
        term: db.execute(sql, [_any_of(spellings), most]).fetchone()[0] if spellings else 0
        for term, spellings in meant.items()
    }


def _scored(
    db: Connection,
    table: str,
    meant: Mapping[str, Sequence[str]],
    counts: Mapping[str, int],
    limit: int,
) -> Iterable[tuple[int, float]]:
    """Score by the rare terms, as far as there is room; if none is rare, by the longest."""
    found = sorted((term for term in meant if counts[term]), key=lambda term: counts[term])
    most = _most(db.execute("SELECT count(*) FROM passages").fetchone()[0])
    chosen: list[str] = []
    rows = 0
    for term in found:
        rows += counts[term]
        if counts[term] <= most and (rows <= _MAX_RANKED_ROWS or not chosen):
            chosen += meant[term]
    if chosen:
        return _best(db, table, _any_of(chosen), limit)
    if not found:
        return ()
    longest = sorted(found, key=len, reverse=True)[:_COMMON_TERMS]
    together = " AND ".join(f"({_any_of(meant[term])})" for term in longest)
    either = _any_of(spelling for term in longest for spelling in meant[term])
    return _best(db, table, together, limit) or _best(db, table, either, limit)


def _best(db: Connection, table: str, match: str, limit: int) -> list[tuple[int, float]]:
    """Return the best of the passages that match, of the first `_MAX_RANKED_ROWS` of them."""
    sql = (
        f"SELECT rowid, score FROM (SELECT rowid, -bm25({table}) AS score FROM {table} "  # noqa: S608  # ours
        f"WHERE {table} MATCH ? LIMIT ?) ORDER BY score DESC, rowid LIMIT ?"
    )
    return db.execute(sql, [match, _MAX_RANKED_ROWS, limit]).fetchall()


def _most(total: int) -> int:
    return max(_COMMON_PASSAGES, int(total * _COMMON_SHARE))


def _any_of(terms: Iterable[str]) -> str:
    return " OR ".join(f'"{term}"' for term in terms)


def _passage(db: Connection, row: int) -> Passage:
    sql = "SELECT document, start_char, line, start_byte, bytes FROM passages WHERE id = ?"
    return Passage(*db.execute(sql, [row]).fetchone())
