"""What the host makes of a REPL's frames."""

from __future__ import annotations

from rlm_mcp.sandbox.types import CellError, CellResult, Final, Variable, VariableText
from rlm_mcp.sandbox.wire import Frame


def cell_result(
    done: Frame, *, timeout_seconds: float, used_seconds: float, late: bool
) -> CellResult:
    """Read a `done` frame; `late` says that the cell had to be interrupted."""
    fields, count = done.fields, len(done.blobs)
    error = final = None
    if fields["error"]:
        error = CellError(done.text(2), done.text(3), done.text(4), fields["line"])
    if fields["final"]:
        final = _final(done.text(count - 2), done.text(count - 1), is_json=fields["json"])
    if late:
        error = _too_long(timeout_seconds, error, is_restored=fields["restored"])
    return CellResult(
        output=done.text(0),
        output_chars=fields["chars"],
        elapsed_seconds=used_seconds,
        error=error,
        final=final,
        timed_out=late,
    )


def _final(text: str, kind: str, *, is_json: bool) -> Final:
    return Final(text, kind, text if is_json else None)


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
    """Say that the REPL was replaced, why, and which variables are still there."""
    if timeout_seconds is not None:
        kind = "TimeoutError"
        why = f"the cell ran longer than {timeout_seconds:g} s and {why}"
    else:
        kind = "REPLDied"
        why = f"the process of the REPL ended: {why}"
    rest = "All variables are lost."
    if kept:
        names = ", ".join(kept)
        rest = f"Small variables are back as they were before this cell: {names}; others are lost."
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
    """Say why a cell was not run at all."""
    error = CellError("ValueError", message, f"ValueError: {message}")
    return CellResult(output="", output_chars=0, elapsed_seconds=0.0, error=error)


def variables(frame: Frame) -> list[Variable]:
    """Read a `variables` frame."""
    sizes: list[int] = frame.fields["sizes"]
    return [
        Variable(frame.text(3 * at), frame.text(3 * at + 1), size, frame.text(3 * at + 2))
        for at, size in enumerate(sizes)
    ]


def variable_text(name: str, frame: Frame) -> VariableText:
    """Read a `slice` frame of a variable that was found."""
    fields, text = frame.fields, frame.text(1)
    start = fields["start"]
    return VariableText(
        name=name,
        type=frame.text(0),
        size=fields["size"],
        text=text,
        start=start,
        end=start + len(text),
        total=fields["total"],
        json=fields["json"],
    )
