"""Slices of stored documents, by characters or by lines, from the few chunks they lie in."""

from __future__ import annotations

from sqlite3 import Connection
from typing import NamedTuple

from rlm_mcp.errors import InvalidInputError, NotFoundError
from rlm_mcp.store.contexts.chunking import Place
from rlm_mcp.store.contexts.records import Span, TextSlice
from rlm_mcp.store.paging import LARGEST, check_offset


class _Document(NamedTuple):
    """One document's place in its text; `lines` is its own count, `start.line` counts breaks."""

    text_id: int
    start: Place
    chars: int
    lines: int


def check_span(span: Span) -> None:
    """Reject invalid offsets.

    Raises:
        InvalidInputError: one is negative, or the unit is unknown.
    """
    for name, value in (("document", span.document), ("start", span.start), ("limit", span.limit)):
        check_offset(name, value)
    if span.max_chars < 1:
        raise InvalidInputError(
            f"max_chars must be at least 1, not {span.max_chars!r}.", fix="Leave it out."
        )
    if span.unit not in ("chars", "lines"):
        raise InvalidInputError(f"There is no unit {span.unit!r}.", fix="Use 'chars' or 'lines'.")


def read_span(db: Connection, handle: str, text_id: int, span: Span) -> TextSlice:
    """Read part of a document; a start past its end returns an empty slice at the end.

    Raises:
        NotFoundError: the context has no such document.
    """
    document = _find_document(db, handle, text_id, span.document)
    if span.unit == "lines":
        return _read_lines(db, document, span)
    start = min(span.start, document.chars)
    end = min(start + span.limit, document.chars)
    text = _read_chars(db, document, start, end)
    return TextSlice(text, start, end, document.chars, _next(end, document.chars))


def document_at(db: Connection, text_id: int, char: int) -> tuple[int, int]:
    """Return index and first character of the document that a character of the text lies in."""
    return db.execute(
        "SELECT position, start_char FROM documents WHERE text_id = ? AND start_char <= ? "
        "ORDER BY position DESC LIMIT 1",
        [text_id, char],
    ).fetchone()


def _find_document(db: Connection, handle: str, text_id: int, index: int) -> _Document:
    row = db.execute(
        "SELECT start_byte, start_char, start_line, chars, lines FROM documents "
        "WHERE text_id = ? AND position = ?",
        [text_id, min(index, LARGEST)],
    ).fetchone()
    if row is not None:
        return _Document(text_id, Place(*row[:3]), *row[3:])
    last = "SELECT max(position) FROM documents WHERE text_id = ?"
    raise NotFoundError(
        f"The context {handle!r} has no document {index!r}.",
        fix=f"Its documents are 0 to {db.execute(last, [text_id]).fetchone()[0]}.",
    )


def _read_lines(db: Connection, document: _Document, span: Span) -> TextSlice:
    total = document.lines
    start = min(span.start, total)
    end = min(start + span.limit, total)
    first = _line_start(db, document, start)
    last = _line_start(db, document, end)
    if last - first <= span.max_chars:
        text = _read_chars(db, document, first, last)
        return TextSlice(text, start, end, total, _next(end, total))
    text = _read_chars(db, document, first, first + span.max_chars)
    whole = text.count("\n")
    if whole:
        text, end = text[: text.rindex("\n") + 1], start + whole
        return TextSlice(text, start, end, total, _next(end, total))
    end = start + 1
    cut_at = first + len(text)
    return TextSlice(text, start, end, total, _next(end, total), cut=True, cut_at=cut_at)


def _line_start(db: Connection, document: _Document, line: int) -> int:
    """Return the character, within the document, at which a line starts."""
    if line <= 0:
        return 0
    if line >= document.lines:
        return document.chars
    breaks = document.start.line + line
    start_char, start_line, data = db.execute(
        "SELECT start_char, start_line, data FROM chunks WHERE text_id = ? AND start_line < ? "
        "ORDER BY start_line DESC, start_char DESC LIMIT 1",
        [document.text_id, breaks],
    ).fetchone()
    text: str = data.decode()
    after = text.split("\n", breaks - start_line)[-1]
    return start_char + len(text) - len(after) - document.start.char


def _read_chars(db: Connection, document: _Document, start: int, end: int) -> str:
    if start >= end:
        return ""
    first, last = document.start.char + start, document.start.char + end
    rows = db.execute(
        "SELECT start_char, data FROM chunks WHERE text_id = ? AND start_char < ? "
        "AND start_char >= (SELECT max(start_char) FROM chunks "
        "WHERE text_id = ? AND start_char <= ?) ORDER BY start_char",
        [document.text_id, last, document.text_id, first],
    )
    return "".join(data.decode()[max(0, first - at) : last - at] for at, data in rows)


def _next(end: int, total: int) -> int | None:
    return end if end < total else None
