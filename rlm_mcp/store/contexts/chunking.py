"""Cut raw bytes into chunks of valid UTF-8, and note where each document lies. Pure."""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from rlm_mcp.text import without_surrogates

CHUNK_BYTES = 1 << 20
# Small pieces are decoded and counted while they are in the processor's cache, and where one lies
# over the edge of a chunk, little is counted twice.
_PIECE_BYTES = 1 << 16
# Lines of fewer bytes are counted faster by looking at each byte.
_SHORT_LINE_BYTES = 32
_BOM = "\ufeff"
_BOM_BYTES = 3
_REPLACEMENT = "\ufffd".encode()


class Place(NamedTuple):
    """A point in a text: bytes, characters and line breaks before it, over all documents."""

    byte: int = 0
    char: int = 0
    line: int = 0


class Chunk(NamedTuple):
    """At most `CHUNK_BYTES` of UTF-8, cut at a character; never empty."""

    start: Place
    data: bytes


class Document(NamedTuple):
    """One finished document: where it starts, and how big it is; its last line may lack a break."""

    position: int
    name: str
    start: Place
    bytes: int
    chars: int
    lines: int


class Cut(NamedTuple):
    """Finished chunks and documents, in order."""

    chunks: list[Chunk]
    documents: list[Document]


class TextCutter:
    """Cuts documents, given as raw bytes in pieces of any size, into chunks.

    Bytes that are not valid UTF-8 become U+FFFD and are counted. A byte order mark at the start
    of a document is dropped. Chunks run over all documents: a document does not start a new one.

    Attributes:
        end: the point after everything that was added; bytes of a split character are not counted.
        replaced: how many characters stand for bytes that were not valid UTF-8.
        documents: how many documents were started.
        reader_state: what the reader of these bytes continues from; it is kept and not looked at.
    """

    def __init__(self) -> None:
        self.reader_state = ""
        self.end = Place()
        self.replaced = 0
        self.documents = 0
        self._is_open = False
        self._name = ""
        self._start = Place()
        self._ends_line = True
        self._has_short_lines = True  # for speed alone
        self._undecoded = b""
        self._saw_mark = False
        self._tail: list[bytes] = []
        self._tail_bytes = 0
        self._tail_start = Place()
        self._cut = Cut([], [])
        self._digest: ContentDigest | None = ContentDigest()
        self._digested = 0  # pieces of the tail

    @classmethod
    def resumed(cls, state: str, tail: Chunk | None) -> TextCutter:
        """Continue from `state`, and from the chunk that was not full then."""
        cutter = cls()
        cutter._digest = None  # its state cannot be stored
        saved: dict[str, Any] = json.loads(state)
        cutter.end = Place(*saved["end"])
        cutter.replaced = saved["replaced"]
        cutter.documents = saved["documents"]
        cutter._is_open = saved["is_open"]
        cutter._name = saved["name"]
        cutter._start = Place(*saved["start"])
        cutter._ends_line = saved["ends_line"]
        cutter._saw_mark = saved["saw_mark"]
        cutter._undecoded = bytes.fromhex(saved["undecoded"])
        cutter.reader_state = saved.get("reader", "")  # 0.1.0 kept none
        cutter._tail_start = tail.start if tail else cutter.end
        cutter._tail = [tail.data] if tail else []
        cutter._tail_bytes = len(tail.data) if tail else 0
        return cutter

    def state(self) -> str:
        """Return as JSON what `resumed` needs, the chunk that is not full left out."""
        return json.dumps(
            {
                "end": self.end,
                "replaced": self.replaced,
                "documents": self.documents,
                "is_open": self._is_open,
                "name": self._name,
                "start": self._start,
                "ends_line": self._ends_line,
                "saw_mark": self._saw_mark,
                "undecoded": self._undecoded.hex(),
                "reader": self.reader_state,
            }
        )

    @property
    def finished_documents(self) -> int:
        """How many documents are finished."""
        return self.documents - self._is_open

    @property
    def sha256(self) -> str | None:
        """The digest of all finished documents; None if some of it was cut by another cutter."""
        return None if self._digest is None else self._digest.hexdigest()

    def begin(self, name: str) -> None:
        """Start a document; the previous one ends. Lone surrogates in the name become `?`."""
        self.finish()
        self._is_open = True
        self._name = without_surrogates(name)
        self._start = self.end
        self._ends_line = True
        self._saw_mark = False
        self.documents += 1

    def feed(self, data: bytes) -> None:
        """Add bytes to the current document."""
        for start in range(0, len(data), _PIECE_BYTES):
            self._take_in(self._undecoded + data[start : start + _PIECE_BYTES], is_last=False)

    def feed_whole(self, data: bytes, chars: int | None) -> None:
        """Add whole characters in valid UTF-8, which are `chars` of them; they are not decoded.

        Args:
            data: the bytes.
            chars: None where it is not known what the bytes are; then `feed` takes them.
        """
        if chars is None or self._undecoded or self.end.byte == self._start.byte:
            self.feed(data)  # it may end a character, or begin with a byte order mark
        else:
            self._append(data, chars)

    def finish(self) -> None:
        """End the current document; an incomplete character at its end is replaced."""
        if not self._is_open:
            return
        if self._undecoded:
            self._take_in(self._undecoded, is_last=True)
        self._is_open = False
        if self._digest is not None:
            self._digest_tail(self._digest)
            self._digest.end(self._name)
        start, end = self._start, self.end
        lines = end.line - start.line + (not self._ends_line)
        size, chars = end.byte - start.byte, end.char - start.char
        document = Document(self.documents - 1, self._name, start, size, chars, lines)
        self._cut.documents.append(document)

    def take(self) -> Cut:
        """Return the chunks and documents finished since the last call."""
        cut, self._cut = self._cut, Cut([], [])
        return cut

    def rest(self) -> Chunk | None:
        """Return the chunk that is not full yet; it is kept, and returned again once it is full."""
        return Chunk(self._tail_start, b"".join(self._tail)) if self._tail else None

    def _take_in(self, raw: bytes, *, is_last: bool) -> None:
        text, used, replaced = _decode(raw, is_last=is_last)
        encoded = text.encode() if replaced else raw[:used]
        self._undecoded = raw[used:]
        self.replaced += replaced
        if self.end.byte == self._start.byte and text.startswith(_BOM) and not self._saw_mark:
            self._saw_mark = True
            text, encoded = text[1:], encoded[_BOM_BYTES:]
        if text:
            self._append(encoded, len(text))

    def _append(self, encoded: bytes, chars: int) -> None:
        if not encoded:
            return
        self._ends_line = encoded.endswith(b"\n")
        while self._tail_bytes + len(encoded) >= CHUNK_BYTES:
            size = CHUNK_BYTES - self._tail_bytes
            # A byte that continues a character must not come first in the next chunk.
            while 0 < size < len(encoded) and encoded[size] & 0xC0 == 0x80:
                size -= 1
            before = _chars_before(encoded, size, chars)
            self._grow(encoded[:size], before)
            encoded, chars = encoded[size:], chars - before
            self._end_chunk()
        self._grow(encoded, chars)

    def _end_chunk(self) -> None:
        data = b"".join(self._tail)
        if self._digest is not None and self._digested:
            self._digest_tail(self._digest)
        elif self._digest is not None:
            self._digest.update(data)
        self._cut.chunks.append(Chunk(self._tail_start, data))
        self._tail, self._tail_bytes, self._tail_start, self._digested = [], 0, self.end, 0

    def _digest_tail(self, digest: ContentDigest) -> None:
        """Digest what is not yet: few and large pieces, as other threads get their turn at each."""
        for piece in self._tail[self._digested :]:
            digest.update(piece)
        self._digested = len(self._tail)

    def _grow(self, encoded: bytes, chars: int) -> None:
        if encoded:
            byte, char, line = self.end
            breaks = _line_breaks(encoded, are_many=self._has_short_lines)
            self._has_short_lines = breaks * _SHORT_LINE_BYTES > len(encoded)
            self.end = Place(byte + len(encoded), char + chars, line + breaks)
            self._tail.append(encoded)
            self._tail_bytes += len(encoded)


