"""The text of uploads and contexts: written, truncated, and deleted in steps."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from sqlite3 import Connection
from typing import NamedTuple

from rlm_mcp.errors import StoreError
from rlm_mcp.store.contexts.chunking import Chunk, Cut, Place
from rlm_mcp.store.contexts.reading import chunk_data, find_context
from rlm_mcp.store.contexts.records import ContextRecord
from rlm_mcp.store.database import Database

# A step of a delete must be short, since other writers wait for it.
_CHUNKS_A_STEP = 16
_DOCUMENTS_A_STEP = 20_000


def new_text(db: Connection) -> int:
    """Create an empty text, and return its id."""
    return _inserted(db.execute("INSERT INTO texts DEFAULT VALUES").lastrowid)


def store_cut(db: Connection, text_id: int, cut: Cut) -> None:
    """Write chunks and documents; a chunk that grew replaces its shorter version."""
    db.executemany(
        "INSERT INTO chunks(text_id, start_byte, start_char, start_line, data) "
        "VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT(text_id, start_byte) DO UPDATE SET data = excluded.data",
        ((text_id, *chunk.start, chunk.data) for chunk in cut.chunks),
    )
    db.executemany(
        "INSERT INTO documents(text_id, position, name, start_byte, start_char, start_line, "
        "bytes, chars, lines) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            (text_id, one.position, one.name, *one.start, one.bytes, one.chars, one.lines)
            for one in cut.documents
        ),
    )


def cut_back(db: Connection, text_id: int, end_byte: int, documents: int) -> Chunk | None:
    """Delete what was written after a point; return the last chunk, cut to end there."""
    db.execute("DELETE FROM chunks WHERE text_id = ? AND start_byte >= ?", [text_id, end_byte])
    db.execute("DELETE FROM documents WHERE text_id = ? AND position >= ?", [text_id, documents])
    row = db.execute(
        "SELECT start_byte, start_char, start_line, data FROM chunks "
        "WHERE text_id = ? ORDER BY start_byte DESC LIMIT 1",
        [text_id],
    ).fetchone()
    if row is None:
        return None
    return Chunk(Place(*row[:3]), row[3][: end_byte - row[0]])


async def drop_text(database: Database, text_id: int) -> None:
    """Delete an unused text in steps, between which other writes take place."""
    while not await database.write(lambda db: _drop_some(db, text_id)):
        pass


async def sweep(database: Database) -> int:
    """Delete every text that nobody holds; return how many."""
    waste = await database.read(_waste)
    for text_id in waste:
        await drop_text(database, text_id)
    return len(waste)


def _waste(db: Connection) -> list[int]:
    rows = db.execute(
        "SELECT id FROM texts WHERE id NOT IN (SELECT text_id FROM uploads) "
        "AND id NOT IN (SELECT text_id FROM contexts)"
    )
    return [row[0] for row in rows]


def _drop_some(db: Connection, text_id: int) -> bool:
    """Take one step; return whether it was the last."""
    chunks = db.execute(
        "DELETE FROM chunks WHERE id IN (SELECT id FROM chunks WHERE text_id = ? LIMIT ?)",
        [text_id, _CHUNKS_A_STEP],
    ).rowcount
    if chunks == _CHUNKS_A_STEP:
        return False
    documents = db.execute(
        "DELETE FROM documents WHERE text_id = ? AND position < "
        "(SELECT min(position) + ? FROM documents WHERE text_id = ?)",
        [text_id, _DOCUMENTS_A_STEP, text_id],
    ).rowcount
    if documents:
        return False
    db.execute("DELETE FROM texts WHERE id = ?", [text_id])
    return True


def _inserted(row: int | None) -> int:
    if row is None:  # the type says so; an INSERT that did not raise has a row id
        raise AssertionError
    return row


PREVIEW_CHARS = 200


@dataclass(frozen=True)
class NewContext:
    """A caller's complete text, ready to become a context, with its counts."""

    caller: str
    text_id: int
    name: str
    sha256: str
    bytes: int
    chars: int
    documents: int

    @property
    def handle(self) -> str:
        """The handle of every text with this content."""
        return handle_of(self.sha256)


def handle_of(sha256: str) -> str:
    """Return the handle of the text with this digest."""
    return f"ctx_{sha256[:16]}"


class Entered(NamedTuple):
    """A caller's context.

    `is_new` says that the caller did not have this content; `is_text_used` that nobody had it, so
    that the uploaded text is needed.
    """

    record: ContextRecord
    is_new: bool
    is_text_used: bool


def utc_now() -> str:
    """Return the time as ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def enter_context(db: Connection, new: NewContext) -> Entered:
    """Create a context, or return the caller's own with the same content.

    Raises:
        StoreError: another content has the same handle, a chance of one in 2 to the power of 64.
    """
    found = find_context(db, new.caller, new.handle)
    if found is None:
        text_id = _held_by_anyone(db, new) or new.text_id
        return Entered(_insert(db, new, text_id), is_new=True, is_text_used=text_id == new.text_id)
    if found.sha256 != new.sha256:
        raise StoreError(
            f"The handle {new.handle!r} already belongs to other content.",
            fix="Change the text by a character and add it again.",
        )
    if new.name and not found.name:
        sql = "UPDATE contexts SET name = ? WHERE caller = ? AND handle = ?"
        db.execute(sql, [new.name, new.caller, new.handle])
        found = replace(found, name=new.name)
    return Entered(found, is_new=False, is_text_used=False)


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
