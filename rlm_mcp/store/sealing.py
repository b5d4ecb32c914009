"""The moment at which a text becomes a context: named by its content, and stored once."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from sqlite3 import Connection
from typing import NamedTuple

from rlm_mcp.errors import StoreError
from rlm_mcp.store.database import storable
from rlm_mcp.store.records import ContextRecord
from rlm_mcp.store.texts import chunk_data

PREVIEW_CHARS = 200
RECORD_COLUMNS = "handle, name, sha256, bytes, chars, lines, documents, created_at, preview"


@dataclass(frozen=True)
class NewContext:
    """A caller's whole text that is ready to be a context, and what was counted as it came in."""

    caller: str
    text_id: int
    name: str
    sha256: str
    bytes: int
    chars: int
    documents: int

    @property
    def handle(self) -> str:
        """The name that any text with this content has."""
        return f"ctx_{self.sha256[:16]}"


class Entered(NamedTuple):
    """A caller's context.

    `is_new` says that the caller did not have its content, `is_text_used` that nobody had: else
    the text that was sent is not needed.
    """

    record: ContextRecord
    is_new: bool
    is_text_used: bool


def utc_now() -> str:
    """Return the time as ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def enter_context(db: Connection, new: NewContext) -> Entered:
    """Make a context, or find the caller's own that has its content.

    Raises:
        StoreError: another content has the same handle, a chance of one in 2 to the power of 64.
    """
    found = find_context(db, new.caller, new.handle)
    if found is None:
        text_id = _held_by_anyone(db, new) or new.text_id
        return Entered(_insert(db, new, text_id), is_new=True, is_text_used=text_id == new.text_id)
    if found.sha256 != new.sha256:
        raise StoreError(
            f"Another content has the handle {new.handle!r} already.",
            fix="Change the text by a character and add it again.",
        )
    if new.name and not found.name:
        sql = "UPDATE contexts SET name = ? WHERE caller = ? AND handle = ?"
        db.execute(sql, [new.name, new.caller, new.handle])
        found = replace(found, name=new.name)
    return Entered(found, is_new=False, is_text_used=False)


def find_context(db: Connection, caller: str, handle: str) -> ContextRecord | None:
    """Return the record of a caller's context, or None."""
    sql = f"SELECT {RECORD_COLUMNS} FROM contexts WHERE caller = ? AND handle = ?"  # noqa: S608  # our constant
    row = db.execute(sql, [caller, storable(handle)]).fetchone()
    return ContextRecord(*row) if row else None


def _held_by_anyone(db: Connection, new: NewContext) -> int | None:
    sql = "SELECT text_id FROM contexts WHERE handle = ? AND sha256 = ?"
    row = db.execute(sql, [new.handle, new.sha256]).fetchone()
    return row[0] if row else None


def _insert(db: Connection, new: NewContext, text_id: int) -> ContextRecord:
    record = ContextRecord(
        handle=new.handle,
        name=new.name,
        sha256=new.sha256,
        bytes=new.bytes,
        chars=new.chars,
        lines=_count_lines(db, new.text_id),
        documents=new.documents,
        created_at=utc_now(),
        preview=_preview(db, new.text_id),
    )
    document = _only_document(db, new)
    row = {**asdict(record), "caller": new.caller, "text_id": text_id, "document": document}
    columns, values = ", ".join(row), ", ".join(f":{name}" for name in row)
    db.execute(f"INSERT INTO contexts({columns}) VALUES ({values})", row)  # noqa: S608  # field names
    return record


def _only_document(db: Connection, new: NewContext) -> str:
    if new.documents != 1:
        return ""
    sql = "SELECT name FROM documents WHERE text_id = ?"
    return db.execute(sql, [new.text_id]).fetchone()[0]


def _count_lines(db: Connection, text_id: int) -> int:
    sql = "SELECT sum(lines) FROM documents WHERE text_id = ?"
    return db.execute(sql, [text_id]).fetchone()[0]


def _preview(db: Connection, text_id: int) -> str:
    # A character takes at most four bytes.
    _, first = next(chunk_data(db, text_id))
    start = first[: 4 * PREVIEW_CHARS]
    return start.decode("utf-8", "ignore")[:PREVIEW_CHARS]
