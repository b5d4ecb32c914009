"""The one way that bytes become stored text: compression, holes, charset. Blocking."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from rlm_mcp.service.contexts.charsets import UTF_8, CharsetDecoder, Counted, is_plain_utf8
from rlm_mcp.service.contexts.decompression import Unpacker
from rlm_mcp.text import utf8

# Fewer NUL bytes at the start may be the first characters of UTF-16 or UTF-32.
MIN_HOLE_BYTES = 512
SNIFFED_BYTES = 8192
_SIGNS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_SIGN_BYTES = 4
# Text without any line feed in so much of its beginning has none.
LOOKED_AT_BYTES = 8192
EMPTY = "empty"  # why a document without a byte is not stored
# So much is looked at at once; as much as a socket gives, which is then not copied for it.
_READ_BYTES = 256 << 10
_HOLE = re.compile(b"\0{%d,}" % MIN_HOLE_BYTES)
_HALVES = re.compile("[\ud800-\udfff]")


class Digest(Protocol):
    """What a hash of `hashlib` is here."""

    def update(self, data: bytes, /) -> None:
        """Take in more bytes."""
        ...


def is_cr_only(data: bytes) -> bool:
    """Whether the lines of a text end with CR alone, judged by its beginning."""
    looked_at = data[:LOOKED_AT_BYTES]
    return b"\r" in looked_at and b"\n" not in looked_at


class _LineEnds:
    """Passes on UTF-8, split anywhere; a text whose lines end with CR alone gets LF instead."""

    def __init__(self) -> None:
        self._is_decided = False
        self._is_cr = False
        self._is_after_cr = False
        self._held = b""

    @property
    def is_quick(self) -> bool:
        """Whether `feed` only passes on what it gets."""
        return self._is_decided and not self._is_cr

    @property
    def waiting(self) -> bytes:
        """What is held until the kind of line ends is known."""
        return self._held

    def state(self) -> list[Any]:
        """Return as JSON what `resume` continues from."""
        return [self._is_decided, self._is_cr, self._held.hex(), self._is_after_cr]

    def resume(self, state: list[Any]) -> None:
        """Continue from a state."""
        self._is_decided, self._is_cr, held, *later = state
        self._held = bytes.fromhex(held)
        self._is_after_cr = bool(later and later[0])  # earlier versions kept none

    def feed(self, data: bytes) -> bytes:
        """Take in more; return what can pass."""
        if self._is_decided:
            return self._converted(data)
        self._held += data
        if b"\n" not in self._held and len(self._held) < LOOKED_AT_BYTES:
            return b""
        return self.end()

    def end(self) -> bytes:
        """Return what was held until here."""
        held, self._held = self._held, b""
        if not self._is_decided:
            self._is_decided = True
            self._is_cr = is_cr_only(held)
        return self._converted(held)

    def _converted(self, data: bytes) -> bytes:
        if not self._is_cr or not data:
            return data
        # Lines of a log may end with CRLF behind a long first one that CRs overwrite.
        begin = 1 if self._is_after_cr and data.startswith(b"\n") else 0
        self._is_after_cr = data.endswith(b"\r")
        return data[begin:].replace(b"\r\n", b"\n").replace(b"\r", b"\n")


class TextReader:
    """Turns the bytes of one document, split anywhere, into UTF-8.

    A file, standard input and an uploaded body all go through it, so that equal bytes become equal
    text. gzip and zstd are decompressed. A block of NULs at the start, as a log has that was
    truncated while a program kept writing to it, is left out and counted.

    Args:
        charset: the charset's name; empty if it is to be guessed.
        coding: `gzip` or `zstd`; empty if the first bytes are to tell.
        digest: is given the bytes, decompressed where `coding` announced that.

    Attributes:
        hole_bytes: how many NULs at the start were left out.

    Raises:
        InvalidInputError: there is no such charset.
    """

    def __init__(self, charset: str = "", coding: str = "", digest: Digest | None = None) -> None:
        self._digest = digest
        self._is_announced = bool(coding)
        self._decoder = CharsetDecoder(charset)
        self._line_ends = _LineEnds()
        self._unpacker = Unpacker(coding) if coding else None
        self._is_begun = bool(coding)
        self._held = b""
        self._nuls = 0
        self._is_at_start = True
        self.hole_bytes = 0

    @property
    def charset(self) -> str:
        """What the bytes are taken for, by Python's name."""
        return self._decoder.charset

    @property
    def replaced(self) -> int:
        """How many characters stand for bytes that the charset lacks."""
        return self._decoder.replaced

    @property
    def is_packed(self) -> bool:
        """Whether the bytes are compressed, as far as is known."""
        return self._unpacker is not None

    @property
    def waiting(self) -> bytes:
        """What was taken in of a text in known UTF-8, and is not returned yet; no NULs."""
        return self._line_ends.waiting + self._held

    def state(self) -> dict[str, Any]:
        """Return as JSON what `resume` reads on from, where the charset is known to be UTF-8."""
        return {
            "held": self._held.hex(),
            "is_begun": self._is_begun,
            "nuls": self._nuls,
            "is_at_start": self._is_at_start,
            "hole_bytes": self.hole_bytes,
            "line_ends": self._line_ends.state(),
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        """Read on where another reader of uncompressed UTF-8 was."""
        self._held = bytes.fromhex(state["held"])
        self._is_begun = state["is_begun"]
        self._nuls = state["nuls"]
        self._is_at_start = state["is_at_start"]
        self.hole_bytes = state["hole_bytes"]
        self._line_ends.resume(state["line_ends"])

    def pass_all(self) -> None:
        """Read on in the middle of a text of which nothing is known: all of it passes."""
        self._is_begun, self._is_at_start = True, False
        self._line_ends.end()

    def read(self, data: bytes) -> Iterator[Counted]:
        """Yield the UTF-8 of more bytes, with its number of characters where that is known.

        Raises:
            InvalidInputError: they are not whole gzip or zstd.
            TooLargeError: they decompress to far more than text does.
        """
        for raw in self._unpacked(data):
            for start in range(0, len(raw), _READ_BYTES):
                yield self._counted(raw[start : start + _READ_BYTES])

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the UTF-8 of more bytes, in pieces of a megabyte or so.

        Raises:
            InvalidInputError, TooLargeError: as for `read`.
        """
        for raw in self._unpacked(data):
            yield self._line_ends.feed(self._decode(raw))

    def _unpacked(self, data: bytes) -> Iterator[bytes]:
        if self._digest is not None and not self._is_announced:
            self._digest.update(data)
        if not self._is_begun:
            data, self._held = self._held + data, b""
            if len(data) < _SIGN_BYTES:
                self._held = data
                return
            self._begin(data)
        yield from self._unpacker.unpack(data) if self._unpacker else (data,)

    def _counted(self, raw: bytes) -> Counted:
        """Take in bytes, which need only be looked at once if all of them pass as they are."""
        if not self._is_at_start and self._line_ends.is_quick:
            passed = self._decoder.pass_quickly(raw)
            if passed is not None:
                if self._digest is not None and self._is_announced:
                    self._digest.update(raw)
                return passed
        return Counted(self._line_ends.feed(self._decode(raw)), None)

    def end(self, *, is_whole: bool = True) -> Iterator[bytes]:
        """Yield the rest; a character that was cut short is replaced.

        Args:
            is_whole: whether all bytes came; False for a look at the first ones.

        Raises:
            InvalidInputError: the compressed bytes ended too early.
        """
        if not self._is_begun:
            held, self._held = self._held, b""
            self._begin(held)
            yield self._line_ends.feed(self._decode(held))
        if self._unpacker is not None and is_whole:
            self._unpacker.end()
        if self._is_at_start and self._nuls:
            # Nothing else came: a few show what it is, however many there were.
            yield self._line_ends.feed(self._decoder.feed(bytes(min(self._nuls, MIN_HOLE_BYTES))))
        for piece in self._decoder.end():
            yield self._line_ends.feed(piece)
        yield self._line_ends.end()

    def _begin(self, data: bytes) -> None:
        self._is_begun = True
        coding = coding_of(data)
        self._unpacker = Unpacker(coding) if coding else None

    def _decode(self, raw: bytes) -> bytes:
        if self._digest is not None and self._is_announced:
            self._digest.update(raw)
        if self._is_at_start:
            rest = raw.lstrip(b"\0")
            self._nuls += len(raw) - len(rest)
            if not rest:
                return b""
            self._is_at_start = False
            is_hole = self._nuls >= MIN_HOLE_BYTES
            self.hole_bytes = self._nuls if is_hole else 0
            raw = rest if is_hole else bytes(self._nuls) + rest
        return self._decoder.feed(raw)


def coding_of(data: bytes) -> str:
    """Tell by its first bytes how a text is compressed; empty if it is not."""
    return next((name for sign, name in _SIGNS.items() if data.startswith(sign)), "")


class InlineText(NamedTuple):
    """The UTF-8 of a text that a caller sent, and what of it was left out or replaced.

    `hole_bytes` counts NULs at its start, `replaced` the halves of characters that became `?`.
    """

    data: bytes
    hole_bytes: int
    replaced: int


def read_inline(text: str) -> InlineText:
    """Read a text that came as characters, so that it is stored as a file with it would be."""
    reader = TextReader(UTF_8)
    encoded, halves = utf8_of(text)
    data = b"".join([*reader.feed(encoded), *reader.end()])
    return InlineText(data, reader.hole_bytes, halves)


def utf8_of(text: str) -> tuple[bytes, int]:
    """Return the UTF-8 of a text, and how many halves of characters in it became `?`.

    They are looked for only where there are some: nothing else runs in this process meanwhile.
    """
    try:
        return text.encode(), 0
    except UnicodeEncodeError:
        return utf8(text), len(_HALVES.findall(text))


def is_stored_as_it_is(data: bytes) -> bool:
    """Whether a `TextReader` would return the whole of a document unchanged, and no error.

    Most files are so, and to know it takes far less than to read them. False where in doubt.
    """
    return not is_cr_only(data) and is_plain_utf8(data)


def peek(head: bytes, limit: int) -> bytes:
    """Return the first UTF-8 of a document, at most `limit` bytes, from its first bytes.

    Raises:
        InvalidInputError: they are not gzip or zstd, as they pretend to be.
        TooLargeError: they decompress to far more than text does.
    """
    if is_plain_utf8(head):
        return head[:limit]
    reader, found = TextReader(), bytearray()
    for piece in reader.feed(head):
        found += piece
        if len(found) >= limit:
            return bytes(found[:limit])
    found += b"".join(reader.end(is_whole=False))
    return bytes(found[:limit])


def why_no_text(head: bytes) -> str:
    """Say why bytes that begin so cannot be stored as text; empty if they can."""
    if not head:
        return EMPTY
    if b"\0" in head and b"\0" in _without_holes(head):
        return "binary"
    if _undecodable_share(head) > 0.1:
        return "text in no known charset"
    return ""


def _without_holes(head: bytes) -> bytes:
    """Leave out long blocks of NULs, as a file has whose last lines were lost with the power."""
    text = head.rstrip(b"\0") if len(head) >= SNIFFED_BYTES else head
    return _HOLE.sub(b"", text) or head


def _undecodable_share(head: bytes) -> float:
    text = head.decode("utf-8", "replace")
    return (text.count("\ufffd") - head.count(b"\xef\xbf\xbd")) / max(1, len(text))
