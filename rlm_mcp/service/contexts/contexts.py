"""What a user can do with texts: add, list, read, search, delete."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import anyio
import anyio.from_thread
import anyio.to_thread

from rlm_mcp.errors import InvalidInputError, NotTextError, StoreError
from rlm_mcp.sandbox.types import ReplOptions, Sandbox
from rlm_mcp.service.contexts.added import (
    Added,
    Decoded,
    check_name,
    idle_note,
    open_view,
    sealed_view,
)
from rlm_mcp.service.contexts.file_text import read_batches, total_bytes
from rlm_mcp.service.contexts.files import find_files, require_text
from rlm_mcp.service.contexts.parts import PartsReader
from rlm_mcp.service.contexts.paths import AllowedPaths, paths_starting_with
from rlm_mcp.service.contexts.ranked_search import INDEX_SECONDS, IndexBuilds, ranked_search
from rlm_mcp.service.contexts.requests import NewText, SearchQuery
from rlm_mcp.service.contexts.search import FoundMatch, check_pattern, search
from rlm_mcp.service.contexts.text_reader import read_inline
from rlm_mcp.service.contexts.walking import Choice
from rlm_mcp.service.contexts.writing import ReportBytes, write_batches
from rlm_mcp.service.repls import Repls
from rlm_mcp.service.runs.live import RunQueue
from rlm_mcp.store.contexts.contexts import Contexts
from rlm_mcp.store.contexts.records import (
    ContextRecord,
    Page,
    Passage,
    Span,
    TextSlice,
    Unit,
)
from rlm_mcp.store.contexts.uploads import Upload
from rlm_mcp.store.index.indexes import RankedMatch, TextIndexes

MAX_READ_CHARS = 50_000
_ENCODED_AT_ONCE = 1000
# Searching runs none of the caller's code but a regular expression, over text that it only reads.
PLACE_SECONDS = 30.0
_SEARCH_OPTIONS = ReplOptions(sub_calls=False)


@dataclass(frozen=True)
class LocatedMatch:
    """A match with the handle of its context; `document` counts within that context.

    `score` is for matches by words: the larger, the better.
    """

    handle: str
    document: int
    name: str
    line: int
    start: int
    end: int
    text: str
    page: str | None = None
    score: float | None = None


@dataclass(frozen=True)
class FoundPage:
    """Some matches: in text order, by words the best first."""

    matches: tuple[LocatedMatch, ...]
    next_cursor: str | None


@dataclass(frozen=True)
class Searches:
    """What searches need: a place and a REPL for a pattern, the caller's indexes for words."""

    queue: RunQueue
    sandbox: Sandbox
    indexes: TextIndexes
    builds: IndexBuilds


