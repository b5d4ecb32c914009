"""Finds what an office file holds beside its body: headers, notes, comments, boxes, charts.

The library that converts documents reads some of it, in some kinds. What is not among the words it
gave is added at the end, so that nothing is dropped untold. Runs in the converter's process.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from html import unescape
from io import BytesIO
from xml.parsers import expat

from rlm_mcp.service.documents.archives import DAMAGE

MAX_PART_BYTES = 64 << 20
_READ_BYTES = 1 << 20
_NOT_LETTERS = re.compile(r"[\W_]+")

# What each kind holds beside its body: the files, what they are called, and within which element
# their words stand, where it is not all of them.
_Where = tuple[re.Pattern[str], str, str]
_DOCX: tuple[_Where, ...] = (
    (re.compile(r"word/(?:header|footer)\d*\.xml"), "headers and footers", ""),
    (re.compile(r"word/document\.xml"), "text boxes", "txbxContent"),
    (re.compile(r"word/footnotes\.xml"), "footnotes", ""),
    (re.compile(r"word/endnotes\.xml"), "endnotes", ""),
    (re.compile(r"word/comments\.xml"), "comments", ""),
    (re.compile(r"word/(?:charts/chart|diagrams/data)\d*\.xml"), "charts and diagrams", ""),
)
_PPTX: tuple[_Where, ...] = (
    (re.compile(r"ppt/notesSlides/[^/]*\.xml"), "speaker notes", ""),
    (re.compile(r"ppt/comments/[^/]*\.xml"), "comments", ""),
    (re.compile(r"ppt/(?:charts/chart|diagrams/data)\d*\.xml"), "charts and diagrams", ""),
)
_XLSX: tuple[_Where, ...] = (
    (re.compile(r"xl/(?:comments\d*|comments/[^/]*|threadedComments/[^/]*)\.xml"), "comments", ""),
    (re.compile(r"xl/drawings/drawing\d*\.xml"), "text boxes", ""),
    (re.compile(r"xl/(?:charts/chart|diagrams/data)\d*\.xml"), "charts and diagrams", ""),
)
_ODF: tuple[_Where, ...] = (
    (re.compile(r"styles\.xml"), "headers and footers", "master-styles"),
    (re.compile(r"content\.xml"), "comments", "annotation"),
    (re.compile(r"content\.xml"), "footnotes", "note-body"),
    (re.compile(r"content\.xml"), "text boxes", "text-box"),
    (re.compile(r"content\.xml"), "speaker notes", "notes"),
)
_ODT: tuple[_Where, ...] = (*_ODF, (re.compile(r"content\.xml"), "lists", "list"))
_SHEET = re.compile(r"xl/worksheets/[^/]*\.xml")
_BESIDE = {
    "docx": _DOCX,
    "pptx": _PPTX,
    "xlsx": _XLSX,
    "odt": _ODT,
    **dict.fromkeys(("ods", "odp"), _ODF),
}
_PARAGRAPHS = frozenset(("p", "h", "comment", "cm", "threadedComment", "pt"))
_TEXTS = frozenset(("t", "text", "v"))
_BREAKS = frozenset(("tab", "br", "cr", "line-break", "s"))
# What stands in a file a second time, and what nobody sees.
_SKIPPED = frozenset(("Fallback", "delText", "instrText", "f", "formatCode"))
_ODF_SPACE = "urn:oasis:names:tc:opendocument:xmlns:"


_HEADER_OF_SHEET = re.compile(rb"<(?:odd|even|first)(?:Header|Footer)>([^<]+)<")
_CODES_OF_HEADER = re.compile(r'&(?:"[^"]*"|\d+|K[0-9A-F]{6}|[A-Z])')
_FORMULA_ALONE = re.compile(rb"<f\b(?:[^<>]*/>|[^<>]*>[^<]*</f>)\s*(?:<v\s*/>|<v>\s*</v>)?\s*</c>")
_END_OF_CELL = b"</c>"
_FORMULAS = ("formula without a stored result", "formulas without a stored result")
_FOUND_IN_FILE = {
    "pdf": ((re.compile(rb"/FT\s*/(?:Tx|Ch|Btn|Sig)\b"), ("form field", "form fields")),),
    "rtf": (
        (re.compile(rb"\\annotation\b"), ("comment", "comments")),
        (re.compile(rb"\\shptxt\b"), ("text box", "text boxes")),
    ),
}


def parts_beside(kind: str, data: bytes, text: str) -> Iterator[tuple[str, str]]:
    """Yield what a text lacks of an office file: what it is called, and its words.

    Args:
        kind: as `kinds.kind_of` tells it.
        data: the file.
        text: what was made of it.
    """
    missing: dict[str, dict[str, None]] = {}
    letters = ""
    for what, paragraph in _all_beside(kind, data):
        letters = letters or _letters(text)
        if _letters(paragraph) not in letters:
            missing.setdefault(what, {})[paragraph] = None
    for what, paragraphs in missing.items():
        yield what, "\n\n".join(paragraphs)


def notes_beside(kind: str, data: bytes) -> Iterator[str]:
    """Yield notes on what is left out of a document, as far as its kind lets it be found."""
    for pattern, names in _FOUND_IN_FILE.get(kind, ()):
        yield from _note(sum(1 for _ in pattern.finditer(data)), names)
    if kind == "xlsx":
        count = sum(len(_FORMULA_ALONE.findall(piece)) for piece in _sheets(data))
        yield from _note(count, _FORMULAS)


def _note(count: int, names: tuple[str, str]) -> Iterator[str]:
    if count:
        yield f"{count:,} {f'{names[0]} was' if count == 1 else f'{names[1]} were'} left out"


def _all_beside(kind: str, data: bytes) -> Iterator[tuple[str, str]]:
    wanted = _BESIDE.get(kind, ())
    if not wanted:
        return
    with zipfile.ZipFile(BytesIO(data)) as archive:
        for pattern, what, inside in wanted:
            for info in archive.infolist():
                if pattern.fullmatch(info.filename) and _mentions(archive, info, inside):
                    for paragraph in _paragraphs(archive, info, inside):
                        yield what, paragraph
    for piece in _sheets(data) if kind == "xlsx" else ():
        for found in _HEADER_OF_SHEET.findall(piece):
            words = unescape(found.decode("utf-8", "replace"))
            yield "headers and footers", _CODES_OF_HEADER.sub(" ", words).strip()


def _sheets(data: bytes) -> Iterator[bytes]:
    """Yield the sheets of a workbook in pieces that end behind a cell."""
    with zipfile.ZipFile(BytesIO(data)) as archive:
        for info in archive.infolist():
            if _SHEET.fullmatch(info.filename):
                rest = b""
                for piece in _pieces(archive, info):
                    rest += piece
                    cut = rest.rfind(_END_OF_CELL) + len(_END_OF_CELL)
                    if cut >= len(_END_OF_CELL):
                        yield rest[:cut]
                        rest = rest[cut:]
                yield rest


def _mentions(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> bool:
    """Whether a file holds a name, where one is wanted: most have no text boxes."""
    sought, before = name.encode(), b""
    for piece in _pieces(archive, info) if name else ():
        if sought in before + piece:
            return True
        before = piece[-len(sought) :]
    return not name


def _pieces(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yield a file of an archive, so far as it is whole; the other parser reports the damage."""
    left = MAX_PART_BYTES
    try:
        with archive.open(info) as file:
            while left > 0 and (piece := file.read(_READ_BYTES)):
                left -= len(piece)
                yield piece
    except DAMAGE:
        return


