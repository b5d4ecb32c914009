"""`FINAL(answer, citations=[…])` outside code: the citations, apart from the answer. Pure."""

from __future__ import annotations

import ast
import re
from typing import cast

_CITATIONS = re.compile(
    r",\s*citations\s*=\s*([\[(].*[\])]|\"[^\"]*\"|'[^']*')\s*,?\s*\Z", re.DOTALL
)


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
    return argument[: match.start()], tuple(one for one in quotes if isinstance(one, str) and one)
