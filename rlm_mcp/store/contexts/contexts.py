"""Long texts, stored once each, by a handle that is made from their content."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from sqlite3 import Connection
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from rlm_mcp.cursors import encode_cursor
from rlm_mcp.errors import InvalidInputError, StoreError
from rlm_mcp.store.contexts.chunking import TextCutter
from rlm_mcp.store.contexts.forgetting import forget_ended, mark_runs, runs_over
from rlm_mcp.store.contexts.pages import pages_at
from rlm_mcp.store.contexts.reading import (
    RECORD_COLUMNS,
    StoredSource,
    check_span,
    document_at,
    document_rows,
    find_context,
    load_documents,
    read_span,
    source_key,
    text_of,
)
from rlm_mcp.store.contexts.records import (
    ContextRecord,
    DocumentRecord,
    Page,
    Passage,
    Span,
    TextSlice,
)
from rlm_mcp.store.contexts.texts import drop_text, sweep
from rlm_mcp.store.contexts.uploads import Upload, begin_upload, claim_upload
from rlm_mcp.store.contexts.write_behind import Behind
from rlm_mcp.store.database import CALLER_PATIENCE_SECONDS, Database
from rlm_mcp.store.index.files import drop_index, sweep_indexes
from rlm_mcp.store.paging import (
    COMPARED,
    check_limit,
    check_offset,
    not_found,
    row_before,
)
from rlm_mcp.text import without_surrogates

if TYPE_CHECKING:
    from rlm_mcp.store.contexts.text_cache import TextCache

PREFIX_CHARS = 4000
FEW_DOCUMENTS = 100  # whose names and lengths are read at once
_ABORT_SECONDS = 10.0


class Contexts:
    """One caller's contexts in a database, and the uploads that become contexts.

    Args:
        caller: the owner of these contexts; empty for everyone who shares the machine.
        cache: keeps large texts as files, if there is one.
    """

    def __init__(
        self, database: Database, *, caller: str = "", cache: TextCache | None = None
    ) -> None:
        self._database = database
        self._caller = caller
        self.cache = cache

    @property
    def caller(self) -> str:
        """The owner of these contexts; empty for everyone who shares the machine."""
        return self._caller

    def as_caller(self, caller: str) -> Contexts:
        """Return the contexts of another caller."""
        return Contexts(self._database, caller=caller, cache=self.cache)

    @asynccontextmanager
    async def open_upload(self, name: str = "") -> AsyncGenerator[Upload]:
        """Start an upload; it is removed if it is neither sealed nor paused when the block ends.

        Raises:
            StoreError: the database could not store it.
        """
        row = await self._database.write(
            lambda db: begin_upload(db, self._caller, name),
            patience_seconds=CALLER_PATIENCE_SECONDS,
        )
        behind = Behind()
        upload = Upload(self._database, row, TextCutter(), behind)
        try:
            async with behind.running():
                yield upload
        finally:
            if not upload.is_kept:
                # Bounded, and its errors are dropped: the caller should see what ended the block.
                with anyio.move_on_after(_ABORT_SECONDS, shield=True), suppress(StoreError):
                    await upload.abort()

    @asynccontextmanager
    async def continue_upload(self, upload_id: str) -> AsyncGenerator[Upload]:
        """Continue a paused upload, in this process or another one.

        If it is neither sealed nor paused again when the block ends, it stays as it was at its last
        pause. A call that continued it earlier can no longer write to it.

        Raises:
            NotFoundError: it was sealed or aborted, or never existed.
            StoreError: the database failed.
        """
        row, cutter = await self._database.write(
            lambda db: claim_upload(db, self._caller, upload_id),
            patience_seconds=CALLER_PATIENCE_SECONDS,
        )
        behind = Behind()
        async with behind.running():
            yield Upload(self._database, row, cutter, behind)

    async def get(self, handle: str) -> ContextRecord:
        """Return a context's record.

        Raises:
            NotFoundError: there is none; the error names similar handles and how to list them.
        """
        return await self._database.read(lambda db: _get(db, self._caller, handle))

    async def list(self, *, limit: int = 50, cursor: str | None = None) -> Page[ContextRecord]:
        """Return contexts, newest first; pages do not shift when others are added.

        Raises:
            InvalidInputError: the limit is below 1, or the cursor is not one of this list.
        """
        before, limit = row_before("contexts", cursor), check_limit(limit)
        return await self._database.read(lambda db: _list(db, self._caller, before, limit))

    async def count(self) -> int:
        """How many contexts the caller has."""
        return await self._database.read(lambda db: _sum(db, "count(*)", self._caller))

    async def total_bytes(self) -> int:
        """How many bytes of text the caller's contexts have, shared ones included."""
        return await self._database.read(lambda db: _sum(db, "sum(bytes)", self._caller))

    async def documents(
        self, handle: str, *, start: int = 0, limit: int = 1000
    ) -> Sequence[DocumentRecord]:
        """Return some of a context's documents, in order, from the one at index `start`.

        Raises:
            NotFoundError: there is no such context.
            InvalidInputError: `start` is negative or `limit` is below 1.
        """
        first, count = check_offset("start", start), check_limit(limit)
        return await self._database.read(
            lambda db: _documents(db, self._caller, handle, first, count)
        )

    async def read(self, handle: str, span: Span = Span()) -> TextSlice:  # noqa: B008  # frozen
        """Read part of one document. Offsets are characters or lines from 0, ends exclusive.

        Raises:
            NotFoundError: there is no such context or document; the error names those that exist.
            InvalidInputError: an offset is negative, or the unit is unknown.
        """
        check_span(span)
        return await self._database.read(lambda db: _read(db, self._caller, handle, span))

    async def passage(self, handle: str, start: int, limit: int) -> Passage:
        """Read from a character counted over all documents, up to the end of its document at most.

        Raises:
            NotFoundError: there is no such context.
            InvalidInputError: an offset is negative.
        """
        start, limit = check_offset("start", start), check_offset("limit", limit)
        return await self._database.read(
            lambda db: _passage(db, self._caller, handle, start, limit)
        )

    async def pages_at(
        self, handle: str, places: Sequence[tuple[int, int]]
    ) -> Sequence[str | None]:
        """Return the label of the page at each place; see `pages.pages_at`."""
        return await self._database.read(lambda db: pages_at(db, self._caller, handle, places))

    async def starting_with(self, prefix: str, limit: int) -> Sequence[str]:
        """Return handles that start with `prefix`, newest first."""
        return await self._database.read(lambda db: _starting(db, self._caller, prefix, limit))

    async def read_bytes(self, handle: str, start: int, limit: int) -> bytes:
        """Read a context's UTF-8 from an existing byte on: up to `limit` bytes, and at least one.

        Raises:
            NotFoundError: there is no such context.
        """
        return await self._database.read(
            lambda db: _read_bytes(db, self._caller, handle, start, limit)
        )

    async def delete(self, handle: str) -> int:
        """Remove a context; return how many bytes of text it had.

        The context disappears at once. Its text is deleted in steps, between which other writes
        take place, unless another caller holds the same text. How long this call takes must not
        reveal that: the text of one of several callers is left to the next sweep. Everything
        that the caller's runs derived from it is deleted too, except their answers; for a running
        run that happens when it ends.

        Raises:
            NotFoundError: there is no such context.
        """
        record, text_id, is_held = await self._database.write(
            lambda db: _forget_context(db, self._caller, handle),
            patience_seconds=CALLER_PATIENCE_SECONDS,
        )
        await anyio.to_thread.run_sync(drop_index, self._database, self._caller, record.sha256)
        if self.cache is not None:
            await self.cache.drop(self._caller, record.sha256)
        if not (is_held or self._caller):
            await drop_text(self._database, text_id)
        await forget_ended(self._database)
        return record.bytes

    async def runs_over(self, handle: str) -> Sequence[str]:
        """Return the ids of the caller's runs over a context."""
        return await self._database.read(lambda db: runs_over(db, self._caller, handle))

    async def sweep(self, *, idle_seconds: float = 86_400) -> int:
        """Delete uploads that were not written to for so long, and unused texts of any caller.

        Returns:
            How many texts.
        """
        before = time.time() - idle_seconds
        sql = "DELETE FROM uploads WHERE touched_at < ?"
        await self._database.write(lambda db: db.execute(sql, [before]))
        dropped = await sweep(self._database)
        await anyio.to_thread.run_sync(sweep_indexes, self._database)
        return dropped

    async def drop_unused(self) -> int:
        """Delete texts that nobody holds any more, and their indexes; return how many texts."""
        dropped = await sweep(self._database)
        if dropped:
            await anyio.to_thread.run_sync(sweep_indexes, self._database)
        return dropped

    async def source(self, handles: Sequence[str]) -> StoredSource:
        """Return one context or several as the text of a REPL.

        Raises:
            InvalidInputError: no handle was given.
            NotFoundError: there is no context with one of the handles.
        """
        if not handles:
            raise InvalidInputError("No context was given.", fix="Pass at least one handle.")
        asked = tuple(handles)
        few = await self._database.read_grouped(lambda db: self._source_of_few(db, asked))
        return few or await self._database.scan(lambda db: self._source(db, asked))

    def _source_of_few(self, db: Connection, handles: tuple[str, ...]) -> StoredSource | None:
        """Return a source that is made quickly, else None."""
        documents = sum(_get(db, self._caller, handle).documents for handle in handles)
        return self._source(db, handles) if documents <= FEW_DOCUMENTS else None

    def _source(self, db: Connection, handles: tuple[str, ...]) -> StoredSource:
        caller = self._caller
        records = [_get(db, caller, handle) for handle in handles]
        names, sizes, chars = load_documents(db, caller, records)
        key = source_key(caller, records, names)
        prefix = _read(db, caller, handles[0], Span(limit=PREFIX_CHARS)).text
        counts = tuple(record.documents for record in records)
        return StoredSource(
            self._database,
            caller,
            handles,
            key,
            names,
            sizes,
            chars,
            prefix,
            counts,
            digests=tuple(record.sha256 for record in records),
            text_bytes=sum(record.bytes for record in records),
            cache=self.cache,
        )


