"""Reads the tables of SQLite files. Runs in the converter's process."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from rlm_mcp.service.documents.archives import UnreadableError

SCHEMA = "schema"
MAX_CELL_CHARS = 10_000
_JOURNAL = slice(18, 20)  # of the header: how the file is written and read
_WRITE_AHEAD, _ROLLBACK = b"\x02\x02", b"\x01\x01"

Rows = list[list[str]]


def tables_of(data: bytes, left_out: list[str]) -> Iterator[tuple[str, Rows]]:
    """Yield the schema and the tables of an SQLite file as rows of text: first the column names.

    A value of bytes is shown as its size, NULL is empty, and a long text is cut.

    Args:
        data: the file.
        left_out: gets a line for what is not in the rows: a table that this SQLite cannot read,
            such as a virtual one of an extension, and bytes that are not UTF-8.

    Raises:
        UnreadableError: it is no SQLite file, or a damaged one.
    """
    connection = sqlite3.connect(":memory:")
    cells = _Cells()
    try:
        connection.deserialize(_without_log(data))
        connection.text_factory = cells.text
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA query_only = ON")
        schema = connection.execute(
            "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type, name"
        ).fetchall()
        yield SCHEMA, [[f"{sql};"] for _, _, sql in schema]
        tables = [name for kind, name, _ in schema if kind == "table"]
        for name in tables:
            if name.startswith("sqlite_"):
                continue
            try:
                yield f"table {name}", _rows(connection, name, cells)
            except sqlite3.Error as error:
                left_out.append(f"the table {name} cannot be read: {error}")
    except sqlite3.Error as error:
        raise UnreadableError(f"damaged: {error}") from error
    finally:
        connection.close()
    if cells.replaced:
        left_out.append(f"{cells.replaced:,} values are not UTF-8; their bytes became U+FFFD")


def _without_log(data: bytes) -> bytes:
    """Return a file as one without a write-ahead log, which a copy in memory cannot have."""
    if data[_JOURNAL] != _WRITE_AHEAD:
        return data
    return data[: _JOURNAL.start] + _ROLLBACK + data[_JOURNAL.stop :]


def _rows(connection: sqlite3.Connection, name: str, cells: _Cells) -> Rows:
    quoted = '"' + name.replace('"', '""') + '"'
    rows = connection.execute(f"SELECT * FROM {quoted}")  # noqa: S608  # quoted above
    columns = [column[0] for column in rows.description]
    return [columns, *([cells.cell(value) for value in row] for row in rows)]


class _Cells:
    """Makes text of values, and counts those that were in no UTF-8."""

    def __init__(self) -> None:
        self.replaced = 0

    def text(self, data: bytes) -> str:
        """Decode a text, whatever program wrote it."""
        try:
            return data.decode()
        except UnicodeDecodeError:
            self.replaced += 1
            return data.decode("utf-8", "replace")

    def cell(self, value: object) -> str:
        """Return a value as text."""
        match value:
            case None:
                return ""
            case bytes():
                return f"<{len(value):,} bytes>"
            case str() if len(value) > MAX_CELL_CHARS:
                return value[:MAX_CELL_CHARS] + "..."
            case _:
                return str(value)
