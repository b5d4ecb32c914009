"""The stored text under uploads and contexts: put down, cut back, and dropped in steps."""

from __future__ import annotations

from collections.abc import Iterator
from sqlite3 import Connection

from rlm_mcp.store.cutter import Chunk, Cut, Place
from rlm_mcp.store.database import Database

# One step of a delete must stay short, since writers wait for it.
_CHUNKS_A_STEP = 16
_DOCUMENTS_A_STEP = 20_000


def new_text(db: Connection) -> int:
    """Begin an empty text, and return its id."""
    return _inserted(db.execute("INSERT INTO texts DEFAULT VALUES").lastrowid)


def store_cut(db: Connection, text_id: int, cut: Cut) -> None:
    """Write chunks and documents; a chunk that grew takes the place of its shorter self."""
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
    """Forget what was written after a point; return the last chunk, cut to end there."""
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


def chunk_data(
    db: Connection, text_id: int, start: int = 0, end: int = 1 << 62
) -> Iterator[tuple[int, bytes]]:
    """Yield those of a text's chunks that begin in a range of bytes: where, and their UTF-8."""
    return db.execute(
        "SELECT start_byte, data FROM chunks WHERE text_id = ? AND start_byte >= ? "
        "AND start_byte < ? ORDER BY start_byte",
        [text_id, start, end],
    )


def text_bytes(db: Connection, text_id: int) -> int:
    """Return how many bytes of UTF-8 a text has."""
    sql = "SELECT start_byte + length(data) FROM chunks WHERE text_id = ? ORDER BY start_byte DESC"
    row = db.execute(f"{sql} LIMIT 1", [text_id]).fetchone()
    return row[0] if row else 0


async def drop_text(database: Database, text_id: int) -> None:
    """Delete a text that nothing names any more, in steps that let other writers in between."""
    while not await database.write(lambda db: _drop_some(db, text_id)):
        pass


async def sweep(database: Database) -> int:
    """Drop every text that nothing names any more, left by a crash or a cancel; return how many."""
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