def _get(db: Connection, caller: str, handle: str) -> ContextRecord:
    record = find_context(db, caller, handle)
    if record is None:
        sql = "SELECT handle FROM contexts WHERE caller = ? ORDER BY id DESC LIMIT ?"
        rows = db.execute(sql, [caller, COMPARED])
        raise not_found("context", handle, [row[0] for row in rows], "rlm_context_list")
    return record


def _list(db: Connection, caller: str, before: int, limit: int) -> Page[ContextRecord]:
    sql = (
        f"SELECT id, {RECORD_COLUMNS} FROM contexts "  # noqa: S608  # our constant
        "WHERE caller = ? AND id < ? ORDER BY id DESC LIMIT ?"
    )
    rows = db.execute(sql, [caller, before, limit + 1]).fetchall()
    more = len(rows) > limit
    records = [ContextRecord(*row[1:]) for row in rows[:limit]]
    return Page(records, encode_cursor("contexts", rows[limit - 1][0]) if more else None)


def _sum(db: Connection, what: str, caller: str) -> int:
    sql = f"SELECT {what} FROM contexts WHERE caller = ?"  # noqa: S608  # our own words
    return db.execute(sql, [caller]).fetchone()[0] or 0


def _documents(
    db: Connection, caller: str, handle: str, start: int, limit: int
) -> list[DocumentRecord]:
    _get(db, caller, handle)
    return [DocumentRecord(*row) for row in document_rows(db, caller, handle, start, limit)]


