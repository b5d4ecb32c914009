"""The text of a REPL, read from stored contexts."""

from __future__ import annotations

import hashlib
import io
from array import array
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from sqlite3 import Connection
from typing import overload

from rlm_mcp.errors import StoreError
from rlm_mcp.store.contexts.records import ContextRecord
from rlm_mcp.store.contexts.texts import chunk_data, text_bytes
from rlm_mcp.store.database import Database


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
    kept under it serves no other caller.
    """

    database: Database
    caller: str
    handles: tuple[str, ...]
    key: str
    names: Sequence[str]
    byte_lengths: Sequence[int]
    char_lengths: Sequence[int]
    prefix: str

    @property
    def is_list(self) -> bool:
        """Whether there is more than one document."""
        return len(self.byte_lengths) > 1

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
