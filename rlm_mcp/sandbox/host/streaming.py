"""Texts that are streamed from their source into a process, for sandboxes that share no file."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial

from anyio import from_thread, to_thread

from rlm_mcp.errors import SandboxError
from rlm_mcp.sandbox.host.channel import Channel
from rlm_mcp.sandbox.types import ContextSource

SEND_BYTES = 1 << 20


async def send_context(channel: Channel, source: ContextSource, size: int) -> None:
    """Send the text of a source, which is to have `size` bytes.

    Raises:
        EOFError: the process is gone.
        SandboxError: the source gave another number of bytes than it announced.
    """
    sent = await to_thread.run_sync(_send_chunks, channel, source)
    if sent != size:
        raise SandboxError(f"context {source.key!r} gave {sent:,} bytes of {size:,}")


def _send_chunks(channel: Channel, source: ContextSource) -> int:
    """Read chunks in this thread, as the store wants it, and send them on the event loop."""
    sent = 0
    chunks = source.chunks()
    try:
        for chunk in chunks:
            from_thread.check_cancelled()
            for start in range(0, len(chunk), SEND_BYTES):
                from_thread.run(partial(channel.send_frames, chunk[start : start + SEND_BYTES]))
            sent += len(chunk)
    finally:
        close_chunks(chunks)
    return sent


def close_chunks(chunks: object) -> None:
    """End a source that was not read to its end, here: left alone, it would end on the loop."""
    if isinstance(chunks, Generator):
        chunks.close()
