"""Writes pieces of text, which worker threads read, into an upload."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import aclosing

import anyio
import anyio.to_thread

from rlm_mcp.errors import NotTextError
from rlm_mcp.service.contexts.added import Decoded
from rlm_mcp.service.contexts.file_text import Piece
from rlm_mcp.store.contexts.uploads import Upload

_REPORT_SECONDS = 0.5

ReportBytes = Callable[[int, int], Awaitable[None]]
Batches = Generator[list[Piece]]


async def no_report(done: int, total: int) -> None:
    """Report nothing."""
    del done, total


async def write_batches(
    upload: Upload, batches: Batches, total: int, report: ReportBytes, shown: str
) -> Decoded:
    """Write all pieces, and report the bytes written of `total` now and then.

    Args:
        upload: takes the documents.
        batches: is iterated, and at last closed, in worker threads.
        total: how many bytes are expected.
        report: called with the bytes written and the total.
        shown: what the error calls the source: `path 'a.pdf'`.

    Raises:
        NotTextError: all documents were left out.
    """
    done, reported, decoded, name = 0, 0.0, Decoded(), ""
    await report(0, total)
    async with aclosing(_in_threads(batches)) as read:
        async for batch in read:
            for piece in batch:
                if piece.name is not None:
                    await upload.begin_document(piece.name)
                await upload.write(piece.data)
                upload.mark_pages(piece.pages)
                done += len(piece.data)
                name = piece.name or name
                decoded.note(name, piece.charset, piece.replaced, piece.hole_bytes)
                for what, reason in piece.left_out:
                    decoded.left_out.note(what, reason)
            if anyio.current_time() - reported > _REPORT_SECONDS:
                reported = anyio.current_time()
                await report(min(done, total), total)
    if not upload.has_documents:
        raise _nothing_converted(shown, decoded)
    await report(total, total)
    return decoded


def _nothing_converted(shown: str, decoded: Decoded) -> NotTextError:
    (name, reason), total = decoded.left_out.listed[0], decoded.left_out.counts.total()
    others = f", and {total - 1:,} more were left out" * (total > 1)
    return NotTextError(
        f"The {shown} holds no text that can be stored: {name!r}: {reason}{others}.",
        fix="Give a document that holds text, or convert it to text first.",
    )


async def _in_threads(batches: Batches) -> AsyncGenerator[list[Piece]]:
    end: list[Piece] = []
    try:
        while batch := await anyio.to_thread.run_sync(next, batches, end):
            yield batch
    finally:
        with anyio.CancelScope(shield=True):  # it ends a process that converts
            await anyio.to_thread.run_sync(batches.close)
