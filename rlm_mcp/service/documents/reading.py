"""Turns documents into text with pages. Runs in the converter's process, which is confined."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import kreuzberg

from rlm_mcp.service.documents.amended import Amended
from rlm_mcp.service.documents.archives import (
    Room,
    UnreadableError,
    tar_members,
    unpacked,
    zip_kind,
    zip_members,
)
from rlm_mcp.service.documents.beside import notes_beside, parts_beside
from rlm_mcp.service.documents.converted import (
    Converted,
    LeftOut,
    attachments_note,
    csv_of,
    joined,
    lines_of,
    plain,
    replaced_note,
    with_parts,
)
from rlm_mcp.service.documents.databases import SCHEMA, tables_of
from rlm_mcp.service.documents.decoding import decoded, decoded_page
from rlm_mcp.service.documents.kinds import kind_of, packed_coding
from rlm_mcp.service.documents.mailboxes import mails_of
from rlm_mcp.service.documents.mails import Mail, read_mail
from rlm_mcp.service.documents.notebooks import NotANotebookError, notebook
from rlm_mcp.service.documents.ole import is_encrypted_office, is_old_excel, office_kind
from rlm_mcp.service.documents.pictures import count_pictures

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
    "ipynb": "application/x-ipynb+json",
    "doc": "application/msword",
    "xls": "application/vnd.ms-excel",
    "ppt": "application/vnd.ms-powerpoint",
    "msg": "application/vnd.ms-outlook",
}
_PAGED = {"pdf": "page", "pptx": "slide", "odp": "slide", "ppt": "slide"}
_SHEETS = ("xlsx", "xls", "ods")
# Mail keeps its header lines; paged kinds are split at marks, which Markdown would escape.
_PLAIN = ("msg", *_PAGED)
MAX_DEPTH = 2  # an archive within an archive is opened, one within that is not


@dataclass(frozen=True)
class Within:
    """The archives that a document is in: how many, one in another, and what they may unpack to."""

    depth: int
    room: Room


def _nothing() -> None:
    return


def convert(
    name: str,
    kind: str,
    data: bytes,
    path: str = "",
    within: Within | None = None,
    before_parser: Callable[[], None] = _nothing,
) -> Iterator[Converted | LeftOut]:
    """Yield the texts of one document; an archive holds several.

    Args:
        name: the file's name, whose ending tells office files before 2007 apart.
        kind: as `kinds.kind_of` tells it.
        data: the file's bytes.
        path: its path within the archive it comes from; empty outside.
        within: the archives around it, if there are any.
        before_parser: is called before a parser of documents begins, which may end this process.
    """
    try:
        if kind == "packed":
            data = unpacked(data, packed_coding(data))
            if within is not None:
                within.room.take(len(data))
            name = name.rpartition(".")[0] or name
            kind = kind_of(name, data[:8192])
        kind = zip_kind(data) if kind == "zip" else kind
        if kind == "packed":
            yield LeftOut(path, "compressed more than once")
        elif not kind:
            yield Converted(path, data, is_raw=True)
        elif kind in ("archive", "tar"):
            within = within or Within(0, Room.of(data))
            yield from _members(kind, data, path, within, before_parser)
        else:
            before_parser()
            yield _read(name, kind, data, path)
    except UnreadableError as error:
        yield LeftOut(path, str(error))


def _members(
    kind: str, data: bytes, path: str, within: Within, before_parser: Callable[[], None]
) -> Iterator[Converted | LeftOut]:
    if within.depth >= MAX_DEPTH:
        yield LeftOut(path, "an archive within archives")
        return
    members = zip_members if kind == "archive" else tar_members
    is_empty = True
    for member in members(data, within.room):
        is_empty = False
        inner_path = f"{path}/{member.name}" if path else member.name
        if member.reason:
            yield LeftOut(inner_path, member.reason)
            continue
        kind = kind_of(member.name, member.data[:8192])
        if kind:
            inner = Within(within.depth + 1, within.room)
            yield from convert(member.name, kind, member.data, inner_path, inner, before_parser)
        else:
            yield Converted(inner_path, member.data, is_raw=True)
    if is_empty:
        yield LeftOut(path, "an archive without files")


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
        return _database(data, path)
    if kind == "mbox":
        return _mailbox(data, path)
    if kind == "eml":
        return _of_mails(path, [_mail(data)], [""])
    if kind == "ole":
        if is_encrypted_office(data):
            raise UnreadableError("encrypted")
        found = office_kind(data, name.lower().rpartition(".")[2])
        kind = found if found in _MIME_TYPES else "doc"
    return _document(kind, data, path)


def _database(data: bytes, path: str) -> Converted:
    left_out: list[str] = []
    parts = (
        (label, lines_of(rows) if label == SCHEMA else csv_of(rows))
        for label, rows in tables_of(data, left_out)
    )
    converted = joined(path, parts)
    if not converted.data.strip():
        raise UnreadableError("it holds no table")
    return replace(converted, notes=tuple(left_out))


def _mailbox(data: bytes, path: str) -> Converted:
    mails = [_mail(mail) for mail in mails_of(data)]
    return _of_mails(path, mails, (f"mail {number}" for number in count(1)))


def _of_mails(path: str, mails: Sequence[Mail], labels: Iterable[str]) -> Converted:
    converted = joined(path, zip(labels, (mail.text for mail in mails), strict=False))
    if not converted.data.strip():
        raise UnreadableError("it holds no mail")
    attached = [name for mail in mails for name in mail.attachments]
    notes = (*attachments_note(attached), *replaced_note(converted))
    return replace(converted, notes=notes)


def _document(kind: str, data: bytes, path: str) -> Converted:
    mark, given = f"{secrets.token_hex(8)}:", data  # no document can hold it
    try:
        if kind == "html":
            given = data = decoded_page(data).encode("utf-8", "replace")
        elif kind == "ipynb":
            given = notebook(data, _page_text)
    except NotANotebookError as error:
        note = f"{error}, so it is not a notebook; it is stored as it is"
        return Converted(path, data, is_raw=True, notes=(note,))
    amended = Amended(kind, given)
    result = _extracted(kind, amended.data, mark)
    notes = tuple(_notes(kind, data, result))
    if kind in _SHEETS:
        sheets = _sheets(result)
        converted = joined(path, ((f"sheet {name}", csv_of(rows)) for name, rows in sheets))
    elif kind in _PAGED:
        converted = _paged(path, _PAGED[kind], result, mark)
    else:
        converted = _with_page_breaks(path, result, amended)
    converted = with_parts(converted, parts_beside(kind, data, converted.data.decode()))
    if not converted.data.strip():
        raise UnreadableError(_why_empty(kind, converted))
    if kind == "pdf":
        notes += tuple(_blank(converted))
    notes += tuple(replaced_note(converted))
    return Converted(path, converted.data, pages=converted.pages, notes=notes)


def _extracted(kind: str, data: bytes, mark: str) -> Any:
    config = kreuzberg.ExtractionConfig(
        use_cache=False,
        enable_quality_processing=False,
        output_format="plain" if kind in _PLAIN else "markdown",
        concurrency=kreuzberg.ConcurrencyConfig(max_threads=1),
        pdf_options=kreuzberg.PdfConfig(extract_annotations=True),
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


def _mail(data: bytes) -> Mail:
    """Read a mail; what cannot be parsed is shown as it is."""
    try:
        return read_mail(data, _page_text)
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException:  # noqa: BLE001  # also of a parser, which costs other mails nothing
        return Mail(decoded(data))


def _page_text(page: str) -> str:
    return str(_extracted("html", page.encode("utf-8", "replace"), "").content)


def _paged(path: str, unit: str, result: Any, mark: str) -> Converted:
    """Cut at the marks, each of which begins a page; what was noted on a page stands at its end."""
    parts = re.split(rf"\n*{mark}(\d+)\n*", result.content)
    notes: dict[str, str] = {}
    for one in result.annotations or ():
        if one.annotation_type != "link" and one.content:
            number = str(one.page_number)
            notes[number] = f"{notes.get(number, '')}\n\nNote: {one.content}"
    pages = zip(parts[1::2], parts[2::2], strict=True)
    labelled = ((f"{unit} {number}", text + notes.get(number, "")) for number, text in pages)
    before = [("", parts[0])] if parts[0].strip() else []
    return joined(path, [*before, *labelled])


def _with_page_breaks(path: str, result: Any, amended: Amended) -> Converted:
    """Take the pages where they hold the whole text, else the text without pages."""
    pages: list[dict[str, Any]] = result.pages or []
    whole = amended.text(result.content)
    found = [(f"page {page['page_number']}", amended.text(str(page["content"]))) for page in pages]
    if len(found) > 1 and _letters(text for _, text in found) == _letters([whole]):
        return joined(path, found)
    return Converted(path, plain(whole).encode())


def _letters(texts: Iterable[str]) -> int:
    return sum(sum(map(str.isalnum, text)) for text in texts)


def _sheets(result: Any) -> Iterator[tuple[str, list[list[str]]]]:
    names = list(result.metadata.get("sheet_names") or [])
    for table in result.tables:  # a sheet without anything in it has none
        number = table.page_number
        yield names[number - 1] if number <= len(names) else str(number), table.cells


def _notes(kind: str, data: bytes, result: Any) -> Iterator[str]:
    images = count_pictures(kind, data)
    if images:
        yield f"{images:,} {'picture was' if images == 1 else 'pictures were'} left out"
    yield from attachments_note(result.metadata.get("attachments") or ())
    yield from notes_beside(kind, data)


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
