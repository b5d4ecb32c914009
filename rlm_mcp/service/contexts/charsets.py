"""Decodes text of any charset, given or guessed, into UTF-8. Pure; guessing blocks."""

from __future__ import annotations

import codecs
from codecs import IncrementalDecoder

from rlm_mcp.errors import InvalidInputError

UTF_8 = "utf-8"
# Bytes to guess from, beginning with the first that is not ASCII.
SAMPLE_BYTES = 64 << 10
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, UTF_8),
)
_MARK_BYTES = 4
# Those that texts are really kept in, common ones first: of few candidates the right one is found
# more often.
_CANDIDATES = [
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258"),
    *("koi8_r", "cp874", "cp932", "euc_jp", "gb18030", "big5", "cp949"),
]
# Codecs of Python that are not charsets; some raise even with errors="replace".
_NO_CHARSETS = {"idna", "punycode", "raw_unicode_escape", "undefined", "unicode_escape", "utf_7"}
# Fewer bytes beyond ASCII are not enough to guess from; they are replaced as invalid ones are.
_MIN_STRANGE = 3
_CONTROLS = bytes(sorted(set(range(32)) - set(b"\t\n\v\f\r\x1b")))


class CharsetDecoder:
    """Gives UTF-8 for bytes of one document, split anywhere.

    What is ASCII passes at once, since all charsets that are guessed agree on it; the first byte
    that is not, or a byte order mark, decides. Bytes that are UTF-8 already pass as they are, the
    broken ones among them too: whoever cuts them replaces and counts those.

    Args:
        given: the charset's name; empty if it is to be guessed.

    Attributes:
        charset: what the bytes are taken for, by Python's name.
        is_guessed: whether it was guessed and is not UTF-8.
        replaced: how many characters stand for bytes that the charset has not.

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
        self._decoder = _decoder(self.charset)

    def is_quick(self, data: bytes) -> bool:
        """Whether `feed` has nothing to do but pass these bytes on."""
        is_plain = self._is_begun and not self._held and data.isascii()
        return self._decoder is None and (self._is_decided or is_plain)

    def feed(self, data: bytes) -> bytes:
        """Take in more bytes; return what is decoded so far."""
        if not self._is_decided:
            data = self._held + data
            self._held = b""
            if self._is_undecided(data):
                return self._hold(data)
            self._decide(data)
        return self._decode(data, is_last=False)

    def end(self) -> bytes:
        """Return the rest; a character that was cut short is replaced."""
        held, self._held = self._held, b""
        if not self._is_decided:
            self._decide(held)
        return self._decode(held, is_last=True)

    def _is_undecided(self, data: bytes) -> bool:
        if not self._is_begun and len(data) < _MARK_BYTES:
            return True
        return len(data) - _first_strange(data) < SAMPLE_BYTES

    def _hold(self, data: bytes) -> bytes:
        """Pass on what is ASCII and keep the rest; a document's first bytes may say it all."""
        first = data[:_MARK_BYTES]
        if not self._is_begun and (len(first) < _MARK_BYTES or _mark(first) or b"\0" in first):
            self._held = data
            return b""
        self._is_begun = True
        at = _first_strange(data)
        self._held = data[at:]
        return data[:at]

    def _decide(self, sample: bytes) -> None:
        self._is_decided = True
        self.charset = ("" if self._is_begun else _mark(sample)) or _find_charset(sample)
        self.is_guessed = self.charset != UTF_8
        self._decoder = _decoder(self.charset)

    def _decode(self, data: bytes, *, is_last: bool) -> bytes:
        if self._decoder is None:
            return data
        text = self._decoder.decode(data, is_last)
        self.replaced += text.count("\ufffd")
        return text.encode("utf-8", "replace")


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
        fix="Name one such as utf-8 or windows-1252, or none to have it found out.",
    )


def _decoder(charset: str) -> IncrementalDecoder | None:
    return None if charset == UTF_8 else codecs.getincrementaldecoder(charset)("replace")


def _mark(data: bytes) -> str:
    return next((charset for mark, charset in _MARKS if data.startswith(mark)), "")


def _first_strange(data: bytes) -> int:
    """Where the first byte is that is not ASCII, or is a NUL; the length if there is none."""
    ascii_bytes = len(data) if data.isascii() else _ascii_length(data)
    nul = data.find(b"\0", 0, ascii_bytes)
    return ascii_bytes if nul < 0 else nul


def _ascii_length(data: bytes) -> int:
    try:
        data.decode("ascii")
    except UnicodeDecodeError as error:
        return error.start
    return len(data)


def _find_charset(sample: bytes) -> str:
    """Guess from a sample; UTF-8 also for what is not text, which others refuse."""
    if wide := _wide_charset(sample):
        return wide
    strange = len(sample) - len(sample.decode("ascii", "ignore"))
    if strange < _MIN_STRANGE or _has_controls(sample) or _is_mostly_utf8(sample):
        return UTF_8
    from charset_normalizer import from_bytes  # noqa: PLC0415  # few texts need it

    best = from_bytes(sample, cp_isolation=_CANDIDATES).best()
    if best is None:
        return UTF_8
    # Several may give the same text here; the more common one is likelier to further on.
    alike = {best.encoding, *best.could_be_from_charset}
    return codecs.lookup(next(one for one in _CANDIDATES if one in alike)).name


def _wide_charset(sample: bytes) -> str:
    """Know UTF-16 without a mark by its zeros, every other byte of mostly Latin text."""
    zeros = sample[0::2].count(0), sample[1::2].count(0)
    charset = "utf-16-le" if zeros[0] < zeros[1] else "utf-16-be"
    if max(zeros) < max(len(sample) // 5, _MIN_STRANGE) or min(zeros) > len(sample) // 40:
        return ""
    return "" if _has_controls(sample.decode(charset, "replace").encode()) else charset


def _has_controls(data: bytes) -> bool:
    return len(data) - len(data.translate(None, _CONTROLS)) > len(data) // 100


def _is_mostly_utf8(sample: bytes) -> bool:
    """Whether more characters beyond ASCII are whole UTF-8 than are broken."""
    text, _ = codecs.utf_8_decode(sample, "replace", False)  # its end may cut a character
    broken = text.count("\ufffd") - sample.count("\ufffd".encode())
    whole = len(text) - broken - len(text.encode("ascii", "ignore"))
    return broken == 0 or whole > broken
