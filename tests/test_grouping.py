"""Reads and writes of a cache that are done together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import anyio
import pytest

from rlm_mcp.engine.cache import GroupedCache
from rlm_mcp.errors import StoreError


@dataclass
class SlowCache:
    """Keeps what it is given once the gate is open; knows the groups that came."""

    gate: anyio.Event = field(default_factory=anyio.Event)
    groups: list[list[str]] = field(default_factory=list[list[str]])
    kept: dict[str, str] = field(default_factory=dict[str, str])
    error: Exception | None = None

    async def get_many(self, keys: list[str]) -> dict[str, str]:
        await self._work(keys)
        return {key: self.kept[key] for key in keys if key in self.kept}

    async def put_many(self, texts: Mapping[str, str]) -> None:
        await self._work(list(texts))
        self.kept |= texts

    async def _work(self, keys: list[str]) -> None:
        self.groups.append(sorted(keys))
        await self.gate.wait()
        if self.error is not None:
            raise self.error


async def test_what_starts_together_is_one_group_and_what_comes_later_the_next() -> None:
    slow = SlowCache()
    cache = GroupedCache(slow)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for key in "abc":
                tasks.start_soon(cache.put, key, key.upper())
            await anyio.wait_all_tasks_blocked()
            for key in "de":
                tasks.start_soon(cache.put, key, key.upper())
            await anyio.wait_all_tasks_blocked()
            assert slow.groups == [["a", "b", "c"]]
            slow.gate.set()
        assert slow.groups == [["a", "b", "c"], ["d", "e"]]
        assert slow.kept == {key: key.upper() for key in "abcde"}
        found: dict[str, str | None] = {}

        async def get(key: str) -> None:
            found[key] = await cache.get(key)

        async with anyio.create_task_group() as tasks:
            for key in "abz":
                tasks.start_soon(get, key)
    assert found == {"a": "A", "b": "B", "z": None}
    assert slow.groups[2:] == [["a", "b", "z"]]


async def test_a_write_that_may_wait_is_done_with_those_that_come_meanwhile() -> None:
    slow = SlowCache()
    slow.gate.set()
    cache = GroupedCache(slow)
    seconds = 2.0  # in which the others come, however slow the machine is
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for key in "abc":
                tasks.start_soon(cache.put, key, key.upper(), seconds)
                await anyio.wait_all_tasks_blocked()  # each comes when the one before it waits
        assert slow.groups == [["a", "b", "c"]]
        async with anyio.create_task_group() as tasks:
            for key in "de":
                tasks.start_soon(cache.put, key, key.upper())
                await anyio.wait_all_tasks_blocked()
    assert slow.groups[1:] == [["d"], ["e"]]


async def test_nothing_returns_before_it_is_kept() -> None:
    slow = SlowCache()
    cache = GroupedCache(slow)
    done: list[str] = []

    async def put(key: str) -> None:
        await cache.put(key, key)
        assert slow.kept[key] == key
        done.append(key)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for key in "ab":
                tasks.start_soon(put, key)
            await anyio.wait_all_tasks_blocked()
            assert done == []
            slow.gate.set()
    assert sorted(done) == ["a", "b"]


async def test_a_group_whose_doer_is_cancelled_is_done_by_another() -> None:
    slow = SlowCache()
    cache = GroupedCache(slow)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as others:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(cache.put, "a", "A")
                others.start_soon(cache.put, "b", "B")
                await anyio.wait_all_tasks_blocked()
                tasks.cancel_scope.cancel()
            slow.gate.set()
        await cache.put("c", "C")
    assert slow.kept["b"] == "B"
    assert slow.kept["c"] == "C"


@pytest.mark.parametrize("error", [StoreError("no room"), OSError("no room")])
async def test_a_failure_is_told_to_each_of_its_group_and_to_no_other(error: Exception) -> None:
    slow = SlowCache(error=error)
    slow.gate.set()
    cache = GroupedCache(slow)
    failed: list[str] = []

    async def put(key: str) -> None:
        with pytest.raises(StoreError, match="no room"):
            await cache.put(key, key)
        failed.append(key)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for key in "abc":
                tasks.start_soon(put, key)
        slow.error = None
        await cache.put("d", "D")
    assert sorted(failed) == ["a", "b", "c"]
    assert len(slow.groups) == 2
    assert slow.kept == {"d": "D"}
