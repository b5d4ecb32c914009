"""The names that are stored, for a shell that completes them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import anyio

from rlm_mcp.store.contexts import Contexts
from rlm_mcp.store.database import open_database
from rlm_mcp.store.runs import Runs

Kind = Literal["contexts", "runs"]

_NEWEST = 100
_BUSY_SECONDS = 1.0


async def stored_names(path: Path, kind: Kind) -> list[str]:
    """Give the handles of the newest contexts, or the ids of the newest runs.

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
