"""Text made fit to be shown or sent: surrogates, shortening, names that were probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def without_surrogates(text: str) -> str:
    """Replace lone surrogates, which UTF-8 cannot hold, by `?`."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def preview(text: str, limit: int = 120) -> str:
    """Return one line of at most `limit` characters: white space folded, cut with an ellipsis."""
    # White space may shrink the text, hardly ever to an eighth.
    line = " ".join(without_surrogates(text[: limit * 8]).split())
    return line if len(line) <= limit else line[: max(0, limit - 1)] + "…"


def cut(text: str, limit: int) -> str:
    """Keep the start of a text that is longer than `limit`, and say how much is left out."""
    if len(text) <= limit:
        return text
    note = f"\n[{len(text) - limit + 60} more characters]"
    return text[: limit - 60] + note


def nearest(name: str, known: Iterable[str], count: int = 1, cutoff: float = 0.6) -> list[str]:
    """Return up to `count` of the known names that are most like `name`, the nearest first."""
    return difflib.get_close_matches(name[:200], list(known), n=count, cutoff=cutoff)
