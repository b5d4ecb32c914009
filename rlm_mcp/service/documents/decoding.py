"""Decodes the bytes of pages and mails, which may name their charset. Runs in the converter."""

from __future__ import annotations

import codecs
from encodings.aliases import aliases

from rlm_mcp.service.contexts.guessing import (
    MIN_STRANGE,
    guess_charset,
    shifting_charset,
    strange_bytes,
    telling_lines,
)

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# What browsers take a name for: the larger charset, in which most texts of that name are.
_MEANT = {
    **dict.fromkeys(("iso8859-1", "ascii", "latin-1"), "cp1252"),
    **dict.fromkeys(("shift_jis", "shift-jis"), "cp932"),
    **dict.fromkeys(("gb2312", "gbk"), "gb18030"),
    **dict.fromkeys(("euc_kr", "ks_c-5601-1987"), "cp949"),
    "big5": "big5hkscs",
    "iso8859-9": "cp1254",
}
# Charsets of nothing that is said to be one in a page or mail.
_REFUSED = {"utf-7", "idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined"}
_USUAL = "cp1252"
_LOOKED_AT = 4096


def decoded(data: bytes, named: str = "") -> str:
    """Return the text of bytes: by their mark, as UTF-8, in the charset that is named, or guessed.

    Args:
        data: what is decoded.
        named: the charset that the document names; empty if it names none.
    """
    for mark, charset in _MARKS:
        if data.startswith(mark):
            return data.decode(charset, "replace")
    known = _meant(named)
    for charset in (*(["utf-8"] * (not data.isascii())), *([known] * bool(known))):
        try:
            return data.decode(charset)
        except UnicodeDecodeError:
            continue
    return data.decode(known or _guessed(data), "replace")


def load_charsets() -> None:
    """Load all that decoding needs, while files may still be opened."""
    for name in {*aliases.values(), *(charset for _, charset in _MARKS)}:
        _known(name)
    guess_charset("Grüße aus Köln, wo Änderungen möglich sind".encode("cp1252"))


def _meant(named: str) -> str:
    name = _known(named.strip().strip("\"'")) if named else ""
    return _MEANT.get(name, name)


def _known(name: str) -> str:
    """Return Python's name of a charset; empty for what is none."""
    try:
        known = codecs.lookup(name).name
        b"a".decode(known)
    except (LookupError, ValueError):
        return ""
    return "" if known in _REFUSED else known


def _guessed(data: bytes) -> str:
    if charset := shifting_charset(data[:_LOOKED_AT]):
        return charset
    if data.isascii():
        return "utf-8"
    if strange_bytes(data) < MIN_STRANGE:
        return _USUAL
    return guess_charset(telling_lines(iter(data.split(b"\n")), len(data))) or _USUAL
