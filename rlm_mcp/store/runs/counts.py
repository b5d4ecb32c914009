"""How many runs there are."""

from __future__ import annotations

from collections.abc import Mapping
from sqlite3 import Connection

from rlm_mcp.store.database import Database
from rlm_mcp.values import RUN_STATUSES


async def count_by_status(database: Database, caller: str = "") -> Mapping[str, int]:
    """Return how many runs have each status: a caller's own, or all for the empty name."""
    mine = "WHERE caller = ?" if caller else ""
    sql = f"SELECT status, count(*) FROM runs {mine} GROUP BY status"  # noqa: S608  # our own words

    def count(db: Connection) -> dict[str, int]:
        return dict(db.execute(sql, [caller] if caller else []))

    return dict.fromkeys(RUN_STATUSES, 0) | await database.scan(count)