class ContextService:
    """Use cases over stored texts."""

    def __init__(
        self,
        store: Contexts,
        searches: Searches,
        repls: Repls,
        allowed: AllowedPaths,
        *,
        max_file_bytes: int = 0,
    ) -> None:
        self._max_file_bytes = max_file_bytes
        self._store = store
        self._searches = searches
        self._repls = repls
        self._allowed = allowed

    async def add(self, new: NewText, report: ReportBytes) -> Added:
        """Store a text from one source, or one more part of it.

        Raises:
            InvalidInputError: no source, two sources, or one that cannot be read.
            NotFoundError: the upload to be continued does not exist.
            StoreError: the database could not store it.
        """
        _check(new)
        if new.path:
            return await self._add_path(new, report)
        add = self._add_documents if new.documents else self._add_text
        return replace(await add(new), note=idle_note(new))

    async def _add_text(self, new: NewText) -> Added:
        opened = (
            self._store.continue_upload(new.upload_id)
            if new.upload_id
            else self._store.open_upload(new.name or _first_words(new.text))
        )
        async with opened as upload:
            parts = _parts_of(upload, is_first=not new.upload_id)
            read = partial(parts.read, new.text, is_last=new.is_final)
            await upload.write(await anyio.to_thread.run_sync(read))
            if not new.is_final:
                return open_view(await upload.pause(parts.state()), parts.waiting)
            decoded = Decoded()
            decoded.note(new.name or "text", "", parts.replaced, parts.hole_bytes)
            return sealed_view(await upload.seal(), (), decoded)

    async def _add_documents(self, new: NewText) -> Added:
        async with self._store.open_upload(new.name or f"{len(new.documents)} documents") as upload:
            decoded = Decoded()
            for start in range(0, len(new.documents), _ENCODED_AT_ONCE):
                some = new.documents[start : start + _ENCODED_AT_ONCE]
                encoded = await anyio.to_thread.run_sync(lambda: list(map(read_inline, some)))  # noqa: B023  # awaited here
                for index, read in enumerate(encoded, start):
                    await upload.begin_document(f"document {index}")
                    await upload.write(read.data)
                    decoded.note(f"document {index}", "", read.replaced, read.hole_bytes)
            return sealed_view(await upload.seal(), (), decoded)

    async def _add_path(self, new: NewText, report: ReportBytes) -> Added:
        choice = Choice(
            new.include, new.exclude, new.honours_ignore_files, self._max_file_bytes or None
        )
        check = anyio.from_thread.check_cancelled
        found = await anyio.to_thread.run_sync(find_files, new.path, self._allowed, check, choice)
        if found.is_single:
            await anyio.to_thread.run_sync(require_text, found.files[0][1], self._allowed)
        if not found.files:
            raise NotTextError(
                f"The path {new.path!r} holds no text file; "
                f"{sum(found.skipped_total.values()):,} were left out"
                + "".join(f", such as {name!r} ({why})" for name, why in found.skipped[:1])
                + ".",
                fix="Give a directory or glob with text files in it.",
            )
        async with self._store.open_upload(new.name or found.name) as upload:
            total = await anyio.to_thread.run_sync(total_bytes, found)
            await upload.expect(total)
            batches = read_batches(found, self._allowed, check)
            shown = f"path {new.path!r}"
            decoded = await write_batches(upload, batches, total, report, shown)
            added = sealed_view(await upload.seal(), found.skipped, decoded)
            reasons = Counter(found.skipped_total) + decoded.left_out.counts
            note = idle_note(new) if found.is_single else ""
            return replace(added, skipped_reasons=dict(reasons), note=note)

    async def list(self, limit: int, cursor: str) -> Page[ContextRecord]:
        """List contexts, newest first.

        Raises:
            InvalidInputError: the cursor is not one of this list.
        """
        return await self._store.list(limit=limit, cursor=cursor or None)

    async def read(
        self, handle: str, document: int, start: int, limit: int, unit: Unit
    ) -> TextSlice:
        """Read a piece of one document.

        Raises:
            InvalidInputError: an offset is negative.
            NotFoundError: there is no such context or document.
        """
        return await self._store.read(handle, Span(document, start, limit, unit, MAX_READ_CHARS))

    async def passage(self, handle: str, start: int, limit: int) -> Passage:
        """Read on from a character that counts over all documents, to its document's end at most.

        Raises:
            InvalidInputError: an offset is negative.
            NotFoundError: there is no such context.
        """
        return await self._store.passage(handle, start, limit)

    async def starting_with(self, prefix: str, limit: int) -> Sequence[str]:
        """Return handles that start so, newest first."""
        return await self._store.starting_with(prefix, limit)

    async def paths_starting_with(self, prefix: str, limit: int) -> Sequence[str]:
        """Return files and directories that may be added and whose path starts so, by name."""
        return await anyio.to_thread.run_sync(paths_starting_with, prefix, self._allowed, limit)

    async def search(
        self,
        handles: tuple[str, ...],
        query: SearchQuery,
        cursor: str,
        index_seconds: float = INDEX_SECONDS,
    ) -> FoundPage:
        """Find a pattern, where one that runs away is stopped by time; or the best lines by words.

        Args:
            handles: the texts.
            query: what to look for.
            cursor: where an earlier page ended; empty for the first.
            index_seconds: by words, how long to wait for the index of a text.

        Raises:
            InvalidInputError: the pattern or cursor cannot be used, or took too long.
            NotFoundError: there is no such context.
            SandboxBusyError: too many searches run, and none of them ends.
            StoreBusyError: the index is not made yet.
        """
        check_pattern(query)
        handles = tuple(dict.fromkeys(handles))
        if query.mode == "words":
            return await self._search_words(handles, query, cursor, index_seconds)
        source = await self._store.source(handles)
        owners = [(handle, await self._store.get(handle)) for handle in handles]
        place = self._searches.queue.place(self._store.caller, PLACE_SECONDS, "searches")
        async with place, self._searches.sandbox.open_repl(source, _SEARCH_OPTIONS) as repl:
            found, next_cursor = await search(repl, query, cursor)
        located = [_located(match, owners, source.names[match.document]) for match in found]
        return FoundPage(await self._with_pages(located), next_cursor)

    async def _search_words(
        self, handles: tuple[str, ...], query: SearchQuery, cursor: str, index_seconds: float
    ) -> FoundPage:
        if not handles:
            raise InvalidInputError("No context was given.", fix="Pass at least one handle.")
        records = [await self._store.get(handle) for handle in handles]
        builds, indexes = self._searches.builds, self._searches.indexes
        await builds.all_ready(indexes, records, index_seconds)
        try:
            found, next_cursor = await ranked_search(indexes, records, query, cursor)
        except StoreError:
            if not await builds.all_ready(indexes, records, index_seconds):
                raise
            found, next_cursor = await ranked_search(indexes, records, query, cursor)
        located = [_ranked(record, match) for record, match in found]
        return FoundPage(await self._with_pages(located), next_cursor)

    async def _with_pages(self, found: Sequence[LocatedMatch]) -> tuple[LocatedMatch, ...]:
        """Add the labels of pages, where documents have some."""
        pages: dict[tuple[str, int, int], str | None] = {}
        for handle in {match.handle for match in found}:
            places = [(one.document, one.start) for one in found if one.handle == handle]
            labels = await self._store.pages_at(handle, places)
            pages |= {(handle, *place): label for place, label in zip(places, labels, strict=True)}
        return tuple(
            replace(match, page=pages[match.handle, match.document, match.start]) for match in found
        )

    async def delete(self, handle: str) -> int:
        """Delete a context; returns the bytes that are free then.

        Runs over it keep question, answer and figures; their variables and what their logs say go
        too, and their REPLs end. One at work continues to its end.

        Raises:
            NotFoundError: there is no such context.
        """
        runs = await self._store.runs_over(handle)
        freed = await self._store.delete(handle)
        for run_id in runs:
            self._repls.drop(run_id)
        return freed


