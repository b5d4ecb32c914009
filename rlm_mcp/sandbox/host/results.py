"""What the host makes of a REPL's frames, none of whose content it trusts.

`wire` has checked the shape and the sizes; here names are filtered, slices are held to what was
asked for, and what is said to be JSON is parsed.
"""

from __future__ import annotations

import json

from anyio import to_thread

from rlm_mcp.sandbox.types import (
    RESERVED_NAMES,
    CellError,
    CellResult,
    Citation,
    Final,
    LastingVariable,
    Variable,
    VariableText,
)
from rlm_mcp.sandbox.wire import CITED_NUMBERS, MAX_ANSWER_CHARS, MAX_QUOTE_CHARS, Frame
from rlm_mcp.text import names_in_line

QUICK_JSON_CHARS = 100_000  # parsed in a millisecond or two; longer JSON is parsed in a thread
MAX_NAMES_SHOWN = 50


async def cell_result(
    done: Frame, *, timeout_seconds: float, used_seconds: float, late: bool
) -> CellResult:
    """Read a `done` frame; `late`: the cell had to be interrupted."""
    fields, quotes = done.fields, len(done.fields["cited"]) // CITED_NUMBERS
    count = len(done.blobs) - quotes
    error = final = None
    if fields["error"]:
        error = CellError(done.text(2), done.text(3), done.text(4), fields["line"])
    if fields["final"]:
        text, kind = done.text(count - 2)[:MAX_ANSWER_CHARS], done.text(count - 1)
        is_json = fields["json"] and await _is_json(text)
        final = Final(text, kind, text if is_json else None)
    if late:
        error = _too_long(timeout_seconds, error, is_restored=fields["restored"])
    return CellResult(
        output=done.text(0),
        output_chars=fields["chars"],
        elapsed_seconds=used_seconds,
        error=error,
        final=final,
        timed_out=late,
        citations=tuple(_citation(done, count, number) for number in range(quotes)),
    )


def _citation(done: Frame, first: int, number: int) -> Citation:
    quote = done.text(first + number)[:MAX_QUOTE_CHARS]
    at = CITED_NUMBERS * number
    document, start, end = done.fields["cited"][at : at + CITED_NUMBERS]
    return Citation(quote, document, start, end) if start < end else Citation(quote)


async def _is_json(text: str) -> bool:
    if len(text) <= QUICK_JSON_CHARS:
        return _parses(text)
    return await to_thread.run_sync(_parses, text)


def _parses(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _too_long(timeout_seconds: float, error: CellError | None, *, is_restored: bool) -> CellError:
    message = f"the cell ran longer than {timeout_seconds:g} s and "
    if is_restored and error is not None:
        message += error.message
        return CellError("TimeoutError", message, f"TimeoutError: {message}")
    message += "was interrupted; the variables it had assigned are kept"
    frames = error.traceback.rpartition("\n")[0] if error else ""
    trace = f"{frames}\nTimeoutError: {message}".lstrip()
    return CellError("TimeoutError", message, trace, error.line if error else None)


def lost_result(
    why: str, kept: list[str], *, timeout_seconds: float | None, used_seconds: float
) -> CellResult:
    """Describe why the REPL was replaced, and which variables are still there."""
    if timeout_seconds is not None:
        kind = "TimeoutError"
        why = f"the cell ran longer than {timeout_seconds:g} s and {why}"
    else:
        kind = "REPLDied"
        why = f"the process of the REPL ended: {why}"
    rest = "All variables are lost."
    if kept:
        names = names_in_line(kept, MAX_NAMES_SHOWN)
        rest = f"Restored as before this cell: {names}. Other variables are lost."
    message = f"{why}. A fresh REPL with the same context was started. {rest}"
    return CellResult(
        output="",
        output_chars=0,
        elapsed_seconds=used_seconds,
        error=CellError(kind, message, f"{kind}: {message}"),
        timed_out=timeout_seconds is not None,
        lost_variables=True,
    )


def refused_result(message: str) -> CellResult:
    """Describe why a cell was not run."""
    error = CellError("ValueError", message, f"ValueError: {message}")
    return CellResult(output="", output_chars=0, elapsed_seconds=0.0, error=error)


def variables(frame: Frame) -> list[Variable]:
    """Read a `variables` frame; names that cannot be of variables are left out."""
    sizes: list[int] = frame.fields["sizes"]
    rows = {
        frame.text(3 * at): (frame.text(3 * at + 1), size, frame.text(3 * at + 2))
        for at, size in enumerate(sizes)
    }
    return [Variable(name, *row) for name, row in rows.items() if is_variable(name)]


def lasting(frame: Frame) -> list[LastingVariable]:
    """Read a `kept` frame; names that cannot be of variables are left out."""
    rows = range(0, len(frame.blobs) - 2, 3)
    read = [LastingVariable(frame.text(at), frame.blobs[at + 1], frame.text(at + 2)) for at in rows]
    return [one for one in {one.name: one for one in read}.values() if _can_last(one.name)]


def names(frame: Frame) -> list[str]:
    """Read the names that a frame lists, without those that cannot be of variables."""
    listed = dict.fromkeys(frame.text(at) for at in range(len(frame.blobs)))
    return [name for name in listed if _can_last(name)]


def _can_last(name: str) -> bool:
    """Return whether what has this name may be kept: names with one underscore are not listed."""
    return is_variable(name.removeprefix("_"))


def is_variable(name: str) -> bool:
    """Return whether a variable can have this name, as far as a REPL lists its variables."""
    is_shown = bool(name) and name.isprintable() and not name.startswith("_")
    return is_shown and name not in RESERVED_NAMES


async def variable_text(name: str, frame: Frame, start: int, limit: int) -> VariableText:
    """Read a `slice` frame of a variable that was found: at most `limit` characters."""
    fields, text = frame.fields, frame.text(1)[:limit]
    start = min(fields["start"], start)
    end = start + len(text)
    is_whole = start == 0 and fields["total"] == end
    return VariableText(
        name=name,
        type=frame.text(0),
        size=fields["size"],
        text=text,
        start=start,
        end=end,
        total=max(fields["total"], end),
        json=fields["json"] and (not is_whole or await _is_json(text)),
    )
