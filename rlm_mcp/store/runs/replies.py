"""Replies of sub-calls, kept by what was asked of which model, so that none is paid for twice."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from sqlite3 import Connection

from rlm_mcp.errors import StoreError
from rlm_mcp.store.connection import LOG_LEAVES_BYTES
from rlm_mcp.store.database import Database
from rlm_mcp.text import without_surrogates

# The time of its last use is kept to the hour, so that a reply which is used often costs no writes.
USE_PRECISION_SECONDS = 3600.0


class Replies:
    """The replies in a database. Keys are SHA-256 in hex, made by the caller."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    async def get_many(self, keys: Sequence[str]) -> dict[str, str]:
        """Return the replies that are kept, by key, and note that they were used.

        Raises:
            StoreError: the database could not be read.
        """
        rows = await self._database.read_grouped(lambda db: _find(db, keys))
        now = self._clock()
        stale = [key for key, _, used_at in rows if used_at < now - USE_PRECISION_SECONDS]
        if stale:
            with suppress(StoreError):  # the replies are there; only their age would be wrong
                await self._database.write(lambda db: _note_use(db, stale, now))
        return {key: reply for key, reply, _ in rows}

    async def put_many(self, replies: Mapping[str, str], *, run_id: str = "") -> None:
        """Keep replies by key, all or none; those that were kept before are replaced.

        Args:
            run_id: the run that paid for them; they are deleted when it is forgotten.

        Raises:
            StoreError: the database could not store them.
        """
        now = self._clock()
        await self._database.write_grouped(
            lambda db: _store(db, replies, now, run_id), leave_bytes=LOG_LEAVES_BYTES
        )


def _find(db: Connection, keys: Sequence[str]) -> list[tuple[str, str, float]]:
    # One array, since the number of parameters of a statement is bounded.
    sql = "SELECT key, reply, used_at FROM replies WHERE key IN (SELECT value FROM json_each(?))"
    return db.execute(sql, [json.dumps(keys)]).fetchall()


def _note_use(db: Connection, keys: Sequence[str], now: float) -> None:
    sql = "UPDATE replies SET used_at = ? WHERE key IN (SELECT value FROM json_each(?))"
    db.execute(sql, [now, json.dumps(keys)])


def _store(db: Connection, replies: Mapping[str, str], now: float, run_id: str) -> None:
    # The columns of tokens and cost are unused: the log of the run that paid has them.
    db.executemany(
        "INSERT INTO replies(key, reply, input_tokens, output_tokens, created_at, used_at, run) "
        "VALUES (?, ?, 0, 0, ?, ?, ?) ON CONFLICT(key) DO UPDATE SET "
        "reply = excluded.reply, used_at = excluded.used_at, run = excluded.run",
        ((key, without_surrogates(text), now, now, run_id) for key, text in replies.items()),
    )


class StoredReplies:
    """The replies that one caller has paid for; it serves as the engine's `SubCallCache`.

    Callers share no replies: a free one would reveal that another caller asked the same.
    """

    def __init__(self, replies: Replies, caller: str = "", run_id: str = "") -> None:
        self._replies = replies
        self._caller = caller
        self._run_id = run_id

    def as_caller(self, caller: str) -> StoredReplies:
        """Return the replies that another caller's runs have paid for."""
        return StoredReplies(self._replies, caller)

    def paid_by(self, run_id: str) -> StoredReplies:
        """Return the same replies; those that are kept from now on belong to a run."""
        return StoredReplies(self._replies, self._caller, run_id)

    async def get_many(self, keys: list[str]) -> dict[str, str]:
        """Return the replies that are kept."""
        asked = {self._own(key): key for key in keys}
        kept = await self._replies.get_many(list(asked))
        return {asked[key]: text for key, text in kept.items()}

    async def put_many(self, texts: Mapping[str, str]) -> None:
        """Keep replies."""
        replies = {self._own(key): text for key, text in texts.items()}
        await self._replies.put_many(replies, run_id=self._run_id)

    def _own(self, key: str) -> str:
        if not self._caller:
            return key
        return hashlib.sha256(f"{key} {self._caller}".encode()).hexdigest()
