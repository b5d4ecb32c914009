"""How the host's file becomes `context` in a REPL.

The host writes one anonymous file: room for a header, the text of all documents, a zero byte, their
names, then two tables of 64-bit lengths. A single document becomes one `str`: in place if it is
ASCII (see `mapped_str`), else decoded. A list stays in the file: each document is decoded when
read, so that iterating over a million of them keeps no copies. (Reading a real `list` writes to
the reference count of every item, which in a fork copies every page.)
"""

from __future__ import annotations

import mmap
import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from typing import Any, NoReturn, SupportsIndex

from rlm_mcp.sandbox.child import mapped_str
from rlm_mcp.sandbox.layout import TEXT_START, WORD_BYTES, Layout


def _refuse(_self: object, *_args: object, **_named: object) -> NoReturn:
    raise TypeError("context is read-only; copy it with list(context)")


class Documents(list[str]):
    """A read-only `list[str]` whose documents stay in the shared file until they are read.

    Its slices are plain lists. It is a subclass of `list` so that it passes `isinstance` checks;
    its own storage is empty, so it overrides every method that reads.
    """

    __slots__ = ("_base", "_ends", "_file", "_view")

    def __init__(self, file: mmap.mmap | bytes, base: int, lengths: array[int]) -> None:
        super().__init__()
        self._file = file
        self._view = memoryview(file)
        self._base = base
        self._ends = array("Q", accumulate(lengths))

    @property
    def size_bytes(self) -> int:
        """The size of all documents in the file, in bytes."""
        return self._ends[-1] if self._ends else 0

    def span(self, index: int) -> tuple[int, int]:
        """Return the start and end of a document in the file, in bytes."""
        start = self._ends[index - 1] if index else 0
        return self._base + start, self._base + self._ends[index]

    def find(self, needle: bytes, start: int, end: int) -> int:
        """Return the offset of bytes in the file between two offsets; -1 if they are not there."""
        return self._file.find(needle, start, end)

    def document_at(self, offset: int) -> int:
        """Return the index of the document that contains a byte of the file."""
        return bisect_right(self._ends, offset - self._base)

    def cut(self, start: int, end: int) -> str:
        """Decode a range of the file."""
        return str(self._view[start:end], "utf-8", "replace")

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):
            raise AttributeError(name)
        raise AttributeError(
            f"context is a list of {len(self)} documents and has no attribute {name!r}: use one "
            f"document, as in context[0].{name}, or loop over them"
        )

    def __len__(self) -> int:
        return len(self._ends)

    def __bool__(self) -> bool:
        return len(self._ends) > 0

    def __getitem__(self, index: SupportsIndex | slice, /) -> Any:  # str or list
        if isinstance(index, slice):
            return [self.cut(*self.span(at)) for at in range(*index.indices(len(self)))]
        at = index.__index__()
        if not -len(self) <= at < len(self):
            raise IndexError(f"context has {len(self):,} documents; index {at} is out of range")
        return self.cut(*self.span(at % len(self)))

    def __iter__(self) -> Iterator[str]:
        return (self.cut(*self.span(at)) for at in range(len(self)))

    def __reversed__(self) -> Iterator[str]:
        return (self.cut(*self.span(at)) for at in range(len(self) - 1, -1, -1))

    def __contains__(self, item: object, /) -> bool:
        return any(item == document for document in self)

    def __eq__(self, other: object, /) -> bool:
        if not isinstance(other, list) or len(self) != len(other):  # pyright: ignore[reportUnknownArgumentType]  # any list
            return False
        return all(mine == theirs for mine, theirs in zip(self, other, strict=True))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]  # any list

    def __ne__(self, other: object, /) -> bool:
        return not self == other

    __hash__ = None  # pyright: ignore[reportAssignmentType]  # lists are unhashable

    def __add__(self, other: Any, /) -> list[Any]:  # any list
        return [*self, *other]

    def __radd__(self, other: Any, /) -> list[Any]:  # any list
        return [*other, *self]

    def __mul__(self, times: SupportsIndex, /) -> list[str]:
        return list(self) * times

    __rmul__ = __mul__

    def __repr__(self) -> str:
        return repr(list(self))

    def __reduce_ex__(self, _protocol: SupportsIndex, /) -> tuple[Any, ...]:
        return list, (list(self),)

    def copy(self) -> list[str]:
        """Return a plain list of all documents."""
        return list(self)

    def index(self, value: str, start: SupportsIndex = 0, stop: SupportsIndex = sys.maxsize) -> int:
        """Return the index of the first document equal to `value`."""
        for at in range(*slice(start, stop).indices(len(self))):
            if self[at] == value:
                return at
        raise ValueError(f"{value[:100]!r} is not in context")

    def count(self, value: str, /) -> int:
        """Return how many documents equal `value`."""
        return sum(value == document for document in self)

    append = extend = insert = remove = pop = clear = sort = reverse = _refuse  # pyright: ignore[reportAssignmentType]  # all of them are refused
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse


def load(descriptor: int, layout: Layout) -> tuple[str | Documents, Documents]:
    """Map the file and return `context` and `context_names`.

    The caller may close the descriptor: the mapping stays valid.
    """
    if layout.is_list:
        file = mmap.mmap(descriptor, layout.file_bytes, prot=mmap.PROT_READ)
        names = Documents(file, layout.names_start, _lengths(file, layout, layout.count))
        return Documents(file, TEXT_START, _lengths(file, layout, 0)), names
    with mmap.mmap(descriptor, layout.file_bytes, prot=mmap.PROT_READ) as file:
        kept = file[layout.names_start : layout.table_start]
        names = Documents(kept, 0, _lengths(file, layout, layout.count))
    return _text(descriptor, layout), names


def _text(descriptor: int, layout: Layout) -> str:
    if layout.is_ascii and layout.text_bytes >= mapped_str.LEAST_BYTES:
        text = mapped_str.ascii_text(descriptor, layout.file_bytes, layout.text_bytes)
        if text is not None:
            return text
    flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)  # all of it is read at once
    file = mmap.mmap(descriptor, layout.file_bytes, flags=flags, prot=mmap.PROT_READ)
    with file, memoryview(file) as view:
        return str(view[TEXT_START : TEXT_START + layout.text_bytes], "utf-8", "replace")


def _lengths(file: mmap.mmap, layout: Layout, first: int) -> array[int]:
    start = layout.table_start + first * WORD_BYTES
    lengths = array("Q")
    lengths.frombytes(file[start : start + layout.count * WORD_BYTES])
    return lengths
