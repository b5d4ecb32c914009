"""Writes pieces of text, which worker threads read, into an upload."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import aclosing, closing
from typing import NamedTuple

import anyio
import anyio.to_thread

from rlm_mcp.errors import NotTextError
from rlm_mcp.service.contexts import file_text
from rlm_mcp.service.contexts.added import Decoded
from rlm_mcp.store.contexts.uploads import Pages, Piece, Upload

_REPORT_SECONDS = 0.5

ReportBytes = Callable[[int, int], Awaitable[None]]
Batches = Generator[list[file_text.Piece]]


class _Prepared(NamedTuple):
    """A batch as an upload takes it, so that no step on the event loop grows with it."""

    pieces: list[Piece]
    size: int
    has_documents: bool


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
    done, reported, decoded, has_documents = 0, 0.0, Decoded(), False
    await report(0, total)
    async with aclosing(_in_threads(_prepared(batches, decoded))) as prepared:
        async for batch in prepared:
            await upload.write_all(batch.pieces, batch.size, len(batch.pieces))
            has_documents = has_documents or batch.has_documents
            done += batch.size
            if anyio.current_time() - reported > _REPORT_SECONDS:
                reported = anyio.current_time()
                await report(min(done, total), total)
    if not has_documents:
        raise _nothing_converted(shown, decoded)
    await report(total, total)
    return decoded


def _prepared(batches: Batches, decoded: Decoded) -> Generator[_Prepared]:
    """Yield batches as an upload takes them, and note what decoding found."""
    name = ""
    with closing(batches):
        for batch in batches:
            pieces: list[Piece] = []
            for piece in batch:
                if piece.name is not None:
                    pieces.append(piece.name)
                if piece.data:
                    pieces.append((piece.data, piece.chars))
                if piece.pages:
                    pieces.append(Pages(piece.pages))
                name = piece.name or name
                decoded.note(name, piece.charset, piece.replaced, piece.hole_bytes)
                for what, reason in piece.left_out:
                    decoded.left_out.note(what, reason)
            has_documents = any(piece.name is not None for piece in batch)
            yield _Prepared(pieces, sum(len(piece.data) for piece in batch), has_documents)


def _nothing_converted(shown: str, decoded: Decoded) -> NotTextError:
    (name, reason), total = decoded.left_out.listed[0], decoded.left_out.counts.total()
    others = f", and {total - 1:,} more were left out" * (total > 1)
    return NotTextError(
        f"The {shown} holds no text that can be stored: {name!r}: {reason}{others}.",
        fix="Give a document that holds text, or convert it to text first.",
    )


async def _in_threads(batches: Generator[_Prepared]) -> AsyncGenerator[_Prepared]:
    try:
        while batch := await anyio.to_thread.run_sync(next, batches, None):
            yield batch
    finally:
        with anyio.CancelScope(shield=True):  # it ends a process that converts
            await anyio.to_thread.run_sync(batches.close)