def _read(db: Connection, caller: str, handle: str, span: Span) -> TextSlice:
    _get(db, caller, handle)
    return read_span(db, handle, text_of(db, caller, handle), span)


def _passage(db: Connection, caller: str, handle: str, start: int, limit: int) -> Passage:
    total = _get(db, caller, handle).chars
    index, begins = document_at(db, text_of(db, caller, handle), start)
    span = Span(index, min(start, total) - begins, limit)
    piece = _read(db, caller, handle, span)
    document = DocumentRecord(*next(document_rows(db, caller, handle, index, 1)))
    return Passage(piece.text, begins + piece.start, begins + piece.end, total, document)


def _starting(db: Connection, caller: str, prefix: str, limit: int) -> list[str]:
    sql = (
        "SELECT handle FROM contexts WHERE caller = ? AND substr(handle, 1, ?) = ? "
        "ORDER BY id DESC LIMIT ?"
    )
    return [
        row[0] for row in db.execute(sql, [caller, len(prefix), without_surrogates(prefix), limit])
    ]


def _read_bytes(db: Connection, caller: str, handle: str, start: int, limit: int) -> bytes:
    _get(db, caller, handle)
    at, data = db.execute(
        "SELECT start_byte, data FROM chunks WHERE text_id = ? AND start_byte <= ? "
        "ORDER BY start_byte DESC LIMIT 1",
        [text_of(db, caller, handle), start],
    ).fetchone()
    return data[start - at : start - at + limit]


def _forget_context(db: Connection, caller: str, handle: str) -> tuple[ContextRecord, int, bool]:
    record, text_id = _get(db, caller, handle), text_of(db, caller, handle)
    db.execute("DELETE FROM contexts WHERE caller = ? AND handle = ?", [caller, handle])
    mark_runs(db, caller, handle)
    others = db.execute("SELECT 1 FROM contexts WHERE text_id = ? LIMIT 1", [text_id])
    return record, text_id, others.fetchone() is not None
