"""Replies of sub-calls, kept in the store for every run of this database."""

from __future__ import annotations

from collections.abc import Mapping

from rlm_mcp.store.replies import Replies
from rlm_mcp.store.run_records import CachedReply


class StoredReplies:
    """The engine's `SubCallCache` over the store."""

    def __init__(self, replies: Replies) -> None:
        self._replies = replies

    async def get_many(self, keys: list[str]) -> dict[str, str]:
        """Give the replies that are kept."""
        kept = await self._replies.get_many(keys)
        return {key: reply.text for key, reply in kept.items()}

    async def put_many(self, texts: Mapping[str, str]) -> None:
        """Keep replies."""
        await self._replies.put_many(
            {key: CachedReply(text, 0, 0, None) for key, text in texts.items()}
        )
