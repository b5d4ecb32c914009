"""Replies of sub-calls, kept in the store for every run of a caller."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from rlm_mcp.store.runs.replies import Replies


class StoredReplies:
    """The engine's `SubCallCache` over the store.

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
