"""Searching stored texts in a REPL, where a pattern that runs away is stopped by time."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from rlm_mcp.cursors import decode_cursor, encode_cursor, invalid_cursor
from rlm_mcp.errors import InvalidInputError, SandboxError
from rlm_mcp.sandbox.types import CellResult, Repl
from rlm_mcp.service.contexts.requests import SearchQuery
from rlm_mcp.service.saved_variables import no_calls

SEARCH_SECONDS = 20.0
MAX_PATTERN_CHARS = 10_000
MAX_FOUND_CHARS = 60_000
# What compiling raises: `re.error` has a new name from Python 3.13 on.
_PATTERN_ERRORS = ("error", "PatternError", "OverflowError", "RecursionError")

_LIST = "search"
_PLACES = range(1 << 62)  # what a document and a character of it may be numbered
# Runs in the REPL: `context` and `FINAL` are its own names. Matches are kept in a variable, so that
# those found before the time was up can still be read.
_PROGRAM = """\
import json as _json, re as _re
_q = _json.loads({query!r})
_flags = _re.MULTILINE | (_re.IGNORECASE if _q["ignore_case"] else 0)
_pattern = _re.compile(_re.escape(_q["pattern"]) if _q["literal"] else _q["pattern"], _flags)
matches = []
_room = [_q["max_chars"]]
def _line_bounds(text, start, end, around):
    first = text.rfind("\\n", 0, start) + 1
    last = text.find("\\n", max(end - 1, start))
    last = len(text) if last < 0 else last
    for _ in range(around):
        first = text.rfind("\\n", 0, max(first - 1, 0)) + 1
        after = text.find("\\n", last + 1)
        last = len(text) if after < 0 else after
    return first, last
def _search(document, text, position, limit):
    line, counted = 1, 0
    for match in _pattern.finditer(text, position):
        start, end = match.span()
        line += text.count("\\n", counted, start)
        counted = start
        first, last = _line_bounds(text, start, end, _q["context_lines"])
        first, last = max(first, start - 500), min(last, end + 500)
        matches.append([document, line, start, end, text[first:last][:4000]])
        _room[0] -= len(matches[-1][4]) + 100
        if len(matches) >= limit or _room[0] < 0:
            return
_documents = [context] if isinstance(context, str) else context
for _number in range(_q["document"], len(_documents)):
    _position = _q["position"] if _number == _q["document"] else 0
    _search(_number, _documents[_number], _position, _q["limit"] + 1)
    if len(matches) > _q["limit"] or _room[0] < 0:
        break
FINAL([matches, _room[0] < 0])
"""


@dataclass(frozen=True)
class FoundMatch:
    """One match; `document` counts over all documents searched, from 0, `line` from 1.

    `start` and `end` are characters of that document; `text` is the match's line or lines.
    """

    document: int
    line: int
    start: int
    end: int
    text: str


def check_pattern(query: SearchQuery) -> None:
    """Refuse a pattern that is empty or too long; the REPL checks that it is an expression.

    Raises:
        InvalidInputError: with the pattern and its length.
    """
    if not query.pattern or len(query.pattern) > MAX_PATTERN_CHARS:
        raise InvalidInputError(
            f"The pattern {query.pattern[:60]!r} has {len(query.pattern):,} characters; it "
            f"needs 1 to {MAX_PATTERN_CHARS:,}.",
            fix="Give a shorter one.",
        )


async def search(
    repl: Repl, query: SearchQuery, cursor: str, seconds: float = SEARCH_SECONDS
) -> tuple[list[FoundMatch], str | None]:
    """Find up to `query.limit` matches from `cursor` on; also return the cursor of the next page.

    When the `seconds` are over, those found by then are given.

    Raises:
        InvalidInputError: the pattern is not a regular expression, nothing was found in time, or
            the cursor is not ours.
        SandboxError: the process that searched is gone.
    """
    document, position = _place(cursor)
    place = {"document": document, "position": position, "max_chars": MAX_FOUND_CHARS}
    wanted = json.dumps({**asdict(query), **place})
    done = await repl.execute(
        _PROGRAM.format(query=wanted), timeout_seconds=seconds, on_call=no_calls
    )
    if done.timed_out and not done.lost_variables:
        by_then = await repl.execute("FINAL([matches, True])", timeout_seconds=2, on_call=no_calls)
        if _matches(by_then)[0]:
            done = by_then
    if done.final is None or not done.final.json:
        raise _failure(query, done, seconds)
    found, is_cut = _matches(done)
    is_more = is_cut or len(found) > query.limit
    found = found[: query.limit]
    return found, _cursor_after(found[-1]) if is_more else None


def _matches(done: CellResult) -> tuple[list[FoundMatch], bool]:
    """Read what was found, and whether there was no room for more."""
    text = done.final.json if done.final and done.final.json else "[[], false]"
    rows: list[list[Any]]
    rows, is_cut = json.loads(text)
    return [FoundMatch(*row) for row in rows], bool(is_cut)


def _failure(query: SearchQuery, done: CellResult, seconds: float) -> Exception:
    if done.timed_out or done.lost_variables:
        return InvalidInputError(
            f"The pattern {query.pattern[:200]!r} was stopped after {seconds:g} s without a match.",
            fix="Avoid nested repetition such as (a+)+, search fewer contexts, or set "
            "literal=true.",
        )
    if done.error and done.error.type in _PATTERN_ERRORS:
        return InvalidInputError(
            f"The pattern {query.pattern[:200]!r} is not a regular expression: "
            f"{done.error.message}.",
            fix="Correct it, or set literal=true to find the text as it is.",
        )
    reason = done.error.message if done.error else "no result"
    return SandboxError(f"The search failed: {reason}", fix="Try again.")


def _cursor_after(last: FoundMatch) -> str:
    return encode_cursor(_LIST, last.document, max(last.end, last.start + 1))


def _place(cursor: str) -> tuple[int, int]:
    """Return the document and the character at which a search continues."""
    if not cursor:
        return 0, 0
    match decode_cursor(_LIST, cursor):
        case [int(document), int(position)] if document in _PLACES and position in _PLACES:
            return document, position
        case _:
            raise invalid_cursor(cursor)
