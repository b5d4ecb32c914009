"""Turns documents into text with pages. Runs in the converter's process, which is confined."""

from __future__ import annotations

import csv
import io
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import kreuzberg

from rlm_mcp.service.documents.archives import (
    Member,
    Room,
    UnreadableError,
    count_images,
    is_encrypted_office,
    is_old_excel,
    mails_of,
    tables_of,
    tar_members,
    unpacked,
    zip_kind,
    zip_members,
)
from rlm_mcp.service.documents.kinds import kind_of, packed_coding

Pages = tuple[tuple[int, str], ...]

_OFFICE = "application/vnd.openxmlformats-officedocument"
_ODF = "application/vnd.oasis.opendocument"
_MIME_TYPES = {
    "pdf": "application/pdf",
    "docx": f"{_OFFICE}.wordprocessingml.document",
    "pptx": f"{_OFFICE}.presentationml.presentation",
    "xlsx": f"{_OFFICE}.spreadsheetml.sheet",
    "odt": f"{_ODF}.text",
    "ods": f"{_ODF}.spreadsheet",
    "odp": f"{_ODF}.presentation",
    "epub": "application/epub+zip",
    "rtf": "application/rtf",
    "html": "text/html",
    "eml": "message/rfc822",
    "ipynb": "application/x-ipynb+json",
    "doc": "application/msword",
    "xls": "application/vnd.ms-excel",
    "ppt": "application/vnd.ms-powerpoint",
    "msg": "application/vnd.ms-outlook",
}
_PAGED = {"pdf": "page", "pptx": "slide", "odp": "slide", "ppt": "slide"}
_SHEETS = ("xlsx", "xls", "ods")
# Mail keeps its header lines; paged kinds are split at marks, which Markdown would escape.
_PLAIN = ("eml", "msg", *_PAGED)
MAX_DEPTH = 2  # an archive within an archive is opened, one within that is not


@dataclass(frozen=True)
class Converted:
    """One document as text, or as the bytes of a text file from an archive.

    `name` is empty for the file itself, else its path within. `notes` say what was left out.
    """

    name: str
    data: bytes
    is_raw: bool = False
    pages: Pages = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class LeftOut:
    """A document that was not converted, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Within:
    """The archives that a document is in: how many, one in another, and what they may unpack to."""

    depth: int
    room: Room


def convert(
    name: str, kind: str, data: bytes, path: str = "", within: Within | None = None
) -> Iterator[Converted | LeftOut]:
    """Yield the texts of one document; an archive holds several.

    Args:
        name: the file's name, whose ending tells office files before 2007 apart.
        kind: as `kinds.kind_of` tells it.
        data: the file's bytes.
        path: its path within the archive it comes from; empty outside.
        within: the archives around it, if there are any.
    """
    try:
        if kind == "packed":
            data = unpacked(data, packed_coding(data))
            if within is not None:
                within.room.take(len(data))
            name = name.rpartition(".")[0]
            kind = kind_of(name, data[:8192])
        kind = zip_kind(data) if kind == "zip" else kind
        if kind in ("archive", "tar"):
            yield from _members(kind, data, path, within or Within(0, Room.of(data)))
        else:
            yield _read(name, kind, data, path)
    except UnreadableError as error:
        yield LeftOut(path, str(error))


def _members(kind: str, data: bytes, path: str, within: Within) -> Iterator[Converted | LeftOut]:
    if within.depth >= MAX_DEPTH:
        yield LeftOut(path, "an archive within archives")
        return
    members = zip_members if kind == "archive" else tar_members
    for member in members(data, within.room):
        yield from _member(member, f"{path}/{member.name}" if path else member.name, within)


def _member(member: Member, path: str, within: Within) -> Iterator[Converted | LeftOut]:
    if member.reason:
        yield LeftOut(path, member.reason)
        return
    kind = kind_of(member.name, member.data[:8192])
    if kind:
        inner = Within(within.depth + 1, within.room)
        yield from convert(member.name, kind, member.data, path, inner)
    else:
        yield Converted(path, member.data, is_raw=True)


def _read(name: str, kind: str, data: bytes, path: str) -> Converted:
    """Read one document.

    Raises:
        UnreadableError: it cannot be read, whatever its parser did.
    """
    try:
        return _one(name, kind, data, path)
    except (UnreadableError, KeyboardInterrupt, SystemExit):
        raise
    except MemoryError as error:
        raise UnreadableError("it needs more memory than a document may use") from error
    except BaseException as error:  # the panic of a parser in Rust is no `Exception`
        old = kind == "ole" and is_old_excel(data)
        reason = "an Excel 5 or 95 file that its parser cannot read: save it as .xlsx first"
        unknown = "its parser gave up: it is damaged, or of a version that the parser does not know"
        raise UnreadableError(reason if old else unknown) from error


def _one(name: str, kind: str, data: bytes, path: str) -> Converted:
    if kind == "sqlite":
        return _joined(path, ((label, _rows(rows)) for label, rows in tables_of(data)))
    if kind == "mbox":
        mails = (_mail(mail) for mail in mails_of(data))
        return _joined(path, ((f"mail {number}", text) for number, text in enumerate(mails, 1)))
    if kind == "ole":
        if is_encrypted_office(data):
            raise UnreadableError("encrypted")
        ending = name.lower().rpartition(".")[2]
        kind = ending if ending in _MIME_TYPES else "doc"
    return _document(kind, data, path)


def _document(kind: str, data: bytes, path: str) -> Converted:
    mark = f"{secrets.token_hex(8)}:"  # no document can hold it
    result = _extracted(kind, data, mark)
    notes = tuple(_notes(kind, data, result))
    if kind in _SHEETS:
        sheets = _sheets(result)
        converted = _joined(path, ((f"sheet {name}", _rows(rows)) for name, rows in sheets))
    elif kind in _PAGED:
        converted = _paged(path, _PAGED[kind], result.content, mark)
    else:
        converted = _with_page_breaks(path, result)
    if not converted.data.strip():
        raise UnreadableError(_why_empty(kind, converted))
    if kind == "pdf":
        notes += tuple(_blank(converted))
    return Converted(path, converted.data, pages=converted.pages, notes=notes)


def _extracted(kind: str, data: bytes, mark: str) -> Any:
    config = kreuzberg.ExtractionConfig(
        use_cache=False,
        enable_quality_processing=False,
        output_format="plain" if kind in _PLAIN else "markdown",
        concurrency=kreuzberg.ConcurrencyConfig(max_threads=1),
        content_filter=kreuzberg.ContentFilterConfig(
            include_headers=True,
            include_footers=True,
            strip_repeating_text=False,
            include_watermarks=True,
        ),
        pages=kreuzberg.PageConfig(
            extract_pages=True,
            insert_page_markers=kind in _PAGED,
            marker_format=f"\n{mark}{{page_num}}\n",
        ),
    )
    try:
        return kreuzberg.extract_bytes_sync(data, _MIME_TYPES[kind], config=config)
    except (kreuzberg.KreuzbergError, RuntimeError, ValueError, OSError) as error:
        words = " ".join(str(error).split())
        encrypted = "password" in words.lower() or "encrypt" in words.lower()
        raise UnreadableError("encrypted" if encrypted else f"damaged: {words[:200]}") from error


def _mail(data: bytes) -> str:
    try:
        return str(_extracted("eml", data, "").content)
    except UnreadableError:
        return data.decode("utf-8", "replace")


def _paged(path: str, unit: str, content: str, mark: str) -> Converted:
    """Cut at the marks, each of which begins a page."""
    parts = re.split(rf"\n*{mark}(\d+)\n*", content)
    pages = zip(parts[1::2], parts[2::2], strict=True)
    before = [("", parts[0])] if parts[0].strip() else []
    return _joined(path, [*before, *((f"{unit} {number}", text) for number, text in pages)])


def _with_page_breaks(path: str, result: Any) -> Converted:
    """Take the pages where they hold the whole text, else the text without pages."""
    pages: list[dict[str, Any]] = result.pages or []
    found = [(f"page {page['page_number']}", str(page["content"])) for page in pages]
    if len(found) > 1 and _letters(text for _, text in found) == _letters([result.content]):
        return _joined(path, found)
    return Converted(path, _plain(result.content).encode())


def _letters(texts: Iterable[str]) -> int:
    return sum(sum(map(str.isalnum, text)) for text in texts)


def _sheets(result: Any) -> Iterator[tuple[str, list[list[str]]]]:
    names = list(result.metadata.get("sheet_names") or [])
    for number, table in enumerate(result.tables):
        yield names[number] if number < len(names) else str(number + 1), table.cells


def _rows(rows: list[list[str]]) -> str:
    """Write rows as CSV, which any program parses; the only cell of a row as it is."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for row in rows:
        if len(row) == 1:
            out.write(f"{row[0]}\n")
        else:
            writer.writerow(row)
    return out.getvalue()


