"""Reads files that were found, as pieces of text; documents go through the converter. Blocking."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from itertools import chain
from pathlib import Path
from typing import NamedTuple, Protocol

from rlm_mcp.errors import InvalidInputError, PathNotAllowedError, TooLargeError
from rlm_mcp.service.contexts.charsets import Counted
from rlm_mcp.service.contexts.files import FoundFiles
from rlm_mcp.service.contexts.paths import AllowedPaths
from rlm_mcp.service.contexts.text_reader import (
    SNIFFED_BYTES,
    TextReader,
    is_stored_as_it_is,
    peek,
    why_no_text,
)
from rlm_mcp.service.contexts.walking import Check
from rlm_mcp.service.documents.converter import Begun, Converter, Ended
from rlm_mcp.service.documents.frames import Small
from rlm_mcp.service.documents.kinds import is_installed, kind_of

BATCH_BYTES = 1 << 20
_BLOCK_BYTES = 512  # of `st_blocks`, by POSIX
_IN_LOG = "its newest changes, which stand in {}-wal: close it first in the program that writes it"


class OpenedFile(Protocol):
    """A file that is read in place."""

    def fileno(self) -> int:
        """Return its descriptor."""
        ...

    def read(self, size: int, /) -> bytes:
        """Return up to so many bytes, none at the end."""
        ...


class Piece(NamedTuple):
    """Part of a document, in UTF-8; `name` is there on its first part alone.

    `chars` is how many whole characters in valid UTF-8 it is, where that is known.
    Its last part holds the charset that the file was in, how many characters that lacks, how many
    NUL bytes at the start were left out, and where its pages begin. `left_out` names documents, or
    parts of this one, that were not converted, with the reason; such a piece may hold nothing else.
    """

    data: bytes
    name: str | None = None
    chars: int | None = None
    charset: str = ""
    replaced: int = 0
    hole_bytes: int = 0
    pages: tuple[tuple[int, str], ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()


def total_bytes(found: FoundFiles) -> int:
    """Add up the sizes of files, holes apart; one that is gone by now counts nothing."""
    total = 0
    for _, path in found.files:
        try:
            file = path.stat()
        except OSError:
            continue  # reading it reports the error
        on_disk = _BLOCK_BYTES * getattr(file, "st_blocks", 0)  # Windows does not tell
        total += min(file.st_size, on_disk) or file.st_size
    return total


def read_batches(
    found: FoundFiles, allowed: AllowedPaths, check: Check = lambda: None
) -> Generator[list[Piece]]:
    """Yield the files' text in order, about 1 MiB at a time, however many files that are.

    One of several files that cannot be read, or no longer, is left out. `check` is called while a
    document is converted, and may raise to stop.

    Raises:
        InvalidInputError: the only file cannot be read.
        PathNotAllowedError: it is not where it was when it was found.
    """
    return batched(_pieces_of(found, allowed, check))


def _pieces_of(found: FoundFiles, allowed: AllowedPaths, check: Check) -> Generator[Piece]:
    with closing(Converter(check)) as converter:
        for name, path in found.files:
            pieces = _pieces(name, path, allowed, converter)
            yield from _only(path, pieces) if found.is_single else _one_of_many(name, pieces)


def _only(path: Path, pieces: Iterator[Piece]) -> Iterator[Piece]:
    try:
        yield from pieces
    except OSError as error:
        raise InvalidInputError(
            f"The file {str(path)!r} cannot be read: {error.strerror}.",
            fix="Check that it is still there and that the server's user may read it.",
        ) from error


def _one_of_many(name: str, pieces: Iterator[Piece]) -> Iterator[Piece]:
    """Yield what can be read of a file; what cannot costs the other files nothing."""
    is_begun = False
    try:
        for piece in pieces:
            is_begun = is_begun or piece.name is not None
            yield piece
    except PathNotAllowedError:
        reason = "outside the allowed paths"
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
    except (InvalidInputError, TooLargeError) as error:
        reason = f"cannot be read: {error.message}"
    else:
        return
    yield _left_out(name, f"its rest {reason}" if is_begun else reason)


def _left_out(name: str, reason: str) -> Piece:
    return Piece(b"", left_out=((name, reason),))


def document_pieces(
    name: str, kind: str, file: OpenedFile, check: Check = lambda: None
) -> Generator[Piece]:
    """Yield the text of one document that is in a file, of a kind that can be converted."""
    with closing(Converter(check)) as converter:
        yield from _converted(name, kind, file, converter)


def batched(pieces: Generator[Piece]) -> Generator[list[Piece]]:
    """Yield pieces in batches of about 1 MiB, however many that are; close them at the end."""
    batch: list[Piece] = []
    size = 0
    with closing(pieces):
        for piece in pieces:
            batch.append(piece)
            size += len(piece.data)
            if size >= BATCH_BYTES or len(batch) >= 10_000:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _pieces(name: str, path: Path, allowed: AllowedPaths, converter: Converter) -> Iterator[Piece]:
    with allowed.open(path) as file:
        kind = kind_of(path.name, file.read(SNIFFED_BYTES)) if is_installed() else ""
        file.seek(0)
        if kind == "sqlite" and _has_log(path):
            yield _left_out(name, _IN_LOG.format(path.name))
        if kind:
            yield from _converted(name, kind, file, converter)
        else:
            yield from _text(name, file)


def _has_log(path: Path) -> bool:
    """Whether a database's newest changes stand in a file beside it, which is not read."""
    with suppress(OSError):
        return Path(f"{path}-wal").stat().st_size > 0
    return False


