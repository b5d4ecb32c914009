"""The text of a REPL, streamed from its source into the process around the instance."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from anyio import from_thread, to_thread

from rlm_mcp.errors import TooLargeError
from rlm_mcp.sandbox.host.channel import Channel
from rlm_mcp.sandbox.host.streaming import close_chunks, send_context
from rlm_mcp.sandbox.layout import table
from rlm_mcp.sandbox.types import ContextSource, ReplOptions
from rlm_mcp.sandbox.wire import HEADER, utf8

MOST_TEXT_BYTES = (1 << 31) - 64  # a `str` of 32-bit Python holds less than 2 GiB
# In UTF-8: what begins a character beyond Latin-1, and one beyond the first 65,536.
_BELOW_WIDE, _BELOW_WIDEST = bytes(range(0xC4)), bytes(range(0xF0))


@dataclass(frozen=True)
class TextLayout:
    """What comes through the socket: bytes of text and names, and how the text becomes a value.

    `width` is the bytes a character takes in a `str`; 0 for ASCII, and for a list.
    """

    text_bytes: int
    chars: int
    width: int
    is_list: bool
    count: int
    name_bytes: int

    @property
    def held_bytes(self) -> int:
        """What the text takes in the guest's memory."""
        return self.text_bytes if self.is_list else self.chars * max(self.width, 1)


async def lay_out(source: ContextSource) -> tuple[TextLayout, bytes]:
    """Measure a source; return its layout, and what comes beside the text: names and lengths.

    Raises:
        TooLargeError: it holds more than the portable sandbox can.
    """
    text_bytes, chars = sum(source.byte_lengths), sum(source.char_lengths)
    check_size(text_bytes)
    width = 0
    if not source.is_list and text_bytes != chars:
        width = await to_thread.run_sync(_widest, source)
    names = [utf8(name) for name in source.names]
    names += [b""] * (len(source.byte_lengths) - len(names))
    layout = TextLayout(text_bytes, chars, width, source.is_list, len(names), sum(map(len, names)))
    check_size(layout.held_bytes)
    return layout, b"".join((*names, table(source.byte_lengths), table(map(len, names))))


def check_size(size: int) -> None:
    """Refuse a text that the guest's 32-bit memory cannot hold.

    Raises:
        TooLargeError: it is too large.
    """
    if size > MOST_TEXT_BYTES:
        raise TooLargeError(
            f"the text takes {size:,} bytes, and the portable sandbox holds less than 2 GiB",
            fix="Ask over fewer or smaller contexts, or run the server on Linux natively.",
        )


def _widest(source: ContextSource) -> int:
    """Read a text that is not ASCII once, for the bytes that its widest character takes."""
    width = 1
    chunks = source.chunks()
    try:
        for chunk in chunks:
            from_thread.check_cancelled()
            if chunk.isascii():
                continue
            wide = chunk.translate(None, _BELOW_WIDE)
            if wide and wide.translate(None, _BELOW_WIDEST):
                return 4
            width = 2 if wide else width
    finally:
        close_chunks(chunks)
    return width


async def send_text(
    channel: Channel, source: ContextSource, options: ReplOptions, laid: tuple[TextLayout, bytes]
) -> None:
    """Send how the REPL is to be made, names and lengths, and the text.

    Raises:
        EOFError: the process is gone.
        SandboxError: the source gave another number of bytes than it announced.
    """
    layout, beside = laid
    head = json.dumps({"layout": asdict(layout), "options": asdict(options)}).encode()
    await channel.send_frames(HEADER.pack(len(head), len(beside)) + head + beside)
    await send_context(channel, source, layout.text_bytes)
