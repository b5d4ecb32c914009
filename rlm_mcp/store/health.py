"""Can a database be kept in a directory? Tried, in a file that is gone afterwards; blocks."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from rlm_mcp.store.failures import translated

SQLITE_VERSION = sqlite3.sqlite_version


def try_directory(directory: Path) -> None:
    """Write a database as ours is written: with a log beside it, and JSON in it.

    Raises:
        StoreError: it cannot be done there; the error says why and what to do.
    """
    with (
        translated(directory),
        tempfile.TemporaryDirectory(prefix=".doctor-", dir=directory) as place,
        closing(sqlite3.connect(Path(place) / "trial.sqlite3")) as trial,
    ):
        (mode,) = trial.execute("PRAGMA journal_mode=WAL").fetchone()
        if mode != "wal":
            raise sqlite3.OperationalError(f"the file system takes no WAL ({mode!r} instead)")
        with trial:
            trial.execute("CREATE TABLE trial AS SELECT json_extract('[7]', '$[0]') AS value")
