"""Where the pages, sheets, slides or mails of converted documents begin."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from sqlite3 import Connection
from typing import NamedTuple

from rlm_mcp.text import without_surrogates


class PageMark(NamedTuple):
    """Where a page begins: its document, its first character there, and what it is called.

    `document` counts from 0 within the context, `start` from 0 within the document; `label` is
    `page 12`, `sheet Costs`, `slide 3` or `mail 7`.
    """

    document: int
    start: int
    label: str


def store_pages(db: Connection, caller: str, handle: str, marks: Iterable[PageMark]) -> None:
    """Store the marks of a caller's context, unless it has some."""
    sql = "SELECT id FROM contexts WHERE caller = ? AND handle = ?"
    context = db.execute(sql, [caller, handle]).fetchone()[0]
    if db.execute("SELECT 1 FROM pages WHERE context = ? LIMIT 1", [context]).fetchone():
        return
    db.executemany(
        "INSERT OR IGNORE INTO pages(context, document, start, label) VALUES (?, ?, ?, ?)",
        ((context, mark.document, mark.start, without_surrogates(mark.label)) for mark in marks),
    )


def pages_at(
    db: Connection, caller: str, handle: str, places: Iterable[tuple[int, int]]
) -> Sequence[str | None]:
    """Return the label of the page that holds each place: a document and a character of it.

    None stands for a place in a document without pages, or before its first.
    """
    sql = (
        "SELECT label FROM pages WHERE context = (SELECT id FROM contexts WHERE caller = ? "
        "AND handle = ?) AND document = ? AND start <= ? ORDER BY start DESC LIMIT 1"
    )
    rows = (db.execute(sql, [caller, handle, *place]).fetchone() for place in places)
    return [row[0] if row else None for row in rows]
