"""UTF-16 and UTF-32, with a mark or without, and what other programs appended to them. Pure."""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Callable, Iterator

UTF_8 = "utf-8"
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, UTF_8),
)
MARK_BYTES = 4
_MIN_ZEROS = 3
_CONTROLS = bytes(sorted(set(range(32)) - set(b"\t\n\v\f\r\x1b")))
# So many bytes without a zero among them are not UTF-16 if most are ASCII and some are spaces:
# Chinese has half as much ASCII in its bytes, and hardly a space. A long run is not held back.
_RUN_BYTES, _LONG_RUN_BYTES = 64, 4096
_ASCII_SHARE, _SPACE_SHARE = 0.8, 0.04
_NOT_ASCII = bytes(byte for byte in range(256) if byte not in b"\t\n\r" and not 32 <= byte < 127)
_NOT_ZERO = bytes(byte and ord("a") for byte in range(256))
_RUN = b"a" * _RUN_BYTES

# Scripts whose characters have no zero in UTF-16; those of East Asia are used together.
_SCRIPTS = {
    name: re.compile(f"[{chars}]")
    for name, chars in {
        "Greek": "\u0370-\u03ff\u1f00-\u1fff",
        "Cyrillic": "\u0400-\u052f№«»—–“”„…",
        "Hebrew": "\u0590-\u05ff",
        "Arabic": "\u0600-\u077f",
        "of India": "\u0900-\u0dff",
        "Thai": "\u0e00-\u0eff",
        "East Asian": "\u3000-\u30ff\u3130-\u318f\u3400-\u9fff\uac00-\ud7a3\uff00-\uffef“”‘’…—·",
    }.items()
}
_SCRIPT_SHARE, _KNOWN_TO_AN_ODD_ONE = 0.9, 100

# Decodes what stands among UTF-16: gives the text and the name of its charset.
DecodeOther = Callable[[bytes], tuple[str, str]]


def charset_of_mark(data: bytes) -> str:
    """Return the charset that a byte order mark announces; empty without one."""
    return next((charset for mark, charset in _MARKS if data.startswith(mark)), "")


def is_wide(charset: str) -> bool:
    """Whether a charset is one of UTF-16 and UTF-32."""
    return charset.startswith(("utf-16", "utf-32"))


