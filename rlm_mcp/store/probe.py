"""Checks that a directory can hold the database, with a temporary file. Blocking."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Literal

import anyio

from rlm_mcp.store.connection import translated
from rlm_mcp.store.contexts.contexts import Contexts
from rlm_mcp.store.database import open_database
from rlm_mcp.store.runs.runs import Runs

SQLITE_VERSION = sqlite3.sqlite_version


def try_directory(directory: Path) -> None:
    """Write a small database the way the real one is written: in WAL mode, with JSON.

    Raises:
        StoreError: the directory cannot hold it; the error says why and what to do.
    """
    with (
        translated(directory),
        tempfile.TemporaryDirectory(prefix=".doctor-", dir=directory) as place,
        closing(sqlite3.connect(Path(place) / "trial.sqlite3")) as trial,
    ):
        (mode,) = trial.execute("PRAGMA journal_mode=WAL").fetchone()
        if mode != "wal":
            raise sqlite3.OperationalError(f"the file system does not support WAL ({mode!r})")
        with trial:
            trial.execute("CREATE TABLE trial AS SELECT json_extract('[7]', '$[0]') AS value")


Kind = Literal["contexts", "runs"]

_NEWEST = 100
_BUSY_SECONDS = 1.0


async def stored_names(path: Path, kind: Kind) -> list[str]:
    """Return the handles of the newest contexts, or the ids of the newest runs.

    Raises:
        StoreError: the database cannot be read.
    """
    if not await anyio.Path(path).exists():
        return []
    async with open_database(path, busy_seconds=_BUSY_SECONDS) as database:
        if kind == "contexts":
            contexts = await Contexts(database).list(limit=_NEWEST)
            return [record.handle for record in contexts.items]
        runs = await Runs(database, owner="").list(limit=_NEWEST)
        return [summary.run_id for summary in runs.items]
