"""Text held in memory, as a source for a REPL."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

PREFIX_CHARS = 4000


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
        """Make a source of a `str` or a sequence of `str`.

        Raises:
            TypeError: the value, or an item of it, is something else.
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

    @cached_property
    def _encoded(self) -> tuple[bytes, ...]:
        return tuple(document.encode("utf-8", "replace") for document in self.documents)

    @cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256(b"list" if self.is_list else b"str")
        for document in self._encoded:
            digest.update(len(document).to_bytes(8, "big"))
            digest.update(document)
        return digest.hexdigest()

    @property
    def key(self) -> str:
        """A digest of the documents and of how they are divided."""
        return self._digest

    @property
    def byte_lengths(self) -> Sequence[int]:
        """UTF-8 bytes of each document."""
        return tuple(map(len, self._encoded))

    @property
    def char_lengths(self) -> Sequence[int]:
        """Code points of each document."""
        return tuple(map(len, self.documents))

    @property
    def prefix(self) -> str:
        """The start of the first document."""
        return self.documents[0][:PREFIX_CHARS] if self.documents else ""

    def chunks(self) -> Iterator[bytes]:
        """Yield each document's UTF-8."""
        yield from self._encoded
