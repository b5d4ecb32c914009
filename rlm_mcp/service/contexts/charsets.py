"""Decodes text of any charset, given or guessed, into UTF-8. Pure; guessing blocks."""

from __future__ import annotations

import codecs
from codecs import IncrementalDecoder
from collections.abc import Iterator
from typing import NamedTuple

from rlm_mcp.errors import InvalidInputError
from rlm_mcp.service.contexts.guessing import SHIFT, Lines, is_mostly_utf8, shifting_charset
from rlm_mcp.service.contexts.spool import Spool
from rlm_mcp.service.contexts.wide import (
    MARK_BYTES,
    UTF_8,
    WideDecoder,
    charset_of_mark,
    has_controls,
    is_wide,
    line_of_zero,
    lines_at_first_zero,
    wide_charset,
    wide_charset_of_script,
)
from rlm_mcp.text import count_utf8

# So much is looked at before what is valid UTF-8 passes on: text of other charsets can begin so.
SAMPLE_BYTES = 64 << 10
_PIECE_BYTES = 1 << 20
# So few bytes show whether what begins with a NUL is UTF-16.
_WIDE_BYTES = 512
# Codecs of Python that are not charsets; some raise even with errors="replace".
_NO_CHARSETS = {"idna", "punycode", "raw_unicode_escape", "undefined", "unicode_escape", "utf_7"}


class Counted(NamedTuple):
    """UTF-8, and how many whole characters it is; None where it was not decoded."""

    data: bytes
    chars: int | None