def wide_charset(sample: bytes) -> str:
    """Know UTF-16 and UTF-32 without a mark by their zeros, in mostly Latin text."""
    least = max(len(sample) // 5, _MIN_ZEROS)
    zeros = tuple(sample[at::4].count(0) for at in range(4))
    if min(zeros[1:]) * 4 >= 3 * least and zeros[0] * 20 < zeros[1]:
        charset = "utf-32-le"
    elif min(zeros[:3]) * 4 >= 3 * least and zeros[3] * 20 < zeros[2]:
        charset = "utf-32-be"
    else:
        first, second = zeros[0] + zeros[2], zeros[1] + zeros[3]
        if max(first, second) < least or min(first, second) > len(sample) // 40:
            return ""
        charset = "utf-16-le" if first < second else "utf-16-be"
    return "" if has_controls(sample.decode(charset, "replace").encode()) else charset


def wide_charset_of_script(sample: bytes) -> str:
    """Know UTF-16 without a mark in a script that has no zeros, by those of spaces and line ends.

    Other bytes would give characters that do not exist, or of many scripts.
    """
    units = Counter(zip(sample[::2], sample[1::2], strict=False))
    little = sum(units[space, 0] for space in b"\n\r ")
    big = sum(units[0, space] for space in b"\n\r ")
    if max(little, big) < _MIN_ZEROS or min(little, big) * 20 > max(little, big):
        return ""
    charset = "utf-16-be" if big > little else "utf-16-le"
    try:
        text = codecs.getincrementaldecoder(charset)().decode(sample)
    except UnicodeDecodeError:
        return ""
    known = sum(char.isprintable() or char.isspace() for char in text)
    scripts = Counter(_script_of(char) for char in text if not char.isascii())
    is_text = known * _KNOWN_TO_AN_ODD_ONE >= len(text) * (_KNOWN_TO_AN_ODD_ONE - 1)
    is_of_one = scripts.total() > 0 and max(scripts.values()) >= _SCRIPT_SHARE * scripts.total()
    return charset if is_text and is_of_one and scripts.most_common(1)[0][0] else ""


def _script_of(char: str) -> str:
    return next((name for name, chars in _SCRIPTS.items() if chars.match(char)), "")


def has_controls(data: bytes) -> bool:
    """Whether more than a hundredth of the bytes are controls that no text has."""
    return len(data) - len(data.translate(None, _CONTROLS)) > len(data) // 100


def line_of_zero(data: bytes, at: int) -> int:
    """Return where the line begins in which a NUL is the first or the second byte, or any other."""
    return at if data[:at].endswith(b"\n") else data.rfind(b"\n", 0, max(0, at - 1)) + 1


def lines_at_first_zero(pieces: Iterator[bytes], size: int) -> bytes:
    """Return some bytes from the start of the line in which the first NUL stands."""
    for piece in pieces:
        if (at := piece.find(0)) >= 0:
            start = line_of_zero(piece, at)
            return (piece[start:] + next(pieces, b""))[:size]
    return b""


class WideDecoder:
    """Decodes UTF-16 or UTF-32, and lines of another charset among it.

    A program that appends to a log does not look at its mark: `>>` of PowerShell writes UTF-16
    behind other text, and most programs write UTF-8 or ASCII behind UTF-16.

    Args:
        charset: as `charset_of_mark` or `wide_charset` tells it.
        other: decodes what is not wide.
        begins_wide: whether the text begins in this charset.

    Attributes:
        charsets: of the text, in order of their first use.
    """

    def __init__(self, charset: str, other: DecodeOther, *, begins_wide: bool = True) -> None:
        self._charset = charset
        self._other = other
        self._unit = 4 if "32" in charset else 2
        self._is_big = charset.endswith("be")
        self._decoder = codecs.getincrementaldecoder(charset)("replace")
        self._is_begun = not begins_wide
        self._is_within = begins_wide
        self._wide_bytes = 0
        self._held = b""
        self.charsets: tuple[str, ...] = (charset,) if begins_wide else ()

    def decode(self, data: bytes, *, final: bool) -> str:
        """Return what is decoded of some more bytes."""
        data, self._held = self._held + data, b""
        if not self._is_begun and data:
            self._is_begun = True
            self._is_big = self._is_big or data.startswith(
                (codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)
            )
        texts: list[str] = []
        while data:
            step = self._wide if self._is_within else self._narrow
            text, data = step(data, final=final)
            texts.append(text)
        if final and self._is_within:
            texts.append(self._decoder.decode(b"", final=True))
        return "".join(texts)

    def _wide(self, data: bytes, *, final: bool) -> tuple[str, bytes]:
        """Decode up to the first run of another charset; return the text and the bytes behind."""
        start, keep = _first_run(data)
        if start < 0 and final:
            start, keep = self._start_of_tail(data), len(data)
        if start < 0:
            self._held = data[keep:]
            self._wide_bytes += keep
            return self._decoder.decode(data[:keep], final=False), b""
        # The run may begin with the second half of the line end before it.
        start += -(self._wide_bytes + start) % self._unit
        text = self._decoder.decode(data[:start], final=True)
        self._is_within = False
        return text, data[start:]

    def _start_of_tail(self, data: bytes) -> int:
        """Return where a last line of ASCII begins that is too short for a run; -1 without one."""
        start = data.rfind(0) + (2 if self._is_big else 1)
        tail = data[start:]
        is_line = len(tail) > 1 and tail.endswith(b"\n") and len(tail) == _ascii_bytes(tail)
        return start if is_line and start > 1 else -1

    def _narrow(self, data: bytes, *, final: bool) -> tuple[str, bytes]:
        """Decode up to the line in which a NUL stands: there it is wide again."""
        at = data.find(0)
        if at < 0:
            cut = len(data) if final else data.rfind(b"\n") + 1
            self._held = data[cut:]
            return self._of_other(data[:cut]), b""
        first = at if self._is_big else max(0, at - 1)
        start = data.rfind(b"\n", 0, first) + 1
        if not start or _first_run(data[start:first])[0] >= 0:  # a line with a NUL in it
            start = first
        text = self._of_other(data[:start])
        charset = self._charset
        if charset in ("utf-16", "utf-32"):  # there is no second mark
            charset += "-be" if self._is_big else "-le"
        self._decoder = codecs.getincrementaldecoder(charset)("replace")
        self._is_within, self._wide_bytes = True, 0
        self._note(self._charset)
        return text, data[start:]

    def _of_other(self, data: bytes) -> str:
        if not data:
            return ""
        text, charset = self._other(data)
        self._note(charset)
        return text

    def _note(self, charset: str) -> None:
        self.charsets = tuple(dict.fromkeys((*self.charsets, charset)))


def _first_run(data: bytes) -> tuple[int, int]:
    """Return where a run begins that is not UTF-16, else -1; and where one may begin at the end."""
    looked_at = data.translate(_NOT_ZERO)
    start = looked_at.find(_RUN)
    while start >= 0:
        end = looked_at.find(0, start)
        run = data[start : end if end >= 0 else len(data)]
        if _is_foreign(run):
            return start, start
        if end < 0:
            return -1, len(data) if len(run) >= _LONG_RUN_BYTES else start
        start = looked_at.find(_RUN, end)
    # With the last line end before it, which shows where a line begins that is too short for a run.
    return -1, max(0, max(data.rfind(0) + 1, len(data) - _RUN_BYTES) - MARK_BYTES)


def _is_foreign(run: bytes) -> bool:
    spaces = run.count(b" ") + run.count(b"\n")
    return _ascii_bytes(run) >= _ASCII_SHARE * len(run) and spaces >= _SPACE_SHARE * len(run)


def _ascii_bytes(data: bytes) -> int:
    return len(data.translate(None, _NOT_ASCII))
