"""Counts the pictures of a document, which are left out of its text."""

from __future__ import annotations

import re
from collections.abc import Callable

from rlm_mcp.service.documents.archives import zip_names

_PDF_PICTURE = re.compile(rb"/Subtype\s*/Image\b")
_PDF_MASK = re.compile(rb"/SMask\s+\d+\s+\d+\s+R\b")
_RTF_PICTURE = re.compile(rb"\\pict\b")
_NOTEBOOK_PICTURE = re.compile(rb'"image/[a-z+]+"\s*:')
_DATA_PICTURE = re.compile(rb"\bsrc\s*=\s*[\"']?\s*data:image/", re.IGNORECASE)
_PICTURES = (
    *(".png", ".jpg", ".jpeg", ".jfif", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".svg"),
    *(".emf", ".wmf", ".wdp"),
)
_OF_FILES = ("docx", "pptx", "xlsx", "odt", "ods", "odp", "epub")


def count_pictures(kind: str, data: bytes) -> int:
    """Count the pictures of a document, as far as its kind lets them be found.

    Raises:
        UnreadableError: it is not a zip archive, as its kind is.
    """
    count = _COUNTERS.get(kind)
    return count(data) if count else 0


def _in_files(data: bytes) -> int:
    names = [name.lower() for name in zip_names(data)]
    return sum(name.endswith(_PICTURES) for name in names if not name.startswith("docprops/"))


def _in_pdf(data: bytes) -> int:
    """Count the pictures of a PDF file; one that only says where another is transparent is none."""
    return max(0, _found(_PDF_PICTURE, data) - _found(_PDF_MASK, data))


def _found(pattern: re.Pattern[bytes], data: bytes) -> int:
    return sum(1 for _ in pattern.finditer(data))


_COUNTERS: dict[str, Callable[[bytes], int]] = {
    "pdf": _in_pdf,
    "rtf": lambda data: _found(_RTF_PICTURE, data),
    "html": lambda data: _found(_DATA_PICTURE, data),
    "ipynb": lambda data: _found(_NOTEBOOK_PICTURE, data),
    **dict.fromkeys(_OF_FILES, _in_files),
}