def _check(new: NewText) -> None:
    given = [
        name
        for name, value in (("text", new.text), ("path", new.path), ("documents", new.documents))
        if value
    ]
    if len(given) > 1:
        raise InvalidInputError(
            f"There are {len(given)} sources at once: {' and '.join(given)}.",
            fix="Give one; several texts go into `documents`, several files into a glob.",
        )
    in_parts = bool(new.upload_id) or not new.is_final
    if not given and not (new.upload_id and new.is_final):
        raise InvalidInputError(
            "There is no source: text, path and documents are all empty.",
            fix="Give `path` for a file on the server's machine, or `text`.",
        )
    if in_parts and given and given != ["text"]:
        raise InvalidInputError(
            f"Only `text` can be sent in parts, not {given[0]!r}.",
            fix="Leave out upload_id and final.",
        )
    if new.name and new.upload_id:
        raise InvalidInputError(
            f"The upload has its name already; {new.name[:40]!r} comes too late.",
            fix="Give the name with the first part.",
        )
    check_name(new.name)


def _located(match: FoundMatch, owners: list[tuple[str, ContextRecord]], name: str) -> LocatedMatch:
    document = match.document
    for handle, record in owners:
        if document < record.documents:
            if len(owners) > 1:
                name = name.removeprefix(f"{record.name or handle}/")
            place = (match.line, match.start, match.end)
            return LocatedMatch(handle, document, name, *place, match.text)
        document -= record.documents
    raise AssertionError(match)  # the REPL held these documents and no others


def _ranked(record: ContextRecord, match: RankedMatch) -> LocatedMatch:
    return LocatedMatch(record.handle, **vars(match))


def _parts_of(upload: Upload, *, is_first: bool) -> PartsReader:
    if is_first or upload.reader_state:
        return PartsReader(upload.reader_state)
    return PartsReader.passing()


def _first_words(text: str) -> str:
    begin = text.lstrip("\0") if text.startswith("\0") else text
    return " ".join(begin[:200].split())[:60] or "text"
