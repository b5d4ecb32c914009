"""Text in memory, as a source for a REPL."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from rlm_mcp.sandbox.citable import SourcePlace

PREFIX_CHARS = 4000
# Encoded in pieces, so that there is never a second copy of all of it.
CHUNK_CHARS = 1 << 20
# Up to this size a digest costs about a millisecond, and equal texts share one copy.
SHARED_CHARS = 1 << 20


@dataclass(frozen=True)
class TextContext:
    """A `ContextSource` over strings: one document as `str`, several as `list[str]`.

    Lone surrogates, which UTF-8 cannot hold, are replaced by `?`.
    """

    documents: tuple[str, ...]
    is_list: bool = False
    names: Sequence[str] = ()

    @classmethod
    def of(cls, text: str | Sequence[str]) -> TextContext:
        """Create a source from a `str` or a sequence of `str`.

        Raises:
            TypeError: the value, or an item, has another type.
        """
        if isinstance(text, str):
            return cls((text,), is_list=False, names=("context",))
        if isinstance(text, bytes) or not isinstance(text, Sequence):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers hand in anything
            raise TypeError(f"context must be a str or a list of str, not {type(text).__name__}")
        documents = tuple(text)
        for index, document in enumerate(documents):
            if not isinstance(document, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # likewise
                raise TypeError(f"context[{index}] must be a str, not {type(document).__name__}")
        names = tuple(f"document {index}" for index in range(len(documents)))
        return cls(documents, is_list=True, names=names)

    @property
    def key(self) -> str:
        """A digest if the text is short; else unique to this object: hashing takes seconds."""
        return self._key

    @cached_property
    def _key(self) -> str:
        if sum(self.char_lengths) > SHARED_CHARS:
            return f"text-{secrets.token_hex(16)}"
        digest = hashlib.sha256(b"list" if self.is_list else b"str")
        for length in self.byte_lengths:
            digest.update(length.to_bytes(8, "big"))
        for chunk in self.chunks():
            digest.update(chunk)
        return digest.hexdigest()

    @property
    def byte_lengths(self) -> Sequence[int]:
        """UTF-8 bytes of each document; for non-ASCII text this takes as long as encoding it."""
        return self._byte_lengths

    @cached_property
    def _byte_lengths(self) -> tuple[int, ...]:
        return tuple(map(_byte_length, self.documents))

    @property
    def char_lengths(self) -> Sequence[int]:
        """Code points of each document."""
        return tuple(map(len, self.documents))

    @property
    def prefix(self) -> str:
        """The start of the first document."""
        return self.documents[0][:PREFIX_CHARS] if self.documents else ""

    def text_at(self, document: int, start: int, end: int) -> str:
        """Return some characters of a document."""
        return self.documents[document][start:end]

    def place_of(self, document: int, start: int) -> SourcePlace:
        """Return the name of a document; there are no handles and no pages."""
        del start
        name = self.names[document] if document < len(self.names) else ""
        return SourcePlace("", document, name)

    def chunks(self) -> Iterator[bytes]:
        """Yield the UTF-8 of all documents in pieces of a few megabytes at most."""
        gathered: list[bytes] = []
        room = CHUNK_CHARS
        for document in self.documents:
            for piece in _pieces(document):
                gathered.append(piece)
                room -= len(piece)
                if room <= 0:
                    yield b"".join(gathered)
                    gathered, room = [], CHUNK_CHARS
        if gathered:
            yield b"".join(gathered)


def _pieces(document: str) -> Iterator[bytes]:
    for start in range(0, len(document), CHUNK_CHARS):
        yield document[start : start + CHUNK_CHARS].encode("utf-8", "replace")


def _byte_length(document: str) -> int:
    return len(document) if document.isascii() else sum(map(len, _pieces(document)))
