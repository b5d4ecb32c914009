"""Documents of every kind that can be converted, made by the libraries that write them."""

from __future__ import annotations

import email.message
import io
import json
import mailbox
import sqlite3
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import docx
import openpyxl
from ebooklib import epub  # pyright: ignore[reportMissingTypeStubs]
from odf.opendocument import (  # pyright: ignore[reportMissingTypeStubs]
    OpenDocumentSpreadsheet,
    OpenDocumentText,
)
from odf.table import (  # pyright: ignore[reportMissingTypeStubs]
    Table,  # pyright: ignore[reportUnknownVariableType]
    TableCell,  # pyright: ignore[reportUnknownVariableType]
    TableRow,  # pyright: ignore[reportUnknownVariableType]
)
from odf.text import (  # pyright: ignore[reportMissingTypeStubs]
    P,  # pyright: ignore[reportUnknownVariableType]
)
from pptx import Presentation
from reportlab.pdfgen.canvas import Canvas  # pyright: ignore[reportMissingTypeStubs]

PAGES = 12


def write_pdf(path: Path, pages: int = PAGES) -> None:
    """A report whose page 7 says what page 7 says."""
    canvas: Any = Canvas(str(path))
    for number in range(1, pages + 1):
        canvas.drawString(72, 700, f"The revenue of region {number} was {number * 1000} euros.")
        canvas.showPage()
    canvas.save()


def write_scanned_pdf(path: Path) -> None:
    """Two pages that hold drawings and no text."""
    canvas: Any = Canvas(str(path))
    for _ in range(2):
        canvas.rect(100, 100, 200, 200, fill=1)
        canvas.showPage()
    canvas.save()


def write_docx(path: Path) -> None:
    document: Any = docx.Document()
    document.add_heading("Minutes", 1)
    document.add_paragraph("The board met in a café.")
    table = document.add_table(2, 2)
    for row, cells in enumerate((("name", "age"), ("Ann", "41"))):
        for column, text in enumerate(cells):
            table.cell(row, column).text = text
    document.add_page_break()
    document.add_paragraph("The second page says goodbye.")
    document.save(path)


def write_xlsx(path: Path) -> None:
    book: Any = openpyxl.Workbook()
    book.active.title = "Sales"
    for row in (["region", "amount"], ["North, upper", 1200], ["South", 3.5]):
        book.active.append(row)
    costs = book.create_sheet("Costs")
    for row in (["item", "cost"], ["rent", 77]):
        costs.append(row)
    book.save(path)


def write_pptx(path: Path) -> None:
    talk: Any = Presentation()
    for number in (1, 2, 3):
        slide = talk.slides.add_slide(talk.slide_layouts[1])
        slide.shapes.title.text = f"Slide {number}"
        slide.placeholders[1].text = f"The point of slide {number}"
    talk.save(path)


def write_odt(path: Path) -> None:
    document: Any = OpenDocumentText()
    document.text.addElement(cast("Any", P)(text="A paragraph of OpenDocument."))
    document.save(str(path))


def write_ods(path: Any, sheets: Mapping[str, str]) -> None:
    """A workbook with a value in each of some sheets, or none."""
    book: Any = OpenDocumentSpreadsheet()
    for name, value in sheets.items():
        sheet: Any = cast("Any", Table)(name=name)
        if value:
            row: Any = cast("Any", TableRow)()
            cell: Any = cast("Any", TableCell)(valuetype="string")
            cell.addElement(cast("Any", P)(text=value))
            row.addElement(cell)
            sheet.addElement(row)
        book.spreadsheet.addElement(sheet)
    book.save(path)


def write_epub(path: Path) -> None:
    book: Any = epub.EpubBook()
    book.set_identifier("a-book")
    book.set_title("A book")
    chapter: Any = epub.EpubHtml(title="One", file_name="one.xhtml")
    chapter.content = "<h1>Chapter one</h1><p>It was a dark night.</p>"
    book.add_item(chapter)
    book.spine = [chapter]
    book.add_item(epub.EpubNcx())
    epub.write_epub(str(path), book)  # pyright: ignore[reportUnknownMemberType]


def mail(number: int) -> email.message.EmailMessage:
    message = email.message.EmailMessage()
    message["From"] = "ann@example.org"
    message["Subject"] = f"Mail {number} from the café"
    message.set_content(f"The body of mail {number}.\n")
    message.add_attachment("attached", filename="notes.txt")
    return message


def write_mbox(path: Path) -> None:
    with closing(mailbox.mbox(path)) as box:
        for number in (1, 2, 3):
            box.add(mail(number))


