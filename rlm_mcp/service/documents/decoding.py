"""Decodes the bytes of pages and mails, which may name their charset. Runs in the converter."""

from __future__ import annotations

import codecs
import re
from encodings.aliases import aliases

from rlm_mcp.service.contexts.guessing import (
    MIN_STRANGE,
    guess_charset,
    is_mostly_utf8,
    shifting_charset,
    strange_bytes,
    telling_lines,
)
from rlm_mcp.service.contexts.wide import charset_of_mark, wide_charset

_WIDE = ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")
# How a page without a mark begins in these: with a `<`.
_WIDE_PAGES = (
    ("utf-32-le", re.compile(rb"(?:[\t\n\r ]\0\0\0)*<\0\0\0")),
    ("utf-32-be", re.compile(rb"(?:\0\0\0[\t\n\r ])*\0\0\0<")),
    ("utf-16-le", re.compile(rb"(?:[\t\n\r ]\0)*<\0")),
    ("utf-16-be", re.compile(rb"(?:\0[\t\n\r ])*\0<")),
)
_XML_CHARSET = re.compile(rb"""\A\s*<\?xml\b[^>]*\bencoding\s*=\s*["']\s*([\w.:-]+)""")
_META_CHARSET = re.compile(rb"""charset\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE)
_NAMED_WITHIN = 4096  # bytes of a page, by which it names its charset
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
    if charset := charset_of_mark(data):
        return data.decode(charset, "replace").removeprefix("\ufeff")
    known = _meant(named)
    if b"\0" in data[:_LOOKED_AT]:
        known = known if known in _WIDE else wide_charset(data[:_LOOKED_AT]) or known
        if known in _WIDE:
            return data.decode(known, "replace")
    elif known in _WIDE and data.isascii():
        known = ""
    for charset in (*(["utf-8"] * (not data.isascii())), *([known] * bool(known))):
        try:
            return data.decode(charset)
        except UnicodeDecodeError:
            continue
    is_false = not known or (known == "utf-8" and not is_mostly_utf8(data))
    return data.decode(_guessed(data) if is_false else known, "replace")


def decoded_page(data: bytes) -> str:
    """Return the text of an HTML page.

    One that names UTF-16 in bytes that are read as ASCII is in none, and as browsers do it is taken
    for UTF-8.
    """
    for charset, beginning in _WIDE_PAGES:
        if beginning.match(data):
            return data.decode(charset, "replace")
    head = data[:_NAMED_WITHIN]
    found = _XML_CHARSET.search(head) or _META_CHARSET.search(head)
    named = found[1].decode("ascii", "replace") if found else ""
    return decoded(data, "" if _meant(named) in _WIDE else named)


def load_charsets() -> None:
    """Load all that decoding needs, while files may still be opened."""
    for name in {*aliases.values(), *_WIDE}:
        _known(name)
    guess_charset("Съешь же ещё этих мягких французских булок".encode("cp1251"))


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