class CharsetDecoder:
    """Gives UTF-8 for bytes of one document, split anywhere.

    What is valid UTF-8 passes at once, a beginning of 64 KiB aside. From the first byte that is
    not, the rest waits for the end of the document, where its charset is guessed from all of it:
    the first bytes may not tell, and neither does a byte order mark. A file that holds UTF-8 beside
    another charset, as a log of two programs or an mbox does, is decoded line by line.

    Args:
        given: the charset's name; empty if it is to be guessed.

    Attributes:
        charset: what the bytes are taken for, by Python's name; of a mixed file, both names.
        is_guessed: whether it was guessed and is not UTF-8.
        replaced: how many characters stand for bytes that the charset lacks. Broken UTF-8 is not
            counted here: it passes as it is, and whoever cuts it replaces and counts it.

    Raises:
        InvalidInputError: there is no such charset.
    """

    def __init__(self, given: str = "") -> None:
        self.charset = _codec_name(given) if given else UTF_8
        self.is_guessed = False
        self.replaced = 0
        self._is_decided = bool(given)
        self._is_begun = False
        self._held = b""
        self._has_passed_utf8 = False
        self._spool: Spool | None = None
        self._decoder = _decoder(self.charset)

    def pass_quickly(self, data: bytes) -> Counted | None:
        """Take in bytes that can be looked at once and passed on; None if `feed` must take them."""
        if self._is_decided:
            return Counted(data, None) if self._decoder is None else None
        if self._spool is not None:
            return None
        if self._can_pass(data):
            return Counted(data, len(data))
        return self._pass_utf8(self._held + data) if self._has_passed_utf8 else None

    def _can_pass(self, data: bytes) -> bool:
        return self._is_begun and not self._held and self._spool is None and _is_plain(data)

    def feed(self, data: bytes) -> bytes:
        """Take in more bytes; return what is decoded so far."""
        if self._is_decided:
            return self._decode(data, is_last=False)
        if self._spool is not None:
            self._spool.write(data)
            return b""
        if self._can_pass(data):
            return data
        data, self._held = self._held + data, b""
        if not self._is_begun:
            # UTF-16 without a mark may take more to be known.
            if len(data) < (_WIDE_BYTES if has_controls(data) else MARK_BYTES):
                self._held = data
                return b""
            charset = charset_of_mark(data)
            if charset and charset != UTF_8:
                self._take(charset)
                return self._decode(data, is_last=False)
            if charset:
                self._is_begun = self._has_passed_utf8 = True
        return self._pass_on(data, is_last=False)

    def end(self) -> Iterator[bytes]:
        """Yield the rest, in pieces; a character that was cut short is replaced."""
        if self._is_decided:
            yield self._decode(b"", is_last=True)
            return
        held, self._held = self._held, b""
        if not self._is_begun and (charset := charset_of_mark(held)):
            self._take(charset)
            yield self._decode(held, is_last=True)
            return
        if self._spool is None:
            yield self._pass_on(held, is_last=True)
        if self._spool is not None:
            yield from self._decode_spooled(self._spool)

    def _take(self, charset: str) -> None:
        self._is_decided = self._is_begun = True
        self.charset = charset
        self.is_guessed = charset != UTF_8
        self._decoder = (
            WideDecoder(charset, _decode_other) if is_wide(charset) else _decoder(charset)
        )

    def _pass_utf8(self, data: bytes) -> Counted | None:
        """Return what is whole in bytes that are valid UTF-8; None where they are not."""
        if b"\0" in data or _has_shift(data):
            return None
        try:
            chars, used = count_utf8(data)
        except UnicodeDecodeError:
            return None
        self._held = data[used:]
        return Counted(data[:used] if self._held else data, chars)

    def _pass_on(self, data: bytes, *, is_last: bool) -> bytes:
        """Return what can pass; hold back what may not be UTF-8, or spool it from there on."""
        if self._has_passed_utf8 and not is_last and (passed := self._pass_utf8(data)) is not None:
            return passed.data
        at = _first_strange(data)
        valid = at + _valid_length(data[at:], is_last=is_last)
        is_sampled = self._has_passed_utf8 or len(data) - at >= SAMPLE_BYTES
        if valid >= 0 and _is_whole(data, valid, is_last=is_last):
            if not is_last and not is_sampled and at < len(data):
                return self._hold(data, at)
            self._is_begun = True
            self._has_passed_utf8 = self._has_passed_utf8 or at < valid
            self._held = b"" if is_last else data[valid:]
            return data if is_last else data[:valid]
        begin = at if not self._has_passed_utf8 else valid
        if data[begin : begin + 1] == b"\0":
            start = line_of_zero(data, begin)
        else:
            start = begin if self._has_passed_utf8 else data.rfind(b"\n", 0, begin) + 1
        is_wide_script = not self._is_begun and wide_charset_of_script(data[:_WIDE_BYTES])
        if is_wide_script or (not self._is_begun and b"\0" in data[:MARK_BYTES]):
            start = 0
        self._is_begun = True
        self._spool = Spool()
        self._spool.write(data[start:])
        return data[:start]

    def _hold(self, data: bytes, at: int) -> bytes:
        self._is_begun = self._is_begun or at > 0
        self._held = data[at:]
        return data[:at]

    def _decode_spooled(self, spool: Spool) -> Iterator[bytes]:
        head = spool.head(SAMPLE_BYTES)
        first_wide = lines_at_first_zero(spool.pieces(), _WIDE_BYTES)
        of_script = wide_charset_of_script(head[:_WIDE_BYTES])
        if wide := wide_charset(first_wide) or wide_charset(head) or of_script:
            self._take(wide)
            begins_wide = head.startswith(first_wide) or bool(of_script)
            self._decoder = WideDecoder(wide, _decode_other, begins_wide=begins_wide)
            yield from self._decode_all(spool)
            return
        if shifting := shifting_charset(head):
            self._take(shifting)
            yield from self._decode_all(spool)
            return
        lines = Lines.of(spool)
        charset = lines.charset(has_utf8=self._has_passed_utf8)
        is_mixed = bool(charset) and lines.has_utf8(charset, begins_so=self._has_passed_utf8)
        if charset and not is_mixed:
            self._take(charset)
            yield from self._decode_all(spool)
        elif charset:
            self.charset, self.is_guessed = f"{UTF_8}, {charset}", True
            yield from self._decode_mixed(spool, charset)
        else:
            yield from spool.pieces()

    def _decode_all(self, spool: Spool) -> Iterator[bytes]:
        for piece in spool.pieces():
            yield self._decode(piece, is_last=False)
        yield self._decode(b"", is_last=True)

    def _decode_mixed(self, spool: Spool, charset: str) -> Iterator[bytes]:
        gathered = bytearray()
        for line in spool.lines():
            if is_mostly_utf8(line):
                gathered += line
            else:
                text = line.decode(charset, "replace")
                self.replaced += text.count("\ufffd")
                gathered += text.encode("utf-8", "replace")
            if len(gathered) >= _PIECE_BYTES:
                yield bytes(gathered)
                gathered.clear()
        yield bytes(gathered)

    def _decode(self, data: bytes, *, is_last: bool) -> bytes:
        if self._decoder is None:
            return data
        text = self._decoder.decode(data, final=is_last)
        if isinstance(self._decoder, WideDecoder):
            self.charset = ", ".join(self._decoder.charsets)
        self.replaced += text.count("\ufffd")
        return text.encode("utf-8", "replace")


