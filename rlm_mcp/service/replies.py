"""Replies of sub-calls, kept in the store for every run of this database."""

from __future__ import annotations

from rlm_mcp.store.replies import Replies
from rlm_mcp.store.run_records import CachedReply


class StoredReplies:
    """The engine's `SubCallCache` over the store."""

    def __init__(self, replies: Replies) -> None:
        self._replies = replies

    async def get(self, key: str) -> str | None:
        """Give the reply that is kept under a key, if any."""
        kept = await self._replies.get(key)
        return kept.text if kept else None

    async def put(self, key: str, text: str) -> None:
        """Keep a reply."""
        await self._replies.put(key, CachedReply(text, 0, 0, None))