def write_notebook(path: Path) -> None:
    cells: list[dict[str, Any]] = [
        {"cell_type": "markdown", "metadata": {}, "source": ["# A title\n", "Some words."]},
        {
            "cell_type": "code",
            "metadata": {},
            "execution_count": 1,
            "source": ["print(6 * 7)"],
            "outputs": [{"output_type": "stream", "name": "stdout", "text": ["42\n"]}],
        },
    ]
    whole: dict[str, Any] = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(whole))


def write_zip(path: Path) -> None:
    inner = io.BytesIO()
    write_docx(cast("Path", inner))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("notes/one.txt", "Grüße aus Köln".encode("latin-1") * 20)
        archive.writestr("minutes.docx", inner.getvalue())
        archive.writestr("logo.bin", bytes(range(256)))


def write_tar(path: Path) -> None:
    with tarfile.open(path, "w:gz") as archive:
        data = b"a line of a log\n"
        info = tarfile.TarInfo("logs/today.log")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))


def write_sqlite(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE people (name TEXT, age INTEGER)")
        connection.executemany("INSERT INTO people VALUES (?, ?)", [("Ann", 41), ("Bob", None)])


def write_excel_5(*, is_damaged: bool = False) -> bytes:
    """A workbook of one cell as Excel 5 stored it: BIFF5 records in an OLE container ([MS-CFB]).

    In a damaged one the only sheet begins behind the end.
    """

    def record(number: int, body: bytes = b"") -> bytes:
        return struct.pack("<HH", number, len(body)) + body

    def begin(kind: int) -> bytes:
        return record(0x0809, struct.pack("<HHHH", 0x0500, kind, 0, 1993))

    end = record(0x000A)
    cell = record(0x0204, struct.pack("<HHHH", 0, 0, 0, 5) + b"words")
    at = len(begin(5)) + len(record(0x0085, bytes(4 + 2 + 1 + 4))) + len(end)
    at = 1 << 20 if is_damaged else at
    sheet = record(0x0085, struct.pack("<IHB", at, 0, 4) + b"Cost")
    book = (begin(5) + sheet + end + begin(16) + cell + end).ljust(4096, b"\0")
    return _in_ole("Book", book)


def _in_ole(name: str, stream: bytes) -> bytes:
    """An OLE container with one stream of whole sectors."""
    free, last, table = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD
    header = bytes.fromhex("d0cf11e0a1b11ae1") + bytes(16)
    header += struct.pack("<HHHHH", 0x3E, 3, 0xFFFE, 9, 6) + bytes(6)
    header += struct.pack("<IIIIIIIII", 0, 1, 1, 0, 4096, last, 0, last, 0)
    header += struct.pack("<109I", 0, *[free] * 108)
    sectors = len(stream) // 512
    chain = [table, last, *range(3, sectors + 2), last]
    fat = struct.pack("<128I", *chain, *[free] * (128 - len(chain)))
    root = _ole_entry("Root Entry", 5, child=1, start=last, size=0)
    entries = root + _ole_entry(name, 2, child=free, start=2, size=len(stream)) + bytes(256)
    return header + fat + entries + stream


def _ole_entry(name: str, kind: int, *, child: int, start: int, size: int) -> bytes:
    encoded = name.encode("utf-16-le") + bytes(2)
    free = 0xFFFFFFFF
    entry = encoded.ljust(64, b"\0") + struct.pack(
        "<HBBIII", len(encoded), kind, 1, free, free, child
    )
    return (entry + bytes(36) + struct.pack("<IQ", start, size)).ljust(128, b"\0")


WRITERS: dict[str, Callable[[Path], object]] = {
    "archive.zip": write_zip,
    "book.epub": write_epub,
    "book.xlsx": write_xlsx,
    "box.mbox": write_mbox,
    "logs.tar.gz": write_tar,
    "mail.eml": lambda path: path.write_bytes(bytes(mail(1))),
    "minutes.docx": write_docx,
    "notebook.ipynb": write_notebook,
    "page.html": lambda path: path.write_text("<h1>A page</h1><p>With <b>words</b>.</p>"),
    "people.db": write_sqlite,
    "report.pdf": write_pdf,
    "rich.rtf": lambda path: path.write_text(r"{\rtf1\ansi Rich \b text\b0 .\par}"),
    "scan.pdf": write_scanned_pdf,
    "talk.pptx": write_pptx,
    "text.odt": write_odt,
}


def write_all(directory: Path) -> Path:
    """Write one document of each kind into a new directory."""
    directory.mkdir()
    for name, write in WRITERS.items():
        write(directory / name)
    return directory
