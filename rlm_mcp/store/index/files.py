"""Where the indexes of texts are, and which of them belong to no text any more."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from sqlite3 import Connection

from rlm_mcp.store.database import Database

FOLDER = "search"
DRAFT_SUFFIX = ".part"
# No index is made for so long: what is older was left by a crash.
_DRAFT_SECONDS = 86_400.0


def index_path(database: Path, sha256: str) -> Path:
    """Return the file that holds the index of a text, beside its database."""
    return database.parent / FOLDER / f"{sha256}.sqlite3"


def drop_index(database: Database, sha256: str) -> None:
    """Delete the index of a text that nobody holds any more; blocks."""
    with suppress(OSError):  # Windows keeps a file that is open; it is swept later
        index_path(database.path, sha256).unlink(missing_ok=True)


def sweep_indexes(database: Database) -> int:
    """Delete indexes whose texts are gone; return how many. Blocks."""
    folder = database.path.parent / FOLDER
    if not folder.exists():
        return 0
    with database.open_reader() as db:
        waste = [path for path in folder.iterdir() if _is_waste(db, path)]
    for path in waste:
        with suppress(OSError):
            path.unlink(missing_ok=True)
    return len(waste)


def _is_waste(db: Connection, path: Path) -> bool:
    if path.suffix != DRAFT_SUFFIX:
        return not is_stored(db, path.stem)
    with suppress(FileNotFoundError):
        return path.stat().st_mtime < time.time() - _DRAFT_SECONDS
    return False


def is_stored(db: Connection, sha256: str) -> bool:
    """Whether anybody has the text."""
    sql = "SELECT 1 FROM contexts WHERE sha256 = ? LIMIT 1"
    return db.execute(sql, [sha256]).fetchone() is not None
