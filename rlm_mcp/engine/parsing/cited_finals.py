"""`FINAL(answer, citations=[…])` outside code: the citations, apart from the answer. Pure."""

from __future__ import annotations

import ast
import re
from typing import cast

_CITATIONS = re.compile(
    r",\s*citations\s*=\s*([\[({].*[\])}]|\"[^\"]*\"|'[^']*')\s*,?\s*\Z", re.DOTALL
)
_QUOTES = ("quote", "text", "passage", "citation")  # of a citation that is written as a dict


def split_citations(argument: str) -> tuple[str, tuple[str, ...]]:
    """Return what a final was given without its citations, and the quotes among these."""
    match = _CITATIONS.search(argument)
    if match is None:
        return argument, ()
    try:
        given: object = ast.literal_eval(match[1])
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return argument, ()
    quotes = cast("list[object]", given) if isinstance(given, list | tuple) else [given]
    return argument[: match.start()], tuple(filter(None, map(_quote_of, quotes)))


def _quote_of(given: object) -> str:
    """Return the quote that is meant; what is none stays as it is written, and is not found."""
    if isinstance(given, dict):
        fields = cast("dict[object, object]", given)
        given = next((fields[name] for name in _QUOTES if fields.get(name)), fields)
    return "" if given is None else str(given)
