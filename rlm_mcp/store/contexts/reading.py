"""Reads stored contexts: their records, slices of their documents, and the text of a REPL."""

from __future__ import annotations

import hashlib
import io
from array import array
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import accumulate
from sqlite3 import Connection
from typing import TYPE_CHECKING, NamedTuple, overload

from rlm_mcp.errors import InvalidInputError, NotFoundError, StoreError
from rlm_mcp.sandbox.citable import SourcePlace
from rlm_mcp.store.contexts.chunking import Place
from rlm_mcp.store.contexts.pages import pages_at
from rlm_mcp.store.contexts.records import ContextRecord, Span, TextSlice
from rlm_mcp.store.database import Database
from rlm_mcp.store.paging import LARGEST, check_offset
from rlm_mcp.text import without_surrogates

if TYPE_CHECKING:
    from rlm_mcp.sandbox.layout import Layout
    from rlm_mcp.store.contexts.text_cache import TextCache

RECORD_COLUMNS = "handle, name, sha256, bytes, chars, lines, documents, created_at, preview"


def find_context(db: Connection, caller: str, handle: str) -> ContextRecord | None:
    """Return the record of a caller's context, or None."""
    sql = f"SELECT {RECORD_COLUMNS} FROM contexts WHERE caller = ? AND handle = ?"  # noqa: S608  # our constant
    row = db.execute(sql, [caller, without_surrogates(handle)]).fetchone()
    return ContextRecord(*row) if row else None


def chunk_data(
    db: Connection, text_id: int, start: int = 0, end: int = 1 << 62
) -> Iterator[tuple[int, bytes]]:
    """Yield those of a text's chunks that begin in a range of bytes: where, and their UTF-8."""
    return db.execute(
        "SELECT start_byte, data FROM chunks WHERE text_id = ? AND start_byte >= ? "
        "AND start_byte < ? ORDER BY start_byte",
        [text_id, start, end],
    )


def text_bytes(db: Connection, text_id: int) -> int:
    """Return how many bytes of UTF-8 a text has."""
    sql = "SELECT start_byte + length(data) FROM chunks WHERE text_id = ? ORDER BY start_byte DESC"
    row = db.execute(f"{sql} LIMIT 1", [text_id]).fetchone()
    return row[0] if row else 0


class _Document(NamedTuple):
    """One document's place in its text; `lines` is its own count, `start.line` counts breaks."""

    text_id: int
    start: Place
    chars: int
    lines: int


def check_span(span: Span) -> None:
    """Reject invalid offsets.

    Raises:
        InvalidInputError: one is negative, or the unit is unknown.
    """
    for name, value in (("document", span.document), ("start", span.start), ("limit", span.limit)):
        check_offset(name, value)
    if span.max_chars < 1:
        raise InvalidInputError(
            f"max_chars must be at least 1, not {span.max_chars!r}.", fix="Leave it out."
        )
    if span.unit not in ("chars", "lines"):
        raise InvalidInputError(f"There is no unit {span.unit!r}.", fix="Use 'chars' or 'lines'.")


def read_span(db: Connection, handle: str, text_id: int, span: Span) -> TextSlice:
    """Read part of a document; a start past its end returns an empty slice at the end.

    Raises:
        NotFoundError: the context has no such document.
    """
    document = _find_document(db, handle, text_id, span.document)
    if span.unit == "lines":
        return _read_lines(db, document, span)
    start = min(span.start, document.chars)
    end = min(start + span.limit, document.chars)
    text = _read_chars(db, document, start, end)
    return TextSlice(text, start, end, document.chars, _next(end, document.chars))


def document_at(db: Connection, text_id: int, char: int) -> tuple[int, int]:
    """Return index and first character of the document that a character of the text lies in."""
    return db.execute(
        "SELECT position, start_char FROM documents WHERE text_id = ? AND start_char <= ? "
        "ORDER BY position DESC LIMIT 1",
        [text_id, char],
    ).fetchone()