def _letters(text: str) -> str:
    return _NOT_LETTERS.sub("", text)


def _paragraphs(archive: zipfile.ZipFile, info: zipfile.ZipInfo, inside: str) -> list[str]:
    found = _Paragraphs(inside)
    with suppress(ValueError, expat.ExpatError):
        for piece in _pieces(archive, info):
            found.feed(piece)
    return found.paragraphs


class _Paragraphs:
    """Takes the paragraphs out of XML as it comes; no entity is resolved."""

    def __init__(self, inside: str) -> None:
        self.paragraphs: list[str] = []
        self._inside = inside
        self._depth = 0
        self._skipped = 0
        self._open: list[list[str]] = []
        self._texts: list[bool] = []
        self._parser = parser = expat.ParserCreate(namespace_separator=" ")
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.EntityDeclHandler = _refuse_entities
        parser.buffer_text = True

    def feed(self, piece: bytes) -> None:
        """Take in more of the file.

        Raises:
            expat.ExpatError: it is not XML.
            ValueError: it declares entities, which may expand to any size.
        """
        self._parser.Parse(piece)

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        del attributes
        space, _, local = name.rpartition(" ")
        self._depth += local == self._inside
        self._skipped += local in _SKIPPED
        if local in _PARAGRAPHS:
            self._open.append([])
        elif local in _BREAKS and self._open:
            self._open[-1].append(" ")
        # In OpenDocument all of a paragraph is text.
        is_text = local in _TEXTS or space.startswith(_ODF_SPACE)
        self._texts.append(is_text and not self._skipped)

    def _end(self, name: str) -> None:
        local = name.rpartition(" ")[2]
        self._texts.pop()
        self._skipped -= local in _SKIPPED
        if local in _PARAGRAPHS:
            text = " ".join("".join(self._open.pop()).split())
            if text and (self._depth or not self._inside):
                self.paragraphs.append(text)
        self._depth -= local == self._inside

    def _characters(self, data: str) -> None:
        if self._open and self._texts[-1]:
            self._open[-1].append(data)


def _refuse_entities(*declared: object) -> None:
    raise ValueError(declared)
