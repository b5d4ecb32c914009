"""Where the indexes of texts are, and which of them belong to no text any more."""

from __future__ import annotations

import hashlib
import time
from contextlib import suppress
from pathlib import Path
from sqlite3 import Connection

from rlm_mcp.store.database import Database

FOLDER = "search"
DRAFT_SUFFIX = ".part"
# No index is made for so long: what is older was left by a crash.
_DRAFT_SECONDS = 86_400.0


def index_path(database: Path, caller: str, sha256: str) -> Path:
    """Return the file that holds a caller's index of a text, beside its database.

    A text is stored once for all callers, and indexed once for each: how long a first search takes
    must not reveal whether another caller has the text.
    """
    return database.parent / FOLDER / f"{_stem(caller, sha256)}.sqlite3"


def _stem(caller: str, sha256: str) -> str:
    return f"{sha256}.{hashlib.sha256(caller.encode()).hexdigest()[:16]}" if caller else sha256


def drop_index(database: Database, caller: str, sha256: str) -> None:
    """Delete the index of a text that the caller does not have any more; blocks."""
    with suppress(OSError):  # Windows keeps a file that is open; it is swept later
        index_path(database.path, caller, sha256).unlink(missing_ok=True)


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
        return not _is_held(db, path.stem)
    with suppress(FileNotFoundError):
        return path.stat().st_mtime < time.time() - _DRAFT_SECONDS
    return False


def _is_held(db: Connection, stem: str) -> bool:
    sha256 = stem.partition(".")[0]
    callers = db.execute("SELECT caller FROM contexts WHERE sha256 = ?", [sha256])
    return any(_stem(caller, sha256) == stem for (caller,) in callers)


def is_stored(db: Connection, caller: str, sha256: str) -> bool:
    """Whether a caller has the text."""
    sql = "SELECT 1 FROM contexts WHERE caller = ? AND sha256 = ?"
    return db.execute(sql, [caller, sha256]).fetchone() is not None
