"""A text of the server's store as a worker reads it: in parts, when a REPL is filled with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from anyio import from_thread

from rlm_mcp.errors import InvalidInputError
from rlm_mcp.sandbox.citable import Citable, SourcePlace
from rlm_mcp.sandbox.types import ContextSource, Divisible
from rlm_mcp.service.executor.messages import (
    Passage,
    Place,
    PlaceOfPassage,
    Question,
    TextLabel,
    TextPart,
    TextQuestion,
)
from rlm_mcp.service.executor.outbox import Outbox

PART_BYTES = 8 << 20
MOST_RECENT = 1000


class RecentTexts:
    """The keys of the texts that a worker has read last; what it read long ago it may not have."""

    def __init__(self) -> None:
        self._keys: dict[str, None] = {}

    def __contains__(self, key: str) -> bool:
        """Whether it is one of them."""
        return key in self._keys

    def add(self, key: str) -> None:
        """Take note that a text is read."""
        self._keys.pop(key, None)
        self._keys[key] = None
        if len(self._keys) > MOST_RECENT:
            del self._keys[next(iter(self._keys))]


@dataclass(frozen=True)
class RemoteSource:
    """A `ContextSource` whose text the server sends; read in threads of the worker.

    `at` names the run that it is read for, and the attempt; or the REPL.
    """

    label: TextLabel
    outbox: Outbox
    at: Place

    @property
    def key(self) -> str:
        """Identifies the text."""
        return self.label.key

    @property
    def names(self) -> Sequence[str]:
        """One name per document."""
        return self.label.names

    @property
    def byte_lengths(self) -> Sequence[int]:
        """UTF-8 bytes of each document."""
        return self.label.byte_lengths

    @property
    def char_lengths(self) -> Sequence[int]:
        """Code points of each document."""
        return self.label.char_lengths

    @property
    def is_list(self) -> bool:
        """Whether there is more than one document."""
        return self.label.is_list

    @property
    def prefix(self) -> str:
        """The first characters."""
        return self.label.prefix

    def chunks(self) -> Iterator[bytes]:
        """Yield the UTF-8 of all documents in order; blocks.

        Raises:
            StoreError: a context was deleted.
        """
        for _, chunk in self.chunks_between(0, sum(self.byte_lengths)):
            yield chunk

    def chunks_between(self, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """Yield the chunks that begin in a range of bytes, each after its place; blocks.

        Raises:
            StoreError: a context was deleted.
        """
        for place in range(start, end, PART_BYTES):
            yield from self._ask(TextPart(place, min(place + PART_BYTES, end)))

    def text_at(self, document: int, start: int, end: int) -> str:
        """Return some characters of a document; blocks.

        Raises:
            StoreError: its context was deleted.
        """
        return self._ask(Passage(document, start, end))

    def place_of(self, document: int, start: int) -> SourcePlace:
        """Return handle, number, name and page of a character; blocks.

        Raises:
            StoreError: its context was deleted.
        """
        return self._ask(PlaceOfPassage(document, start))

    def _ask(self, question: Question) -> Any:
        return from_thread.run(self.outbox.ask, *self.at, question)


def read_text(source: ContextSource, question: TextQuestion) -> Any:
    """Read of a text of the store what a worker asks for; blocks.

    Raises:
        StoreError: its context was deleted.
    """
    if isinstance(question, TextPart) and isinstance(source, Divisible):
        return list(source.chunks_between(question.start, question.end))
    if isinstance(question, Passage) and isinstance(source, Citable):
        return source.text_at(question.document, question.start, question.end)
    if isinstance(question, PlaceOfPassage) and isinstance(source, Citable):
        return source.place_of(question.document, question.start)
    raise InvalidInputError("The text cannot be read in parts.", fix="Store it as a context.")
