"""What a root model is shown of what its code printed. Pure: values in, text out."""

from __future__ import annotations

from itertools import groupby

from rlm_mcp.sandbox.types import CellError, CellResult
from rlm_mcp.text import without_surrogates

CONTEXT_RESTORED = (
    "[Your code assigned `context`. `context` was restored. Do not overwrite it; store results "
    "under another name.]"
)

_MIN_TRACEBACK_CHARS = 400
_FOLDED_FROM = 3


def cut_middle(text: str, limit: int, *, total: int | None = None) -> str:
    """Keep head and tail of `text`, `limit` characters, and say how many are left out.

    Args:
        text: what is to be shown. Surrogates, which no request can carry, become `?`.
        limit: characters kept, besides the note.
        total: characters there were before `text` was cut an earlier time.
    """
    text = without_surrogates(text)
    if len(text) <= limit:
        return text
    tail = limit // 3
    head = limit - tail
    left_out = max(total or 0, len(text)) - limit
    note = f"[… {left_out} characters left out …]"
    return "\n".join(part for part in (text[:head], note, text[len(text) - tail :]) if part)


def fold_lines(text: str) -> str:
    """Show equal lines that follow each other once, with their number, from three on."""
    shown: list[str] = []
    for line, group in groupby(text.split("\n")):
        count = sum(1 for _ in group)
        if count < _FOLDED_FROM:
            shown += [line] * count
        else:
            shown.append(f"{line}   (this line {count} times)" if line.strip() else line)
    return "\n".join(shown)


def show_cell(result: CellResult, limit: int, *, fold: bool = False) -> str:
    """Show what a cell printed and how it failed; at most `limit` characters of output.

    The error comes last, its type and message whole, however long the traceback before them.
    """
    output = fold_lines(result.output) if fold else result.output
    total = result.output_chars if result.output_chars > len(result.output) else None
    parts = [cut_middle(output.strip("\n"), limit, total=total)] if output.strip() else []
    if result.timed_out and not result.lost_variables:
        parts.append("The cell was stopped at its time limit; what it had assigned is kept.")
    if result.lost_variables:
        parts.append(
            "The REPL had to be replaced by a fresh one: all variables are gone, `context` is "
            "still there. Assign again what you need."
        )
    if result.error is not None:
        parts.append(_show_error(result.error, limit))
    return "\n".join(parts) or "(nothing was printed; print what you want to see)"


def _show_error(error: CellError, limit: int) -> str:
    last = f"{error.type}: {error.message}" if error.message else error.type
    frames = error.traceback.rstrip().removesuffix(last).rstrip()
    if frames:
        frames = cut_middle(frames, max(limit, _MIN_TRACEBACK_CHARS)) + "\n"
    return frames + without_surrogates(last)
