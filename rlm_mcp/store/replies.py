"""Replies of sub-calls, kept by what was asked of which model, so that none is paid for twice."""

from __future__ import annotations

import time
from collections.abc import Callable
from sqlite3 import Connection

from rlm_mcp.store.database import Database, storable
from rlm_mcp.store.run_records import CachedReply


class Replies:
    """The replies in a database. Keys are SHA-256 in hex, made by the caller."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    async def get(self, key: str) -> CachedReply | None:
        """Return the reply kept under a key, or None.

        Raises:
            StoreError: the database could not be read.
        """
        return await self._database.read(lambda db: _find(db, key))

    async def put(self, key: str, reply: CachedReply) -> None:
        """Keep a reply; one that was kept under the same key before is replaced.

        Raises:
            StoreError: the database could not take it.
        """
        now = self._clock()
        await self._database.write(lambda db: _store(db, key, reply, now))


def _find(db: Connection, key: str) -> CachedReply | None:
    sql = "SELECT reply, input_tokens, output_tokens, cost_usd FROM replies WHERE key = ?"
    row = db.execute(sql, [key]).fetchone()
    return CachedReply(*row) if row else None


def _store(db: Connection, key: str, reply: CachedReply, now: float) -> None:
    db.execute(
        "INSERT INTO replies(key, reply, input_tokens, output_tokens, cost_usd, created_at, "
        "used_at) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT(key) DO UPDATE SET "
        "reply = excluded.reply, input_tokens = excluded.input_tokens, "
        "output_tokens = excluded.output_tokens, cost_usd = excluded.cost_usd, "
        "used_at = excluded.used_at",
        [key, storable(reply.text), reply.input_tokens, reply.output_tokens, reply.cost_usd]
        + [now] * 2,
    )
