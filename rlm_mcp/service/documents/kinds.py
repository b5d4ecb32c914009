"""Which files are documents to be converted, recognized by their first bytes and their name."""

from __future__ import annotations

import codecs
import platform
import re
import sys
import sysconfig
from functools import cache
from importlib.util import find_spec
from posixpath import splitext

from rlm_mcp.errors import RLMError
from rlm_mcp.service.contexts.decompression import Unpacker

_EXTRA = "pip install 'rlm-mcp[documents]'"
_NO_WHEEL = "there is no wheel of it for this machine, so convert the file on another one"
# The machines that the library of the extra has wheels for; none of them with musl.
_MACHINES = {"linux": ("x86_64", "aarch64"), "darwin": ("arm64",), "win32": ("AMD64",)}
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
_PDF_BEGINS = 1024  # within so many bytes, by its programs
_LATE_PDF = re.compile(rb"[\r\n]%PDF-\d\.\d\s")
_BEFORE = b"\xef\xbb\xbf\t\r\n "  # what careless programs put before a PDF or RTF file
_CODINGS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\0": "xz"}
_BZIP2 = re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)")  # with that of a block, or of the end
# What a text may be compressed with, to be stored as a text without being converted.
_OF_TEXTS = ("gzip", "zstd")
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
    "packed": "a compressed file",
}


def kind_of(name: str, head: bytes) -> str:
    """Tell the kind of document from a file's name and first bytes; empty for any other file."""
    begin = head.lstrip(_BEFORE)
    if begin.startswith(_FIRST_BYTES):
        return next(kind for sign, kind in _SIGNS if begin.startswith(sign))
    if b"%PDF-" in head[:_PDF_BEGINS] and _is_late_pdf(head):
        return "pdf"
    lower = name.lower()
    if head[_TAR_MAGIC] == b"ustar":
        return "tar"
    if coding := packed_coding(head):
        return "tar" if lower.endswith(_PACKED_TAR) else _packed_kind(lower, head, coding)
    kind = _TEXTS.get(splitext(lower)[1], "")
    return "" if kind == "mbox" and not head.startswith(b"From ") else kind


def _is_late_pdf(head: bytes) -> bool:
    """Whether a PDF file begins behind something else, and not a text that shows how one begins."""
    try:
        codecs.utf_8_decode(head, "strict", False)
    except UnicodeDecodeError:
        return _LATE_PDF.search(head, 0, _PDF_BEGINS) is not None
    return False


def packed_coding(data: bytes) -> str:
    """Tell how a single file is compressed: gzip, zstd, xz or bzip2; empty for others."""
    if _BZIP2.match(data):
        return "bzip2"
    return next((coding for sign, coding in _CODINGS.items() if data.startswith(sign)), "")


def _packed_kind(name: str, head: bytes, coding: str) -> str:
    """`packed` for a compressed document; text in gzip or zstd is read as text."""
    if coding not in _OF_TEXTS:
        return "packed"
    try:
        begin = next(Unpacker(coding).unpack(head), b"")
    except RLMError:
        return ""
    is_packed_twice = bool(packed_coding(begin))
    return "packed" if not is_packed_twice and kind_of(splitext(name)[0], begin) else ""


@cache
def is_installed() -> bool:
    """Whether documents can be converted: the library of the extra `documents` is there."""
    return find_spec("kreuzberg") is not None


def how_to_install(system: str = "", machine: str = "", built_for: str = "") -> str:
    """Say how to get the extra `documents`, or that there is no wheel of it for a machine.

    Args:
        system: as in `sys.platform`; this and the next two are those of this machine if empty.
        machine: as `platform.machine` tells it.
        built_for: what Python was built for, such as `x86_64-alpine-linux-musl`.
    """
    built_for = built_for or str(sysconfig.get_config_var("HOST_GNU_TYPE"))
    machines = _MACHINES.get(system or sys.platform, ())
    has_wheel = (machine or platform.machine()) in machines and "musl" not in built_for
    return _EXTRA if has_wheel else _NO_WHEEL


def why_not_converted(kind: str) -> str:
    """Say what a document is that needs the extra, and how to get it; empty for one of text."""
    what = _NAMES.get(kind)
    return f"{what}, which needs the extra `documents`: {how_to_install()}" if what else ""
