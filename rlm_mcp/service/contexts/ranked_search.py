"""Searching stored texts by words: the best passages first, from an index made at first use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import merge
from pathlib import Path

import anyio
import anyio.from_thread
import anyio.to_thread
from anyio.abc import TaskGroup

from rlm_mcp.cursors import decode_cursor, encode_cursor, invalid_cursor
from rlm_mcp.errors import InvalidInputError, RLMError, StoreBusyError
from rlm_mcp.service.contexts.requests import SearchQuery
from rlm_mcp.store.contexts.records import ContextRecord
from rlm_mcp.store.index.indexes import RankedMatch, TextIndexes
from rlm_mcp.store.index.ranking import MAX_RANKED, query_terms

# How long a search waits for an index; it is made to its end all the same.
INDEX_SECONDS = 20.0
MAX_FOUND_CHARS = 60_000

_LIST = "ranked"


@dataclass
class _Build:
    """An index that is being made."""

    done_bytes: int = 0
    ended: anyio.Event = field(default_factory=anyio.Event)
    error: RLMError | None = None

    def report(self, done_bytes: int) -> None:
        """Take note of the progress, in the thread that works; end it when the server ends."""
        anyio.from_thread.check_cancelled()
        self.done_bytes = done_bytes


class IndexBuilds:
    """The indexes that are being made, for all callers: one at a time, and none of them twice.

    Args:
        tasks: where they are made; a caller that leaves does not end them.
    """

    def __init__(self, tasks: TaskGroup) -> None:
        self._tasks = tasks
        self._one = anyio.CapacityLimiter(1)
        self._builds: dict[Path, _Build] = {}

    async def all_ready(
        self, indexes: TextIndexes, records: Sequence[ContextRecord], seconds: float
    ) -> bool:
        """Wait until texts have their indexes; return whether one was made anew.

        Raises:
            StoreBusyError: it takes longer than the `seconds` for one.
            StoreError: one cannot be made.
        """
        is_new = False
        for record in records:
            if not await anyio.to_thread.run_sync(indexes.is_built, record):
                await self._ready(indexes, record, seconds)
                is_new = True
        return is_new

    async def _ready(self, indexes: TextIndexes, record: ContextRecord, seconds: float) -> None:
        path = indexes.path(record)
        build = self._builds.get(path)
        if build is None:
            build = self._builds[path] = _Build()
            self._tasks.start_soon(self._make, indexes, record, build)
        with anyio.move_on_after(seconds) as waiting:
            await build.ended.wait()
        if waiting.cancelled_caught:
            share = build.done_bytes / max(1, record.bytes)
            raise StoreBusyError(
                f"The index of {record.handle!r} is being made: {share:.0%} of "
                f"{record.bytes / 1e6:,.0f} MB is done.",
                fix="Search again in a few seconds, or with mode='pattern', which needs no index.",
            )
        if build.error is not None:
            raise build.error

    async def _make(self, indexes: TextIndexes, record: ContextRecord, build: _Build) -> None:
        try:
            await anyio.to_thread.run_sync(indexes.build, record, build.report, limiter=self._one)
        except RLMError as error:
            build.error = error
        finally:
            del self._builds[indexes.path(record)]
            build.ended.set()


async def ranked_search(
    indexes: TextIndexes, records: Sequence[ContextRecord], query: SearchQuery, cursor: str
) -> tuple[list[tuple[ContextRecord, RankedMatch]], str | None]:
    """Return a page of the best matches in texts that are indexed, and the cursor of the next one.

    Raises:
        InvalidInputError: the query has no word, or the cursor is not ours.
        StoreError: a text was deleted.
    """
    if not any(query_terms(query.pattern)):
        raise InvalidInputError(
            f"The query {query.pattern[:60]!r} has no word.",
            fix="Give the words to look for, or set mode='pattern'.",
        )
    first = _first(cursor)
    wanted = min(first + query.limit, MAX_RANKED)
    found = [
        [(record, match) for match in await _search(indexes, record, query, wanted + 1)]
        for record in records
    ]
    best = list(merge(*found, key=lambda one: -one[1].score))
    page = _fitting(best[first:wanted])
    after = first + len(page)
    is_more = len(best) > after and after < MAX_RANKED
    return page, encode_cursor(_LIST, after) if is_more else None


async def _search(
    indexes: TextIndexes, record: ContextRecord, query: SearchQuery, limit: int
) -> Sequence[RankedMatch]:
    return await anyio.to_thread.run_sync(
        indexes.search, record, query.pattern, query.context_lines, limit
    )


def _fitting(
    found: list[tuple[ContextRecord, RankedMatch]],
) -> list[tuple[ContextRecord, RankedMatch]]:
    """Return as many of the first as can be sent at once, and at least one."""
    room = MAX_FOUND_CHARS
    for index, (_, match) in enumerate(found):
        room -= len(match.text) + 100
        if room < 0:
            return found[: max(1, index)]
    return found


def _first(cursor: str) -> int:
    if not cursor:
        return 0
    match decode_cursor(_LIST, cursor):
        case [int() as first] if 0 <= first <= MAX_RANKED:
            return first
        case _:
            raise invalid_cursor(cursor)