def _joined(path: str, parts: Iterable[tuple[str, str]]) -> Converted:
    """Join parts, and note where each begins; one without a label has no mark."""
    pages: list[tuple[int, str]] = []
    texts: list[str] = []
    at = 0
    for label, raw in parts:
        text = _plain(raw).strip("\n") + "\n\n"
        if label:
            pages.append((at, label))
        texts.append(text)
        at += len(text)
    joined = "".join(texts)
    return Converted(path, joined.encode("utf-8", "replace"), pages=tuple(pages))


def _plain(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\0", "").removeprefix("\ufeff")


def _notes(kind: str, data: bytes, result: Any) -> Iterator[str]:
    images = _counted(kind, data)
    if images:
        yield f"{images:,} {'picture was' if images == 1 else 'pictures were'} left out"
    attachments: list[str] = result.metadata.get("attachments") or []
    if attachments:
        yield "attachments were left out: " + ", ".join(attachments[:5])


def _counted(kind: str, data: bytes) -> int:
    counters: dict[str, Callable[[bytes], int]] = {"pdf": lambda pdf: pdf.count(b"/Subtype/Image")}
    zipped = dict.fromkeys(("docx", "pptx", "xlsx", "odt", "ods", "odp", "epub"), count_images)
    count = (counters | zipped).get(kind)
    return count(data) if count else 0


def _blank(converted: Converted) -> Iterator[str]:
    text = converted.data.decode()
    starts = [start for start, _ in converted.pages]
    ends = [*starts[1:], len(text)]
    blank = sum(not text[start:end].strip() for start, end in zip(starts, ends, strict=True))
    if blank:
        yield f"{blank:,} of {len(starts):,} pages hold no text (scanned or empty)"


def _why_empty(kind: str, converted: Converted) -> str:
    if kind == "pdf":
        return (
            f"its {len(converted.pages):,} pages hold no text: a scanned document, which needs "
            "OCR first"
        )
    return "it holds no text"
