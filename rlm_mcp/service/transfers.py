"""Texts that come in and go out as streams of bytes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncGenerator, AsyncIterable

from rlm_mcp.errors import InvalidInputError, NotTextError, TooLargeError
from rlm_mcp.service.contexts import Added, check_name, sealed_view
from rlm_mcp.service.files import SNIFFED_BYTES, why_no_text
from rlm_mcp.service.tickets import Ticket, Tickets
from rlm_mcp.store.contexts import Contexts
from rlm_mcp.store.records import ContextRecord
from rlm_mcp.store.uploads import Upload

_SHA256 = re.compile(r"[0-9a-f]{64}")


class TransferService:
    """Use cases over streams, for one caller."""

    def __init__(
        self, store: Contexts, tickets: Tickets, *, caller: str, max_upload_bytes: int
    ) -> None:
        self._store = store
        self._tickets = tickets
        self._caller = caller
        self._max_upload_bytes = max_upload_bytes

    async def receive(self, name: str, pieces: AsyncIterable[bytes], sha256: str = "") -> Added:
        """Store a text as it comes in; nothing is kept of one that does not come in whole.

        Args:
            pieces: the text's UTF-8, split anywhere.
            sha256: what the bytes must have, in hex; empty if it was not told.

        Raises:
            InvalidInputError: the name or digest cannot be used, or the bytes have another one.
            TooLargeError: there is more than the server takes.
            NotTextError: the bytes are no text, or none.
            StoreError: the database could not take it.
        """
        check_name(name)
        expected = check_sha256(sha256)
        async with self._store.open_upload(name) as upload:
            found = await self._write(upload, pieces)
            if expected and found != expected:
                raise InvalidInputError(
                    f"The text has the SHA-256 {found!r}, not {expected!r}.",
                    fix="Send it again; nothing was stored.",
                )
            return sealed_view(await upload.seal())

    async def _write(self, upload: Upload, pieces: AsyncIterable[bytes]) -> str:
        """Write and count what comes in, look at its beginning, and return its digest."""
        digest, count, head = hashlib.sha256(), 0, b""
        async for piece in pieces:
            count += len(piece)
            self.check_size(count)
            if len(head) < SNIFFED_BYTES:
                head = (head + piece)[:SNIFFED_BYTES]
                _refuse_no_text(head, is_whole=len(head) == SNIFFED_BYTES)
            digest.update(piece)
            await upload.write(piece)
        _refuse_no_text(head, is_whole=True)
        return digest.hexdigest()

    def check_size(self, count: int) -> None:
        """Refuse a text of more bytes than the server takes.

        Raises:
            TooLargeError: with both numbers.
        """
        if count > self._max_upload_bytes:
            raise TooLargeError(
                f"The text has more than the {self._max_upload_bytes:,} bytes that may be sent.",
                fix="Send it in parts, or have the operator raise RLM_MCP_MAX_UPLOAD_BYTES.",
            )

    def issue_ticket(self, name: str, sha256: str) -> tuple[str, Ticket]:
        """Make a permission to send one text as this caller; see `Tickets.issue`.

        Raises:
            InvalidInputError: the name or digest cannot be used, or too many are open.
        """
        check_name(name)
        return self._tickets.issue(self._caller, name, check_sha256(sha256))

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


def _refuse_no_text(head: bytes, *, is_whole: bool) -> None:
    """Look at the first bytes; with fewer than there will be, only for what no text has."""
    reason = why_no_text(head) if is_whole or b"\0" in head else ""
    if reason:
        raise NotTextError(
            f"The bytes hold no text that can be stored: {reason}.",
            fix="Convert them to UTF-8 text first (for example with pdftotext or iconv).",
        )