def _find_document(db: Connection, handle: str, text_id: int, index: int) -> _Document:
    row = db.execute(
        "SELECT start_byte, start_char, start_line, chars, lines FROM documents "
        "WHERE text_id = ? AND position = ?",
        [text_id, min(index, LARGEST)],
    ).fetchone()
    if row is not None:
        return _Document(text_id, Place(*row[:3]), *row[3:])
    last = "SELECT max(position) FROM documents WHERE text_id = ?"
    raise NotFoundError(
        f"The context {handle!r} has no document {index!r}.",
        fix=f"Its documents are 0 to {db.execute(last, [text_id]).fetchone()[0]}.",
    )


def _read_lines(db: Connection, document: _Document, span: Span) -> TextSlice:
    total = document.lines
    start = min(span.start, total)
    end = min(start + span.limit, total)
    first = _line_start(db, document, start)
    last = _line_start(db, document, end)
    if last - first <= span.max_chars:
        text = _read_chars(db, document, first, last)
        return TextSlice(text, start, end, total, _next(end, total))
    text = _read_chars(db, document, first, first + span.max_chars)
    whole = text.count("\n")
    if whole:
        text, end = text[: text.rindex("\n") + 1], start + whole
        return TextSlice(text, start, end, total, _next(end, total))
    end = start + 1
    cut_at = first + len(text)
    return TextSlice(text, start, end, total, _next(end, total), cut=True, cut_at=cut_at)


def _line_start(db: Connection, document: _Document, line: int) -> int:
    """Return the character, within the document, at which a line starts."""
    if line <= 0:
        return 0
    if line >= document.lines:
        return document.chars
    breaks = document.start.line + line
    start_char, start_line, data = db.execute(
        "SELECT start_char, start_line, data FROM chunks WHERE text_id = ? AND start_line < ? "
        "ORDER BY start_line DESC, start_char DESC LIMIT 1",
        [document.text_id, breaks],
    ).fetchone()
    text: str = data.decode()
    after = text.split("\n", breaks - start_line)[-1]
    return start_char + len(text) - len(after) - document.start.char


def _read_chars(db: Connection, document: _Document, start: int, end: int) -> str:
    if start >= end:
        return ""
    first, last = document.start.char + start, document.start.char + end
    rows = db.execute(
        "SELECT start_char, data FROM chunks WHERE text_id = ? AND start_char < ? "
        "AND start_char >= (SELECT max(start_char) FROM chunks "
        "WHERE text_id = ? AND start_char <= ?) ORDER BY start_char",
        [document.text_id, last, document.text_id, first],
    )
    return "".join(data.decode()[max(0, first - at) : last - at] for at, data in rows)


def _next(end: int, total: int) -> int | None:
    return end if end < total else None


class PackedNames(Sequence[str]):
    """Many short names in one string: a million of them take a tenth of what a list would."""

    def __init__(self, text: str, ends: array[int]) -> None:
        self.text = text
        self._ends = ends

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        position = range(len(self))[index]
        start = self._ends[position - 1] if position else 0
        return self.text[start : self._ends[position]]


