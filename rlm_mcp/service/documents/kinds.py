"""Which files are documents to be converted, recognized by their first bytes and their name."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from posixpath import splitext

from rlm_mcp.errors import RLMError
from rlm_mcp.service.contexts.decompression import Unpacker

EXTRA = "pip install 'rlm-mcp[documents]'"
# What a file begins with, and what it is then.
_SIGNS = (
    (b"%PDF-", "pdf"),
    (b"PK\x03\x04", "zip"),  # office files and books are zip archives too
    (b"PK\x05\x06", "zip"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "ole"),  # office files before 2007, and Outlook's mail
    (b"SQLite format 3\0", "sqlite"),
    (b"{\\rtf", "rtf"),
)
_FIRST_BYTES = tuple(sign for sign, _ in _SIGNS)
_PACKED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ\0")
_CODINGS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_PACKED_TAR = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_TAR_MAGIC = slice(257, 262)
# These are text; only their names tell what it means.
_TEXTS = {
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".eml": "eml",
    ".ipynb": "ipynb",
    ".mbox": "mbox",
    ".mbx": "mbox",
}
_NAMES = {
    "pdf": "a PDF file",
    "zip": "an archive or office file",
    "ole": "an office or mail file",
    "sqlite": "an SQLite file",
    "rtf": "an RTF file",
    "tar": "an archive",
    "packed": "a compressed document",
}


def kind_of(name: str, head: bytes) -> str:
    """Tell the kind of document from a file's name and first bytes; empty for any other file."""
    if head.startswith(_FIRST_BYTES):
        return next(kind for sign, kind in _SIGNS if head.startswith(sign))
    lower = name.lower()
    if head[_TAR_MAGIC] == b"ustar":
        return "tar"
    if head.startswith(_PACKED):
        return "tar" if lower.endswith(_PACKED_TAR) else _packed_kind(lower, head)
    kind = _TEXTS.get(splitext(lower)[1], "")
    return "" if kind == "mbox" and not head.startswith(b"From ") else kind


def packed_coding(data: bytes) -> str:
    """Tell how a single file is compressed, of the ways that text may be; empty for others."""
    return next((coding for sign, coding in _CODINGS.items() if data.startswith(sign)), "")


def _packed_kind(name: str, head: bytes) -> str:
    """`packed` for a compressed document; text that is compressed is read as text."""
    coding = packed_coding(head)
    if not coding:
        return ""
    try:
        begin = next(Unpacker(coding).unpack(head), b"")
    except RLMError:
        return ""
    is_packed_twice = begin.startswith(_PACKED)
    return "packed" if not is_packed_twice and kind_of(splitext(name)[0], begin) else ""


@cache
def is_installed() -> bool:
    """Whether documents can be converted: the library of the extra `documents` is there."""
    return find_spec("kreuzberg") is not None


def why_not_converted(kind: str) -> str:
    """Say what a document is that needs the extra, and how to get it; empty for one of text."""
    what = _NAMES.get(kind)
    return f"{what}, which needs the extra `documents`: {EXTRA}" if what else ""
