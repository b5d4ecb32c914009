"""A copy of the database as of one moment, made while servers use it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from pathlib import Path

from rlm_mcp.errors import InvalidInputError, StoreError
from rlm_mcp.store.connection import connect, translated

_PAGES_A_STEP = 4096
_BUSY_SECONDS = 30.0
_OF_THE_COPY = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR_WRITE})

Progress = Callable[[int, int], None]


def back_up(database: Path, target: Path, progress: Progress) -> int:
    """Copy a database to a new file; return the copy's size in bytes. Blocking.

    The copy is one file, complete before it has its name, and readable by its owner alone.

    Args:
        database: the file in use; servers may write to it meanwhile.
        target: the new file.
        progress: is called with the pages that are left and their total.

    Raises:
        InvalidInputError: `target` exists, or its directory does not, or it cannot be written.
        StoreError: the database cannot be read.
    """
    if target.exists() or not target.parent.is_dir():
        problem = "already exists" if target.exists() else "is in a directory that does not exist"
        raise InvalidInputError(f"The file {str(target)!r} {problem}.", fix="Name another file.")
    if not database.exists():
        raise StoreError(
            f"There is no database {str(database)!r} yet.",
            fix="Set RLM_MCP_DATA_DIR to the directory that the server uses.",
        )
    part = target.with_name(f"{target.name}.part")
    with translated(database), _copy_translated(target):
        try:
            part.touch(mode=0o600)
            _copy(database, part, progress)
            part.rename(target)
        except BaseException:
            part.unlink(missing_ok=True)
            part.with_name(f"{part.name}-journal").unlink(missing_ok=True)
            raise
    return target.stat().st_size


@contextmanager
def _copy_translated(target: Path) -> Generator[None]:
    """Translate errors of the copy, which are not those of the database: that is only read."""
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        if isinstance(error, sqlite3.Error) and error.sqlite_errorcode not in _OF_THE_COPY:
            raise
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InvalidInputError(
            f"The copy {str(target)!r} cannot be written: {reason}.",
            fix="Make room there, or name a file elsewhere; the database is as it was.",
        ) from error


def _copy(database: Path, part: Path, progress: Progress) -> None:
    with (
        closing(connect(database, _BUSY_SECONDS, read_only=True)) as source,
        closing(sqlite3.connect(part)) as copy,
    ):
        # A snapshot that is held: else SQLite begins anew after each change, for as long as others
        # write.
        source.execute("BEGIN")
        source.execute("SELECT 1 FROM sqlite_master").fetchone()
        source.backup(
            copy, pages=_PAGES_A_STEP, progress=lambda _, left, total: progress(left, total)
        )
        # The header says WAL; without it the copy needs no file beside it.
        copy.execute("PRAGMA journal_mode=DELETE")
        (verdict,) = copy.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(f"the copy is damaged: {verdict}")
