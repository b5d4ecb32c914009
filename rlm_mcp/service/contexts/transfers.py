"""Texts that come in and go out as streams of bytes."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace

import anyio.from_thread
import anyio.to_thread

from rlm_mcp.errors import InvalidInputError, NotTextError, RLMError, TooLargeError
from rlm_mcp.service.contexts.added import Added, Decoded, check_name, sealed_view
from rlm_mcp.service.contexts.charsets import Counted
from rlm_mcp.service.contexts.decompression import Unpacker
from rlm_mcp.service.contexts.file_text import batched, document_pieces
from rlm_mcp.service.contexts.text_reader import SNIFFED_BYTES, Digest, TextReader, why_no_text
from rlm_mcp.service.contexts.tickets import SharedTickets, Ticket
from rlm_mcp.service.contexts.writing import no_report, write_batches
from rlm_mcp.service.documents.kinds import is_installed, kind_of, why_not_converted
from rlm_mcp.store.contexts.contexts import Contexts
from rlm_mcp.store.contexts.records import ContextRecord
from rlm_mcp.store.contexts.uploads import Upload

_SHA256 = re.compile(r"[0-9a-f]{64}")
# What is in memory at once where few bytes become many.
_AT_ONCE_BYTES = 4 << 20


@dataclass(frozen=True)
class Body:
    """A text as it comes in.

    Args:
        pieces: its bytes, split anywhere.
        coding: how they are compressed, one of `decompression.CODINGS`; empty if the first bytes
            are to tell.
        charset: what they are once uncompressed; empty if it is not known.
        size: how many bytes will come; 0 if it is not known.
        is_bounded: whether the server's limit of an upload holds for it.
    """

    pieces: AsyncIterable[bytes]
    coding: str = ""
    charset: str = ""
    size: int = 0
    is_bounded: bool = True


class TransferService:
    """Use cases over streams, for one caller."""

    def __init__(
        self, store: Contexts, tickets: SharedTickets, *, caller: str, max_upload_bytes: int
    ) -> None:
        self._store = store
        self._tickets = tickets
        self._caller = caller
        self._max_upload_bytes = max_upload_bytes

    async def receive(self, name: str, body: Body, sha256: str = "") -> Added:
        """Store a text as it comes in; nothing is kept of one that does not come in whole.

        Args:
            name: for people.
            body: the text.
            sha256: what the uncompressed bytes must have, in hex; empty if none was given.

        Raises:
            InvalidInputError: the name, digest or charset cannot be used, the bytes have another
                digest, or they are not compressed as announced.
            TooLargeError: the text is larger than the server's limit.
            NotTextError: the bytes are no text, or none.
            StoreError: the database could not store it.
        """
        check_name(name)
        if body.is_bounded:
            self.check_size(body.size)
        expected = check_sha256(sha256)
        # A digest costs as much as writing, so it is computed only where one was given.
        digest = hashlib.sha256() if expected else None
        start, pieces = await _peeked(body)
        body = replace(body, pieces=pieces)
        kind = _kind(name, start, body.coding)
        async with self._store.open_upload(name) as upload:
            await upload.expect(body.size)
            if kind:
                decoded = await self._convert(upload, kind, body, digest)
            else:
                reader = TextReader(body.charset, body.coding, digest)
                await self._write(upload, body, reader)
                decoded = Decoded()
                decoded.note(name, reader.charset, reader.replaced, reader.hole_bytes)
            if digest and digest.hexdigest() != expected:
                raise InvalidInputError(
                    f"The text has the SHA-256 {digest.hexdigest()!r}, not {expected!r}.",
                    fix="Send it again; nothing was stored.",
                )
            return sealed_view(await upload.seal(), decoded=decoded)

    async def _convert(
        self, upload: Upload, kind: str, body: Body, digest: Digest | None
    ) -> Decoded:
        """Write the text of a document, which is kept in a temporary file until it is converted."""
        with tempfile.TemporaryFile(buffering=0) as file:
            count = 0
            async for data in _uncompressed(body):
                count += len(data)
                if body.is_bounded:
                    self.check_size(count)
                if digest is not None:
                    digest.update(data)
                await anyio.to_thread.run_sync(file.write, data)
            file.seek(0)
            check = anyio.from_thread.check_cancelled
            pieces = document_pieces(upload.name, kind, file, check)
            shown = f"document {upload.name!r}"
            return await write_batches(upload, batched(pieces), count, no_report, shown)

    async def _write(self, upload: Upload, body: Body, reader: TextReader) -> None:
        """Write and count what comes in, and look at its beginning."""
        check = self.check_size if body.is_bounded else _no_check
        intake, count = _Intake(reader, check), 0
        async for data in body.pieces:
            count += len(data)
            check(count)
            if intake.is_plain:  # the thread that cuts it reads it too
                await upload.write_all(intake.read(data), len(data))
            else:
                await _written(upload, intake.read(data))
        await upload.flush()
        await _written(upload, intake.end())

    def check_size(self, count: int) -> None:
        """Refuse a text that is larger than the server's limit.

        Raises:
            TooLargeError: with both numbers.
        """
        if count > self._max_upload_bytes:
            raise TooLargeError(
                f"The text has more than the {self._max_upload_bytes:,} bytes that may be sent.",
                fix="Send it in parts, or have the operator raise RLM_MCP_MAX_UPLOAD_BYTES.",
            )

    async def issue_ticket(self, name: str, sha256: str) -> tuple[str, Ticket]:
        """Make a permission to send one text as this caller; see `Tickets.issue`.

        Raises:
            InvalidInputError: the name or digest cannot be used, or too many are open.
            StoreError: the key of permissions cannot be read or made.
        """
        check_name(name)
        return await self._tickets.issue(self._caller, name, check_sha256(sha256))

    async def record(self, handle: str) -> ContextRecord:
        """Return a context's record.

        Raises:
            NotFoundError: there is none.
        """
        return await self._store.get(handle)

    async def pieces(self, handle: str, start: int, end: int) -> AsyncGenerator[bytes]:
        """Yield a context's UTF-8 from one byte to another, all documents without gaps.

        Raises:
            NotFoundError: there is no such context, or no longer.
        """
        while start < end:
            piece = await self._store.read_bytes(handle, start, end - start)
            yield piece
            start += len(piece)


def check_sha256(text: str) -> str:
    """Return a digest in lower case; an empty one stays so.

    Raises:
        InvalidInputError: it is not 64 hex digits.
    """
    digest = text.strip().lower()
    if digest and not _SHA256.fullmatch(digest):
        raise InvalidInputError(
            f"The SHA-256 {text[:100]!r} is not 64 hex digits.", fix="Leave it out, or correct it."
        )
    return digest


async def _peeked(body: Body) -> tuple[bytes, AsyncIterator[bytes]]:
    """Return the first bytes, and all pieces."""
    pieces, first = aiter(body.pieces), list[bytes]()
    while sum(map(len, first)) < SNIFFED_BYTES:
        try:
            first.append(await anext(pieces))
        except StopAsyncIteration:
            break

    async def whole() -> AsyncIterator[bytes]:
        for piece in first:
            yield piece
        async for piece in pieces:
            yield piece

    return b"".join(first)[:SNIFFED_BYTES], whole()


def _kind(name: str, start: bytes, coding: str) -> str:
    """Tell the kind of document that a body holds; empty for text.

    Raises:
        NotTextError: it cannot be converted here.
    """
    if coding:
        try:
            start = next(Unpacker(coding).unpack(start), b"")
        except RLMError:  # whoever reads it reports that it is not compressed so
            return ""
    kind = kind_of(name, start)
    if not kind or is_installed():
        return kind
    if reason := why_not_converted(kind):
        raise NotTextError(
            f"The bytes hold no text that can be stored: {reason}.",
            fix="Install it for the server, or convert them to text first.",
        )
    return ""


async def _uncompressed(body: Body) -> AsyncIterator[bytes]:
    """Yield the bytes of a body without the compression that was announced.

    Raises:
        InvalidInputError: they are not whole.
        TooLargeError: they decompress to far more than documents do.
    """
    if not body.coding:
        async for piece in body.pieces:
            yield piece
        return
    unpacker = Unpacker(body.coding)
    async for piece in body.pieces:
        unpacked = unpacker.unpack(piece)
        while data := await anyio.to_thread.run_sync(next, unpacked, b""):
            yield data
    unpacker.end()


async def _written(upload: Upload, pieces: Iterator[Counted]) -> None:
    """Write pieces as they are read, so that what must be refused is refused at once."""
    while some := await anyio.to_thread.run_sync(_some_of, pieces):
        await upload.write_all(some, sum(len(piece.data) for piece in some))


def _some_of(pieces: Iterator[Counted]) -> list[Counted]:
    some: list[Counted] = []
    size = 0
    for piece in pieces:
        some.append(piece)
        size += len(piece.data)
        if size >= _AT_ONCE_BYTES:
            break
    return some


def _no_check(count: int) -> None:
    del count


class _Intake:
    """Reads the bytes of a body, counts its text and looks at its beginning; in worker threads.

    Args:
        reader: makes UTF-8 of the bytes.
        check: is called with the number of bytes of text so far, and may raise.
    """

    def __init__(self, reader: TextReader, check: Callable[[int], None]) -> None:
        self._reader = reader
        self._check = check
        self._head = _Head()
        self._count = 0

    @property
    def is_plain(self) -> bool:
        """Whether nothing but its size can be wrong with what comes next."""
        return self._head.is_seen and not self._reader.is_packed

    def read(self, data: bytes) -> Iterator[Counted]:
        """Yield the text of more bytes."""
        for piece in self._reader.read(data):
            self._take(piece.data)
            yield piece

    def end(self) -> Iterator[Counted]:
        """Yield the rest."""
        for text in self._reader.end():
            self._take(text)
            yield Counted(text, None)
        self._head.end()

    def _take(self, text: bytes) -> None:
        self._count += len(text)
        self._check(self._count)
        self._head.look(text)


class _Head:
    """The first bytes of a text as they arrive, checked as soon as there are enough.

    Attributes:
        is_seen: whether they were checked.
    """

    def __init__(self) -> None:
        self._bytes = b""
        self.is_seen = False

    def look(self, piece: bytes, *, is_last: bool = False) -> None:
        """Refuse what is not text; an incomplete sample is refused only for what no text has.

        Raises:
            NotTextError: the bytes are not text, or there are none.
        """
        if self.is_seen:
            return
        self._bytes = (self._bytes + piece)[:SNIFFED_BYTES]
        self.is_seen = is_last or len(self._bytes) == SNIFFED_BYTES
        has_nul = b"\0" in self._bytes.rstrip(b"\0")  # a block at its end may go on
        reason = why_no_text(self._bytes) if self.is_seen or has_nul else ""
        if reason:
            raise NotTextError(
                f"The bytes hold no text that can be stored: {reason}.",
                fix="Convert them to text first (for example with pdftotext), or name their "
                "charset: Content-Type: text/plain; charset=NAME.",
            )

    def end(self) -> None:
        """Refuse what ended before there was enough to look at, and is not text."""
        self.look(b"", is_last=True)
