"""Builds the index of one text: a file of its own, so that the database's writer is never held."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from uuid import uuid4

from rlm_mcp.errors import StoreError
from rlm_mcp.store.connection import PAGE_BYTES
from rlm_mcp.store.index.files import DRAFT_SUFFIX
from rlm_mcp.store.index.folding import split_scripts
from rlm_mcp.store.index.passages import Passage, cut_passages

FORMAT = 3  # an index of another format is made anew
# The extension of SQLite that indexes words.
FTS_MODULE = "fts5"
_PASSAGES_A_STEP = 2000
# Words are gathered in memory up to this size before they are merged into the file.
_GATHERED_BYTES = 16 << 20

_PRAGMAS = (
    f"page_size={PAGE_BYTES}",
    # The file is built under another name; a crash leaves nothing that anyone reads.
    "journal_mode=OFF",
    "synchronous=OFF",
    "cache_size=-32768",
)
_SCHEMA = (
    "CREATE TABLE passages (id INTEGER PRIMARY KEY, document INTEGER NOT NULL, "
    "start_char INTEGER NOT NULL, line INTEGER NOT NULL, start_byte INTEGER NOT NULL, "
    "bytes INTEGER NOT NULL)",
    "CREATE VIRTUAL TABLE words USING {module}(text, content='', "
    "tokenize='unicode61 remove_diacritics 2')",
    "CREATE VIRTUAL TABLE grams USING {module}(text, content='', tokenize='trigram')",
    "CREATE VIRTUAL TABLE gram_terms USING fts5vocab(grams, row)",
    f"PRAGMA user_version={FORMAT}",
)

Progress = Callable[[int], None]


def build_index(
    path: Path, chunks: Iterator[bytes], documents: list[tuple[int, int]], report: Progress
) -> None:
    """Index a text in a file that appears when it is whole; blocks.

    Args:
        path: the file.
        chunks: the UTF-8 of all documents, without gaps.
        documents: positions and sizes in bytes, in order.
        report: called now and then with how many bytes are indexed; what it raises ends the work.

    Raises:
        StoreError: this SQLite cannot index words.
        OSError, sqlite3.Error: the file could not be written.
    """
    path.parent.mkdir(exist_ok=True, mode=0o700)
    draft = path.with_name(f"{path.stem}.{uuid4().hex}{DRAFT_SUFFIX}")
    try:
        draft.touch(mode=0o600)
        with closing(sqlite3.connect(draft, isolation_level=None)) as db:
            _prepare(db)
            _fill(db, cut_passages(chunks, documents), report)
        draft.replace(path)
    finally:
        with suppress(FileNotFoundError):
            draft.unlink()


def _prepare(db: sqlite3.Connection) -> None:
    for pragma in _PRAGMAS:
        db.execute(f"PRAGMA {pragma}")
    try:
        for statement in _SCHEMA:
            db.execute(statement.format(module=FTS_MODULE))
    except sqlite3.OperationalError as error:
        if "no such" not in str(error):
            raise
        raise StoreError(
            f"Words cannot be searched here: SQLite {sqlite3.sqlite_version} was built without "
            f"what is needed ({error}).",
            fix="Search with mode='pattern', or run rlm-mcp with a Python whose SQLite has FTS5 "
            "and is 3.34 or newer.",
        ) from error
    for table in ("words", "grams"):
        sql = f"INSERT INTO {table}({table}, rank) VALUES ('hashsize', ?)"  # noqa: S608  # ours
        db.execute(sql, [_GATHERED_BYTES])


def _fill(
    db: sqlite3.Connection, passages: Iterator[tuple[Passage, str]], report: Progress
) -> None:
    db.execute("BEGIN")
    numbered = enumerate(passages, 1)
    while some := list(itertools.islice(numbered, _PASSAGES_A_STEP)):
        db.executemany(
            "INSERT INTO passages VALUES (?, ?, ?, ?, ?, ?)",
            ((number, *passage) for number, (passage, _) in some),
        )
        parts = [(number, *split_scripts(text)) for number, (_, text) in some]
        db.executemany(
            "INSERT INTO words(rowid, text) VALUES (?, ?)",
            ((number, words) for number, words, _ in parts),
        )
        db.executemany(
            "INSERT INTO grams(rowid, text) VALUES (?, ?)",
            ((number, runs) for number, _, runs in parts if runs),
        )
        last = some[-1][1][0]
        report(last.start_byte + last.bytes)
    db.execute("COMMIT")
