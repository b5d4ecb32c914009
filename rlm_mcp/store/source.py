"""Stored contexts, as the text of a REPL."""

from __future__ import annotations

import io
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from sqlite3 import Connection
from typing import overload

from rlm_mcp.errors import StoreError
from rlm_mcp.store.database import Database
from rlm_mcp.store.records import ContextRecord
from rlm_mcp.store.texts import chunk_data


class PackedNames(Sequence[str]):
    """Many short names in one string: a million of them take a tenth of what a list would."""

    def __init__(self, text: str, ends: array[int]) -> None:
        self._text = text
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
        return self._text[start : self._ends[position]]


@dataclass(frozen=True)
class StoredSource:
    """A `ContextSource` over sealed contexts: their documents in order, as one flat list."""

    database: Database
    handles: tuple[str, ...]
    names: Sequence[str]
    byte_lengths: Sequence[int]
    char_lengths: Sequence[int]
    prefix: str

    @property
    def key(self) -> str:
        """The handles, which are made from the content."""
        return "+".join(self.handles)

    @property
    def is_list(self) -> bool:
        """Whether there is more than one document."""
        return len(self.byte_lengths) > 1

    def chunks(self) -> Iterator[bytes]:
        """Yield the UTF-8 of all documents in order; blocks, on a connection of its own.

        Raises:
            StoreError: a context was deleted before the scan began.
        """
        with self.database.open_reader() as db:
            for handle in self.handles:
                yield from chunk_data(db, _text_of(db, handle))


def load_documents(
    db: Connection, records: Sequence[ContextRecord]
) -> tuple[PackedNames, array[int], array[int]]:
    """Return every document's name, bytes and characters, in order.

    Names come after their context's name when there are several contexts.
    """
    names, ends, sizes, chars = io.StringIO(), array("Q"), array("Q"), array("Q")
    end = 0
    for record in records:
        prefix = f"{record.name or record.handle}/" if len(records) > 1 else ""
        for name, size, count in db.execute(
            "SELECT name, bytes, chars FROM documents WHERE text_id = ? ORDER BY position",
            [_text_of(db, record.handle)],
        ):
            end += names.write(prefix + name)
            ends.append(end)
            sizes.append(size)
            chars.append(count)
    return PackedNames(names.getvalue(), ends), sizes, chars


def _text_of(db: Connection, handle: str) -> int:
    row = db.execute("SELECT text_id FROM contexts WHERE handle = ?", [handle]).fetchone()
    if row is None:
        raise StoreError(
            f"The context {handle!r} was deleted while it was in use.",
            fix="Add the text again, or ask without it.",
        )
    return row[0]