@dataclass(frozen=True)
class StoredSource:
    """A `ContextSource` over a caller's contexts: their documents in order, as one flat list.

    `key` identifies the texts and the names under which this caller sees them, so a fork server
    kept under it serves no other caller. `counts` has the number of documents of each handle,
    `digests` its SHA-256. `cache` keeps the text in files, if it is large.
    """

    database: Database
    caller: str
    handles: tuple[str, ...]
    key: str
    names: Sequence[str]
    byte_lengths: Sequence[int]
    char_lengths: Sequence[int]
    prefix: str
    counts: Sequence[int]
    digests: Sequence[str]
    text_bytes: int
    cache: TextCache | None = None

    @property
    def is_list(self) -> bool:
        """Whether there is more than one document."""
        return len(self.byte_lengths) > 1

    async def lay_out(self, write: Callable[[int], Awaitable[Layout]]) -> tuple[int, Layout] | None:
        """Return the text as a file; see `types.LaidOutText`.

        Raises:
            StoreError: a context was deleted meanwhile.
        """
        return None if self.cache is None else await self.cache.lay_out(self, write)

    def text_at(self, document: int, start: int, end: int) -> str:
        """Return some characters of a document; blocks, on a connection of its own.

        Raises:
            StoreError: its context was deleted.
        """
        handle, position = self._owner(document)
        with self.database.open_reader() as db:
            span = Span(position, start, end - start)
            return read_span(db, handle, text_of(db, self.caller, handle), span).text

    def place_of(self, document: int, start: int) -> SourcePlace:
        """Return handle, number, name and page of a character; blocks too.

        Raises:
            StoreError: its context was deleted.
        """
        handle, position = self._owner(document)
        with self.database.open_reader() as db:
            text_of(db, self.caller, handle)
            _, name, *_ = next(document_rows(db, self.caller, handle, position, 1))
            [page] = pages_at(db, self.caller, handle, [(position, start)])
        return SourcePlace(handle, position, name, page)

    def _owner(self, document: int) -> tuple[str, int]:
        """Return the handle that a document belongs to, and its number there."""
        ends = list(accumulate(self.counts))
        index = bisect_right(ends, document)
        return self.handles[index], document - (ends[index - 1] if index else 0)

    def chunks(self) -> Iterator[bytes]:
        """Yield the UTF-8 of all documents in order; blocks, on a connection of its own.

        Raises:
            StoreError: a context was deleted before the scan began.
        """
        # Closed together with this generator, in the thread that reads.
        with closing(self.chunks_between(0, sum(self.byte_lengths))) as chunks:
            for _, chunk in chunks:
                yield chunk

    def chunks_between(self, start: int, end: int) -> Generator[tuple[int, bytes]]:
        """Yield the chunks that begin in a range of bytes, each after its place, in order.

        Blocks, on a connection of its own, so that two threads read side by side.

        Raises:
            StoreError: a context was deleted before the scan began.
        """
        with self.database.open_reader() as db:
            base = 0
            for handle in self.handles:
                text_id = text_of(db, self.caller, handle)
                for place, data in chunk_data(db, text_id, start - base, end - base):
                    yield base + place, data
                base += text_bytes(db, text_id)


def source_key(caller: str, records: Sequence[ContextRecord], names: PackedNames) -> str:
    """Return a key for texts as a caller sees them: the handles, and a digest of the rest."""
    seen = hashlib.sha256(caller.encode())
    for part in (*(record.sha256 for record in records), names.text):
        seen.update(b"\xff" + part.encode())
    return "+".join((*(record.handle for record in records), seen.hexdigest()[:16]))


def load_documents(
    db: Connection, caller: str, records: Sequence[ContextRecord]
) -> tuple[PackedNames, array[int], array[int]]:
    """Return every document's name, bytes and characters, in order.

    Names come after their context's name when there are several contexts.
    """
    names, ends, sizes, chars = io.StringIO(), array("Q"), array("Q"), array("Q")
    end = 0
    for record in records:
        prefix = f"{record.name or record.handle}/" if len(records) > 1 else ""
        for _, name, size, count, _ in document_rows(db, caller, record.handle):
            end += names.write(prefix + name)
            ends.append(end)
            sizes.append(size)
            chars.append(count)
    return PackedNames(names.getvalue(), ends), sizes, chars


def document_rows(
    db: Connection, caller: str, handle: str, start: int = 0, limit: int = -1
) -> Iterator[tuple[int, str, int, int, int]]:
    """Yield position, name, bytes, characters and lines of a context's documents, in order."""
    return db.execute(
        "SELECT position, CASE contexts.documents WHEN 1 THEN document ELSE documents.name END, "
        "documents.bytes, documents.chars, documents.lines "
        "FROM contexts JOIN documents ON documents.text_id = contexts.text_id "
        "WHERE caller = ? AND handle = ? AND position >= ? ORDER BY position LIMIT ?",
        [caller, handle, start, limit],
    )


def text_of(db: Connection, caller: str, handle: str) -> int:
    """Return the id of the text of a caller's context.

    Raises:
        StoreError: it was deleted.
    """
    sql = "SELECT text_id FROM contexts WHERE caller = ? AND handle = ?"
    row = db.execute(sql, [caller, handle]).fetchone()
    if row is None:
        raise StoreError(
            f"The context {handle!r} was deleted while it was in use.",
            fix="Add the text again, or ask without it.",
        )
    return row[0]
