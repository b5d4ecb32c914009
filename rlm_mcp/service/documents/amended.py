"""Amends files that the library reads less of than they hold. Runs in the converter's process."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from urllib.parse import quote

from rlm_mcp.service.documents.archives import DAMAGE, MAX_MEMBER_BYTES

# A character beyond the first 65,536 is two numbers in RTF, with or without a sign, each followed
# by what older programs show instead. The library drops both.
_PAIR = re.compile(
    rb"\\u(?P<high>-?\d{4,5})(?P<instead> ?(?:\\'[0-9a-fA-F]{2}|[^\\{}\s])?\s?)"
    rb"\\u(?P<low>-?\d{4,5})"
)
_FIRST_STAND_IN, _STAND_INS, _NOTHING = 0xE000, 0x1000, 0xF8FE  # characters for private use
_WRITTEN_TAB = "&#9;"  # as the library writes a tab where it writes Markdown
_BOOK_LIST = ".opf"
_ODT_CONTENT = "content.xml"
# Spaces that the library drops, and the end of a paragraph that it joins with the next in a cell.
_ODT_SPACE = re.compile(
    rb"(?<=[^\s>])<text:s\b[^<>]*>|(?<=[^\s>])(?=</text:[ph]>\s*<text:(?:[ph]|list)\b)"
)

_Files = Mapping[str, bytes]


class Amended:
    """A file as the library reads the whole of it, and what its text has to be amended by.

    Attributes:
        data: the file.
    """

    def __init__(self, kind: str, data: bytes) -> None:
        self._stands_for: dict[int, str] = {}
        self.data = data
        if kind == "rtf":
            self.data = _PAIR.sub(self._with_stand_in, data)
        elif kind == "epub":
            self.data = _amended_zip(data, _as_linked)
        elif kind == "odt":
            self.data = _amended_zip(data, _spaced)

    def text(self, text: str) -> str:
        """Return a text that the library made, with what its stand-ins stand for."""
        return text.translate(self._stands_for).replace(_WRITTEN_TAB, "\t")

    def _with_stand_in(self, pair: re.Match[bytes]) -> bytes:
        high, low = (int(pair[name]) & 0xFFFF for name in ("high", "low"))
        is_pair = 0xD800 <= high < 0xDC00 <= low < 0xE000
        number = _FIRST_STAND_IN + len(self._stands_for)
        if not is_pair or number >= _FIRST_STAND_IN + _STAND_INS:
            return pair[0]
        char = chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))
        known = {one: at for at, one in self._stands_for.items()}
        number = known.get(char, number)
        self._stands_for |= {number: char, _NOTHING: ""}
        return b"\\u%d%b\\u%d" % (number, pair["instead"], _NOTHING)


def _amended_zip(data: bytes, amend: Callable[[_Files], _Files]) -> bytes:
    """Return an archive whose files were amended; as it is where none were, or it is damaged."""
    with suppress(*DAMAGE), zipfile.ZipFile(io.BytesIO(data)) as archive:  # the library reports it
        members = archive.infolist()
        if sum(info.file_size for info in members) > MAX_MEMBER_BYTES:
            return data
        files = {info.filename: archive.read(info) for info in members}
        amended = amend(files)
        if amended == files:
            return data
        written = io.BytesIO()
        with zipfile.ZipFile(written, "w") as copy:
            for name, content in amended.items():
                copy.writestr(name, content)
        return written.getvalue()
    return data


def _as_linked(files: _Files) -> _Files:
    """Name a book's chapters as its list of them writes their addresses.

    There a space is `%20`, and the library passes over a chapter that it does not find.
    """
    lists = b"".join(content for name, content in files.items() if name.endswith(_BOOK_LIST))
    linked = {name for name in files if quote(name.rpartition("/")[2]).encode() in lists}
    return {quote(name) if name in linked else name: files[name] for name in files}


def _spaced(files: _Files) -> _Files:
    """Write spaces between words of an ODT as such."""
    content = files.get(_ODT_CONTENT, b"")
    return {**files, _ODT_CONTENT: _ODT_SPACE.sub(b" ", content)}