def _line_breaks(data: bytes, *, are_many: bool) -> int:
    """Count line breaks; `count` looks at each byte, `replace` jumps from one break to the next."""
    if are_many:
        return data.count(b"\n")
    return len(data) - len(data.replace(b"\n", b""))


def _chars_before(encoded: bytes, size: int, chars: int) -> int:
    """How many of `chars` characters are in the first bytes; the shorter part is decoded."""
    if chars == len(encoded):
        return size
    if 2 * size <= len(encoded):
        return len(encoded[:size].decode())
    return chars - len(encoded[size:].decode())


def _decode(raw: bytes, *, is_last: bool) -> tuple[str, int, int]:
    """Return the text, how many bytes it took, and how many characters of it are replacements."""
    try:
        text, used = codecs.utf_8_decode(raw, "strict", is_last)
    except UnicodeDecodeError:
        text, used = codecs.utf_8_decode(raw, "replace", is_last)
        genuine = raw[:used].count(_REPLACEMENT)
        return text, used, text.count("\ufffd") - genuine
    return text, used, 0


# No UTF-8 begins with this byte, so no single document can have the digest of several.
_SEVERAL = b"\xffdocuments\n"


class ContentDigest:
    """For one document it covers its UTF-8; for several, each one's name and own digest.

    Add documents in order: `update` with the bytes of each, then `end`.
    """

    def __init__(self) -> None:
        self._documents = 0
        self._several = hashlib.sha256(_SEVERAL)
        self._one = hashlib.sha256()
        self._last = self._one

    def update(self, data: bytes | memoryview) -> None:
        """Add bytes to the current document."""
        self._one.update(data)

    def end(self, name: str) -> None:
        """End the current document; the next bytes belong to another one."""
        encoded = name.encode()
        self._several.update(len(encoded).to_bytes(8, "big") + encoded + self._one.digest())
        self._documents += 1
        self._last, self._one = self._one, hashlib.sha256()

    def hexdigest(self) -> str:
        """Return the digest of all finished documents."""
        return (self._last if self._documents == 1 else self._several).hexdigest()


def digest_of(chunks: Iterator[bytes], documents: Iterable[tuple[str, int]]) -> str:
    """Return the digest of a stored content.

    Args:
        chunks: the UTF-8 of all documents, without gaps.
        documents: names and sizes in bytes, in order.
    """
    digest, rest = ContentDigest(), memoryview(b"")
    for name, size in documents:
        missing = size
        while missing > 0:
            rest = rest or memoryview(next(chunks))
            digest.update(rest[:missing])
            missing, rest = missing - len(rest[:missing]), rest[missing:]
        digest.end(name)
    return digest.hexdigest()