def _text(name: str, file: OpenedFile) -> Iterator[Piece]:
    reader, held = TextReader(), Counted(b"", 0)
    first: str | None = name
    pieces = _as_it_was(file)
    begin = next(pieces, b"")
    size = os.fstat(file.fileno()).st_size
    if len(begin) == size and is_stored_as_it_is(begin):
        yield Piece(begin, name)
        return
    try:
        for data in chain((begin,), pieces):
            for more in reader.read(data):
                if held.data:
                    yield Piece(held.data, first, held.chars)
                    first = None
                held = more
        # What is in no UTF-8 comes at the end, as a whole.
        rest = b"".join(reader.end())
    except (InvalidInputError, TooLargeError, OSError):
        if held.data:  # what came before the damage
            yield Piece(held.data, first, held.chars)
        raise
    if held.data and rest:
        yield Piece(held.data, first, held.chars)
        first, held = None, Counted(b"", 0)
    *some, last = range(0, max(len(rest), 1), BATCH_BYTES)
    for start in some:
        yield Piece(rest[start : start + BATCH_BYTES], first)
        first = None
    text, chars = (rest[last:], None) if rest else held
    is_cut = os.fstat(file.fileno()).st_size < size  # what was behind may not have been read
    left_out = ((name, "it became shorter while it was read"),) if is_cut else ()
    found = (reader.charset, reader.replaced, reader.hole_bytes)
    yield Piece(text, first, chars, *found, left_out=left_out)


def _converted(name: str, kind: str, file: OpenedFile, converter: Converter) -> Iterator[Piece]:
    """Yield the documents that a document holds: itself, or the files of an archive."""
    document = _Incoming(name, is_raw=False)
    size = os.fstat(file.fileno()).st_size
    for said in converter.convert(name, kind, size, _as_it_was(file)):
        match said:
            case Small():
                whole = _inner(name, said.name)
                yield _left_out(whole, said.reason) if said.reason else Piece(said.data, whole)
            case Begun():
                document = _Incoming(_inner(name, said.name), is_raw=said.is_raw)
            case Ended():
                yield document.end(said)
            case data:
                yield from document.feed(data)


def _inner(name: str, member: str) -> str:
    return f"{name}/{member}" if member else name


class _Incoming:
    """A document that comes from the converter: text, or a text file's bytes from an archive."""

    def __init__(self, name: str, *, is_raw: bool) -> None:
        self._name = name
        self._first: str | None = name
        self._reader = TextReader() if is_raw else None
        self._reason = "empty" if is_raw else ""
        self._is_begun = False

    def feed(self, data: bytes) -> Iterator[Piece]:
        if self._reader is not None and not self._is_begun:
            self._reason = why_no_text(peek(data[:SNIFFED_BYTES], SNIFFED_BYTES))
        self._is_begun = True
        if self._reason:
            return
        for text in (data,) if self._reader is None else self._reader.feed(data):
            yield Piece(text, self._first)
            self._first = None

    def end(self, ended: Ended) -> Piece:
        if self._reason:
            return _left_out(self._name, self._reason)
        left_out = tuple((self._name, note) for note in ended.notes)
        if self._reader is None:
            return Piece(b"", self._first, pages=ended.pages, left_out=left_out)
        rest, reader = b"".join(self._reader.end()), self._reader
        found = (reader.charset, reader.replaced, reader.hole_bytes)
        return Piece(rest, self._first, None, *found, left_out=left_out)


def _as_it_was(file: OpenedFile) -> Iterator[bytes]:
    """Yield a file's bytes up to the size that it has now: a log may grow for ever."""
    left = os.fstat(file.fileno()).st_size or sys.maxsize  # files of /proc have no size
    while left and (data := file.read(min(BATCH_BYTES, left))):
        yield data
        left -= len(data)
