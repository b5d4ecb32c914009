"""What the store returns about contexts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from rlm_mcp.text import estimated_tokens

Unit = Literal["chars", "lines"]
T = TypeVar("T")


@dataclass(frozen=True)
class Page(Generic[T]):
    """Some entries of a list; `next_cursor` asks for those after them, None at the end."""

    items: Sequence[T]
    next_cursor: str | None = None


@dataclass(frozen=True)
class ContextRecord:
    """One sealed context.

    `handle` is made from the content; `sha256` is of the only document's UTF-8, or of the names
    and digests of several. `created_at` is ISO 8601 in UTC, `preview` the first 200 characters.
    """

    handle: str
    name: str
    sha256: str
    bytes: int
    chars: int
    lines: int
    documents: int
    created_at: str
    preview: str

    @property
    def estimated_tokens(self) -> int:
        """A rough estimate; see the function of this name."""
        return estimated_tokens(self.chars, self.bytes)


@dataclass(frozen=True)
class SealedContext:
    """The outcome of an upload.

    `deduplicated` says that the same content was already stored, and the new copy was dropped.
    `replaced_characters` counts the U+FFFD that stand for bytes that were not valid UTF-8.
    """

    record: ContextRecord
    deduplicated: bool
    replaced_characters: int


@dataclass(frozen=True)
class OpenUpload:
    """A paused upload, which can be continued by its id."""

    upload_id: str
    name: str
    bytes: int
    chars: int
    documents: int


@dataclass(frozen=True)
class DocumentRecord:
    """One document of a context; `index` counts from 0."""

    index: int
    name: str
    bytes: int
    chars: int
    lines: int


@dataclass(frozen=True)
class Span:
    """Which part of a document to read.

    Args:
        document: its index, from 0.
        start: the first character or line, from 0.
        limit: how many characters or lines at most.
        unit: what `start` and `limit` count; a line ends after its `\\n`.
        max_chars: with lines, the most characters returned: the slice ends with the last line that
            is whole within them; a single line that is longer is cut.
    """

    document: int = 0
    start: int = 0
    limit: int = 4000
    unit: Unit = "chars"
    max_chars: int = 1 << 20


@dataclass(frozen=True)
class TextSlice:
    """Part of a document. `start`, `end` and `total` count in the unit asked for, `end` exclusive.

    `next_start` is where to continue, None at the end. `cut` says that a line was too long;
    its rest begins at the character `cut_at` of the document.
    """

    text: str
    start: int
    end: int
    total: int
    next_start: int | None
    cut: bool = False
    cut_at: int | None = None


@dataclass(frozen=True)
class Passage:
    """Part of a context, within the document in which it starts.

    `start`, `end` and `total` count characters over all documents in order.
    """

    text: str
    start: int
    end: int
    total: int
    document: DocumentRecord