def _decode_other(data: bytes) -> tuple[str, str]:
    """Decode what stands among UTF-16; return the text and the name of its charset."""
    decoder = CharsetDecoder()
    text = b"".join([decoder.feed(data), *decoder.end()])
    return text.decode("utf-8", "replace"), decoder.charset


def _is_plain(data: bytes) -> bool:
    return data.isascii() and b"\0" not in data and not _has_shift(data)


def is_plain_utf8(data: bytes) -> bool:
    """Whether bytes are whole UTF-8 without NUL, byte order mark or shift sequence."""
    if b"\0" in data or _has_shift(data) or charset_of_mark(data):
        return False
    try:
        codecs.utf_8_decode(data, "strict", True)
    except UnicodeDecodeError:
        return False
    return True


def _has_shift(data: bytes) -> bool:
    # One byte is found fifty times as fast as two, and most texts do not have it.
    return SHIFT[:1] in data and SHIFT in data


def _valid_length(data: bytes, *, is_last: bool) -> int:
    """How many of the first bytes are whole characters of UTF-8, and no NUL."""
    nul = data.find(b"\0")
    if nul >= 0:
        data = data[:nul]
    shift = data.find(SHIFT)
    if shift >= 0:
        data = data[:shift]
    try:
        return codecs.utf_8_decode(data, "strict", is_last)[1]
    except UnicodeDecodeError as error:
        return error.start


def _is_whole(data: bytes, valid: int, *, is_last: bool) -> bool:
    """Whether nothing but a character that is cut short follows what is valid."""
    rest = data[valid:]
    if not rest:
        return True
    try:
        codecs.utf_8_decode(rest, "strict", is_last)
    except UnicodeDecodeError:
        return False
    return b"\0" not in rest and not _has_shift(rest)


def _codec_name(given: str) -> str:
    try:
        name = codecs.lookup(given).name
        b"a".decode(name, "replace")  # refuses codecs that are none of text
        if name.replace("-", "_") not in _NO_CHARSETS:
            return name
    except (LookupError, ValueError):
        pass
    raise InvalidInputError(
        f"There is no charset {given[:100]!r}.",
        fix="Name one such as utf-8 or windows-1252, or leave it out to have it detected.",
    )


def _decoder(charset: str) -> IncrementalDecoder | None:
    return None if charset == UTF_8 else codecs.getincrementaldecoder(charset)("replace")


def _first_strange(data: bytes) -> int:
    """Where the first byte is that is not ASCII, or is a NUL or a shift; else the length."""
    end = len(data) if data.isascii() else _ascii_length(data)
    for sign in (b"\0", SHIFT):
        found = data.find(sign, 0, end)
        end = end if found < 0 else found
    return end


def _ascii_length(data: bytes) -> int:
    try:
        data.decode("ascii")
    except UnicodeDecodeError as error:
        return error.start
    return len(data)
