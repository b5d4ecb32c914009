"""The indexes of a database's texts: made at first use, asked, and deleted with their texts."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection

from rlm_mcp.store.connection import connect, transaction, translated
from rlm_mcp.store.contexts.reading import chunk_data, document_rows, text_bytes, text_of
from rlm_mcp.store.contexts.records import ContextRecord
from rlm_mcp.store.database import Database
from rlm_mcp.store.index.building import FORMAT, Progress, build_index
from rlm_mcp.store.index.files import drop_index, index_path, is_stored
from rlm_mcp.store.index.locating import best_line
from rlm_mcp.store.index.passages import Passage
from rlm_mcp.store.index.ranking import Ranking, query_terms, rank

_BUSY_SECONDS = 5.0
# What a query of an index that is whole never meets; the first is a table that is not there.
_DAMAGED = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@dataclass(frozen=True)
class RankedMatch:
    """The best line of one passage; offsets are characters of its document, `line` from 1."""

    document: int
    name: str
    line: int
    start: int
    end: int
    text: str
    score: float


class TextIndexes:
    """A caller's texts, searched by words. Its methods block: call them in a worker thread."""

    def __init__(self, database: Database, caller: str) -> None:
        self._database = database
        self._caller = caller

    def path(self, record: ContextRecord) -> Path:
        """Return the file of the caller's index of a text."""
        return index_path(self._database.path, self._caller, record.sha256)

    def is_built(self, record: ContextRecord) -> bool:
        """Whether a text has an index that can be asked."""
        path = self.path(record)
        if not path.exists():
            return False
        with suppress(sqlite3.Error), _opened(path) as db:
            return db.execute("PRAGMA user_version").fetchone()[0] == FORMAT
        return False

    def build(self, record: ContextRecord, report: Progress) -> None:
        """Index a text.

        Args:
            record: the text.
            report: called with how many bytes are indexed; what it raises ends the work.

        Raises:
            StoreError: the text was deleted, the disk is full, or SQLite cannot index words.
        """
        path = self.path(record)
        with self._database.open_reader() as db, self._translated(path):
            text_id = text_of(db, self._caller, record.handle)
            sql = "SELECT position, bytes FROM documents WHERE text_id = ? ORDER BY position"
            documents: list[tuple[int, int]] = db.execute(sql, [text_id]).fetchall()
            chunks = (data for _, data in chunk_data(db, text_id, 0, text_bytes(db, text_id)))
            build_index(path, chunks, documents, report)
        with self._database.open_reader() as db:
            if not is_stored(db, self._caller, record.sha256):  # deleted meanwhile
                drop_index(self._database, self._caller, record.sha256)

    def search(
        self, record: ContextRecord, query: str, context_lines: int, limit: int
    ) -> Sequence[RankedMatch]:
        """Return the best line of each of the best passages, best first.

        Raises:
            StoreError: the text or its index was deleted, or cannot be read; an index that is
                damaged is deleted.
        """
        ranking = self._ranking(record, query, limit)
        with self._database.open_reader() as db:
            return self._located(db, record, ranking, context_lines)

    def _ranking(self, record: ContextRecord, query: str, limit: int) -> Ranking:
        path = self.path(record)
        with self._translated(path):
            try:
                with _opened(path) as index:
                    return rank(index, query_terms(query), limit)
            except sqlite3.DatabaseError as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED:
                    drop_index(self._database, self._caller, record.sha256)
                raise

    def _translated(self, path: Path) -> AbstractContextManager[None]:
        return translated(path, names_path=self._database.names_path)

    def _located(
        self, db: Connection, record: ContextRecord, ranking: Ranking, context_lines: int
    ) -> list[RankedMatch]:
        text_id = text_of(db, self._caller, record.handle)
        found: list[RankedMatch] = []
        for score, passage in ranking.found:
            text = _passage_text(db, text_id, passage)
            place = best_line(text, ranking.weights, context_lines)
            found.append(
                RankedMatch(
                    passage.document,
                    _document_name(db, self._caller, record, passage.document),
                    passage.line + place.line + 1,
                    passage.start_char + place.start,
                    passage.start_char + place.end,
                    place.text,
                    score,
                )
            )
        return found


@contextmanager
def _opened(path: Path) -> Generator[Connection]:
    with closing(connect(path, _BUSY_SECONDS, read_only=True)) as db, transaction(db, "BEGIN"):
        yield db


def _passage_text(db: Connection, text_id: int, passage: Passage) -> str:
    """Read a passage from the one chunk or the two in which it lies."""
    first, last = passage.start_byte, passage.start_byte + passage.bytes
    rows = db.execute(
        "SELECT substr(data, max(0, ? - start_byte) + 1, ? - max(?, start_byte)) FROM chunks "
        "WHERE text_id = ? AND start_byte < ? AND start_byte >= (SELECT max(start_byte) "
        "FROM chunks WHERE text_id = ? AND start_byte <= ?) ORDER BY start_byte",
        [first, last, first, text_id, last, text_id, first],
    )
    return b"".join(row[0] for row in rows).decode()


def _document_name(db: Connection, caller: str, record: ContextRecord, position: int) -> str:
    """The name by which a search for a pattern gives the document too."""
    [row] = document_rows(db, caller, record.handle, position, 1)
    return row[1]
