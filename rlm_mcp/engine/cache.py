"""Reads and writes of a cache that come at the same time, done as one.

A batch of sub-calls asks its cache hundreds of times a second, and each time may be a thread and a
transaction. Group commit, as databases do it: while one group is under way, the next gathers; each
caller waits until its own group is done, so a reply is kept before it is used.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import anyio

from rlm_mcp.errors import StoreError


class SubCallCache(Protocol):
    """Where answers of sub-calls are kept, by a digest of model, parameters and prompt."""

    async def get_many(self, keys: list[str]) -> Mapping[str, str]:
        """Give the answers that are known, by key.

        Raises:
            StoreError: they could not be read; the model is asked then.
        """
        ...

    async def put_many(self, texts: Mapping[str, str]) -> None:
        """Keep answers, all or none.

        Raises:
            StoreError: they could not be kept; they are used all the same.
        """
        ...


class GroupedCache:
    """Asks a `SubCallCache` about one key at a time, from many tasks at once.

    Args:
        cache: what is asked, in groups.
    """

    def __init__(self, cache: SubCallCache) -> None:
        async def read(keys: Mapping[str, str]) -> Mapping[str, str]:
            return await cache.get_many(list(keys))

        async def write(texts: Mapping[str, str]) -> Mapping[str, str]:
            await cache.put_many(texts)
            return texts

        self._reads = _Queue(read)
        self._writes = _Queue(write)

    async def get(self, *keys: str) -> str | None:
        """Give the answer that is kept under the first of several keys that has one, if any.

        Raises:
            StoreError: it could not be read.
        """
        found = await self._reads.do(dict.fromkeys(keys, ""))
        return next((found[key] for key in keys if key in found), None)

    async def put(self, keys: Sequence[str], text: str, gather_seconds: float = 0.0) -> None:
        """Keep an answer; it is kept when this returns, under all keys or none.

        Args:
            keys: digests of what was asked.
            text: the answer.
            gather_seconds: how long it may wait for others.

        Raises:
            StoreError: it could not be kept.
        """
        await self._writes.do(dict.fromkeys(keys, text), gather_seconds)


@dataclass
class _Group:
    """Calls that are done together, and what came of them."""

    items: dict[str, str] = field(default_factory=dict[str, str])
    result: Mapping[str, str] = field(default_factory=dict[str, str])
    error: StoreError | None = None
    is_done: bool = False


class _Queue:
    def __init__(self, work: Callable[[Mapping[str, str]], Awaitable[Mapping[str, str]]]) -> None:
        self._work = work
        self._lock = anyio.Lock()
        self._gathering = _Group()

    async def do(self, items: Mapping[str, str], gather_seconds: float = 0.0) -> Mapping[str, str]:
        """Do items with those that came while others were under way; gives all results."""
        group = self._gathering
        group.items.update(items)
        # Taking a free lock yields once, so that calls which start together are in one group.
        async with self._lock:
            if not group.is_done:
                if gather_seconds:
                    await anyio.sleep(gather_seconds)
                if self._gathering is group:
                    self._gathering = _Group()
                # Whoever is cancelled here leaves the group to the next of its callers.
                await self._perform(group)
        if group.error is not None:
            raise group.error
        return group.result

    async def _perform(self, group: _Group) -> None:
        try:
            group.result = await self._work(group.items)
        except StoreError as error:
            group.error = error
        except Exception as error:  # noqa: BLE001  # user code: what it raises must not end a run
            group.error = StoreError(f"The cache raised {error!r}.")
        group.is_done = True


class MemoryCache:
    """A `SubCallCache` in memory that forgets the least recently used beyond `max_chars`."""

    def __init__(self, max_chars: int = 50_000_000) -> None:
        self._max_chars = max_chars
        self._chars = 0
        self._texts: OrderedDict[str, str] = OrderedDict()

    async def get_many(self, keys: list[str]) -> Mapping[str, str]:
        """Give the answers that are still known."""
        found = {key: self._texts[key] for key in keys if key in self._texts}
        for key in found:
            self._texts.move_to_end(key)
        return found

    async def put_many(self, texts: Mapping[str, str]) -> None:
        """Keep answers."""
        for key, text in texts.items():
            self._chars += len(text) - len(self._texts.pop(key, ""))
            self._texts[key] = text
        while self._chars > self._max_chars:
            self._chars -= len(self._texts.popitem(last=False)[1])
