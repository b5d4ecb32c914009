"""Replies of sub-calls, kept by what was asked of which model, so that none is paid for twice."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from sqlite3 import Connection

from rlm_mcp.store.database import Database, storable
from rlm_mcp.store.failures import LOG_LEAVES_BYTES
from rlm_mcp.store.runs.records import CachedReply


class Replies:
    """The replies in a database. Keys are SHA-256 in hex, made by the caller."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    async def get_many(self, keys: Sequence[str]) -> dict[str, CachedReply]:
        """Return the replies that are kept, by key.

        Raises:
            StoreError: the database could not be read.
        """
        return await self._database.read(lambda db: _find(db, keys))

    async def put_many(self, replies: Mapping[str, CachedReply], *, run_id: str = "") -> None:
        """Keep replies by key, all or none; those that were kept before are replaced.

        Args:
            run_id: the run that paid for them; they go when it is to be forgotten.

        Raises:
            StoreError: the database could not take them.
        """
        now = self._clock()
        await self._database.write(
            lambda db: _store(db, replies, now, run_id), leave_bytes=LOG_LEAVES_BYTES
        )


def _find(db: Connection, keys: Sequence[str]) -> dict[str, CachedReply]:
    # One array, since the number of parameters of a statement is bounded.
    sql = (
        "SELECT key, reply, input_tokens, output_tokens, cost_usd FROM replies "
        "WHERE key IN (SELECT value FROM json_each(?))"
    )
    return {key: CachedReply(*fields) for key, *fields in db.execute(sql, [json.dumps(keys)])}


def _store(db: Connection, replies: Mapping[str, CachedReply], now: float, run_id: str) -> None:
    db.executemany(
        "INSERT INTO replies(key, reply, input_tokens, output_tokens, cost_usd, created_at, "
        "used_at, run) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT(key) DO UPDATE SET "
        "reply = excluded.reply, input_tokens = excluded.input_tokens, "
        "output_tokens = excluded.output_tokens, cost_usd = excluded.cost_usd, "
        "used_at = excluded.used_at, run = excluded.run",
        (
            (
                *(key, storable(it.text), it.input_tokens, it.output_tokens, it.cost_usd),
                *(now, now, run_id),
            )
            for key, it in replies.items()
        ),
    )
