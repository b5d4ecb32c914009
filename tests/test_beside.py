"""What documents hold beside their body is read, or told as left out; notebooks of any format."""

from __future__ import annotations

import datetime
import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any, cast

import docx
import openpyxl
import pytest
from docx.oxml import parse_xml
from odf.office import (  # pyright: ignore[reportMissingTypeStubs]
    Annotation,  # pyright: ignore[reportUnknownVariableType]
)
from odf.opendocument import OpenDocumentText  # pyright: ignore[reportMissingTypeStubs]
from odf.style import (  # pyright: ignore[reportMissingTypeStubs]
    Footer,  # pyright: ignore[reportUnknownVariableType]
    Header,  # pyright: ignore[reportUnknownVariableType]
    MasterPage,  # pyright: ignore[reportUnknownVariableType]
    PageLayout,  # pyright: ignore[reportUnknownVariableType]
)
from odf.text import (  # pyright: ignore[reportMissingTypeStubs]
    P,  # pyright: ignore[reportUnknownVariableType]
)
from openpyxl.comments import Comment
from pptx import Presentation
from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE
from reportlab.pdfgen.canvas import Canvas  # pyright: ignore[reportMissingTypeStubs]

from rlm_mcp.service.documents.converted import Converted, with_parts
from rlm_mcp.service.documents.kinds import kind_of
from rlm_mcp.service.documents.reading import convert

_WORD = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
_ODT, _EPUB = "application/vnd.oasis.opendocument.text", "application/epub+zip"
_SLIDES = 'xmlns:p="http://schemas.openxmlformats.org/presentationml/2006/main"'


def only(name: str, data: bytes) -> Converted:
    (one,) = convert(name, kind_of(name, data[:8192]), data)
    assert isinstance(one, Converted), one
    return one


def zipped(**files: str) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return written.getvalue()


def by_page(one: Converted) -> dict[str, str]:
    text = one.data.decode()
    ends = [*[start for start, _ in one.pages[1:]], len(text)]
    return {
        label: text[start:end].strip() for (start, label), end in zip(one.pages, ends, strict=True)
    }


def saved(document: Any) -> bytes:
    written = io.BytesIO()
    document.save(written)
    return written.getvalue()


def with_files(data: bytes, files: Mapping[str, str]) -> bytes:
    written = io.BytesIO(data)
    with zipfile.ZipFile(written, "a") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return written.getvalue()


def test_headers_footers_boxes_notes_and_comments_of_a_docx_are_read() -> None:
    document: Any = docx.Document()
    paragraph = document.add_paragraph("The body.")
    document.sections[0].header.paragraphs[0].text = "Confidential draft"
    document.sections[0].footer.paragraphs[0].text = "Page of the board"
    document.add_comment(paragraph.runs, text="Who said so?", author="Ann")
    box = (
        f"<w:r {_WORD}><w:drawing><w:txbxContent><w:p><w:r><w:t>Words in a box</w:t></w:r></w:p>"
        "</w:txbxContent></w:drawing></w:r>"
    )
    paragraph._p.append(parse_xml(box))
    notes = (
        "<w:{0}s {1}><w:{0} w:id='2'><w:p><w:r><w:t>Words of a {0}</w:t></w:r>"
        "<w:r><w:delText>gone</w:delText></w:r></w:p></w:{0}></w:{0}s>"
    )
    files = {f"word/{what}s.xml": notes.format(what, _WORD) for what in ("footnote", "endnote")}

    found = by_page(only("a.docx", with_files(saved(document), files)))

    top = "Headers and footers:\n\nConfidential draft\n\nPage of the board"
    assert found == {
        "headers and footers": top,
        "text boxes": "Text boxes:\n\nWords in a box",
        "footnotes": "Footnotes:\n\nWords of a footnote",
        "endnotes": "Endnotes:\n\nWords of a endnote",
        "comments": "Comments:\n\nWho said so?",
    }


def test_what_the_body_holds_already_is_not_added_again() -> None:
    document: Any = docx.Document()
    document.add_paragraph("Confidential: draft, of the board.")
    document.sections[0].header.paragraphs[0].text = "Confidential draft"

    assert only("a.docx", saved(document)).pages == ()


def test_notes_comments_charts_and_hidden_slides_of_a_pptx_are_read() -> None:
    talk: Any = Presentation()
    for title in ("First", "Second"):
        talk.slides.add_slide(talk.slide_layouts[5]).shapes.title.text = title
    first, second = talk.slides
    second._element.set("show", "0")
    first.notes_slide.notes_text_frame.text = "Say it slowly."
    figures: Any = CategoryChartData()
    figures.categories = ["North"]
    figures.add_series("Revenue", (1200,))
    first.shapes.add_chart(XL_CHART_TYPE.PIE, 0, 0, 99, 99, figures)
    comment = f"<p:cmLst {_SLIDES}><p:cm><p:text>Too long</p:text></p:cm></p:cmLst>"

    found = by_page(only("a.pptx", with_files(saved(talk), {"ppt/comments/comment1.xml": comment})))

    assert "Say it slowly." in found["slide 1"]
    assert found["slide 2"] == "Second"
    assert found["comments"] == "Comments:\n\nToo long"
    for word in ("North", "Revenue", "1200"):
        assert word in found["charts and diagrams"]


def test_an_xlsx_is_read_with_hidden_sheets_and_comments_and_tells_lost_formulas() -> None:
    book: Any = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Main"
    sheet["A1"], sheet["B1"], sheet["C1"] = "item", "=SUM(1,2)", '="a"&"b"'
    sheet["A1"].comment = Comment("ask Bob", "Ann")
    sheet.merge_cells("A2:C2")
    sheet["A2"], sheet["A3"] = "over three", datetime.date(2026, 5, 6)
    sheet.oddHeader.center.text = "Sums and more"
    hidden = book.create_sheet("Hidden")
    hidden["A1"], hidden.sheet_state = "in a hidden sheet", "hidden"

    one = only("a.xlsx", saved(book))

    found = by_page(one)
    assert found["sheet Main"].splitlines()[:2] == ["item", "over three"]
    assert found["sheet Hidden"] == "in a hidden sheet"
    assert found["comments"] == "Comments:\n\nask Bob"
    assert found["headers and footers"] == "Headers and footers:\n\nSums and more"
    assert one.notes == ("2 formulas without a stored result were left out",)


def test_headers_footers_and_comments_of_an_odt_are_read() -> None:
    document: Any = OpenDocumentText()
    layout: Any = cast("Any", PageLayout)(name="layout")
    document.automaticstyles.addElement(layout)
    master: Any = cast("Any", MasterPage)(name="Standard", pagelayoutname=layout)
    document.masterstyles.addElement(master)
    for kind, text in ((cast("Any", Header), "At the top"), (cast("Any", Footer), "At the end")):
        part: Any = kind()
        part.addElement(cast("Any", P)(text=text))
        master.addElement(part)
    paragraph: Any = cast("Any", P)(text="The body.")
    comment: Any = cast("Any", Annotation)()
    comment.addElement(cast("Any", P)(text="Is it so?"))
    paragraph.addElement(comment)
    document.text.addElement(paragraph)

    found = by_page(only("a.odt", saved(document)))

    assert found["headers and footers"] == "Headers and footers:\n\nAt the top\n\nAt the end"
    assert found["comments"] == "Comments:\n\nIs it so?"


def test_notes_on_pages_of_a_pdf_are_read_and_form_fields_are_told() -> None:
    written = io.BytesIO()
    canvas: Any = Canvas(written)
    for number in (1, 2):
        canvas.drawString(72, 700, f"Words of page {number}.")
        canvas.textAnnotation(f"Note on page {number}", (72, 300, 90, 320))
        canvas.linkURL("https://example.org/", (72, 200, 90, 220))
        canvas.acroForm.textfield(name=f"f{number}", value="typed", x=72, y=600, width=99, height=9)
        canvas.showPage()
    canvas.save()

    one = only("a.pdf", written.getvalue())

    assert by_page(one) == {
        f"page {number}": f"Words of page {number}.\n\nNote: Note on page {number}"
        for number in (1, 2)
    }
    assert one.notes == ("2 form fields were left out",)


def test_characters_that_rtf_writes_as_two_numbers_are_read() -> None:
    data = rb"{\rtf1\ansi\uc1 a\u55357?\u56832?b \u-10179?\u-8704?. {\uc0\u55357 \u56841 c}\par}"

    assert only("a.rtf", data).data.decode().strip() == "a\U0001f600b \U0001f600. \U0001f609c"


def test_words_of_an_odt_stay_apart_and_lists_in_its_tables_are_read() -> None:
    cell = "<text:p>one</text:p><text:p>two</text:p>"
    items = "".join(f"<text:list-item><text:p>{name}</text:p></text:list-item>" for name in "xy")
    row = "".join(
        f"<table:table-cell>{content}</table:table-cell>"
        for content in (cell, f"<text:list>{items}</text:list>")
    )
    names = "".join(
        f' xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"'
        for name in ("office", "text", "table")
    )
    content = (
        f"<office:document-content{names}><office:body><office:text>"
        "<text:p>a<text:s/>b<text:tab/>c</text:p>"
        f"<table:table><table:table-row>{row}</table:table-row></table:table>"
        "</office:text></office:body></office:document-content>"
    )

    text = only("a.odt", zipped(mimetype=_ODT, **{"content.xml": content})).data.decode()

    assert "a b\tc" in text
    assert "| one two |" in text
    assert text.endswith("Lists:\n\nx\n\ny\n")


def test_a_chapter_of_a_book_whose_name_has_a_space_is_read() -> None:
    container = (
        '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container" version="1.0">'
        '<rootfiles><rootfile full-path="a.opf" media-type="application/oebps-package+xml"/>'
        "</rootfiles></container>"
    )
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf" version="3.0"><metadata/><manifest>'
        '<item id="a" href="chapter%20one.xhtml" media-type="application/xhtml+xml"/></manifest>'
        '<spine><itemref idref="a"/></spine></package>'
    )
    chapter = '<html xmlns="http://www.w3.org/1999/xhtml"><body><p>It began.</p></body></html>'
    files = {
        "META-INF/container.xml": container,
        "a.opf": package,
        "chapter one.xhtml": chapter,
    }

    assert "It began." in only("a.epub", zipped(mimetype=_EPUB, **files)).data.decode()


def test_what_an_rtf_file_holds_beside_its_body_is_told() -> None:
    data = rb"{\rtf1 words{\*\annotation a}{\shp{\*\shpinst{\shptxt b}}}{\shp{\shptxt c}}\par}"

    assert only("a.rtf", data).notes == ("1 comment was left out", "2 text boxes were left out")


@pytest.mark.parametrize(
    "part",
    [
        f"<w:comments {_WORD}><w:p><w:t>cut",
        "<!DOCTYPE a [<!ENTITY b 'c'>]><p><t>&b;</t></p>",
        "no XML",
    ],
)
def test_a_part_that_is_damaged_or_declares_entities_costs_the_body_nothing(part: str) -> None:
    document: Any = docx.Document()
    document.add_paragraph("The body.")

    one = only("a.docx", with_files(saved(document), {"word/comments.xml": part}))

    assert one.data.decode().strip() == "The body."


def test_a_part_begins_where_its_page_says() -> None:
    body = Converted("", "Grüße\n\n\n".encode(), pages=((0, "page 1"),))

    one = with_parts(body, [("comments", "one"), ("footnotes", "two")])

    assert by_page(one) == {
        "page 1": "Grüße",
        "comments": "Comments:\n\none",
        "footnotes": "Footnotes:\n\ntwo",
    }
    assert with_parts(Converted("", b""), [("comments", "one")]).pages == ((0, "comments"),)


# --- notebooks ---


def shown(**forms: Any) -> dict[str, Any]:
    data = {name.replace("_", "/"): value for name, value in forms.items()}
    return {"output_type": "display_data", "metadata": {}, "data": data}


def test_every_result_of_a_notebook_is_read_in_its_plainest_form() -> None:
    lines = ["\x1b[31mline 1\x1b[0m", "E: v"]
    outputs: list[dict[str, Any]] = [
        shown(text_plain=["plain"], text_html="<b>no</b>"),
        shown(text_html="<p>a page</p>"),
        shown(text_latex="$x^2$", image_png="iVBOR"),
        shown(application_json={"k": 1}),
        {"output_type": "error", "ename": "E", "evalue": "v", "traceback": lines},
    ]
    cell = {"cell_type": "code", "source": ["1 +\n", "1"], "outputs": outputs}

    one = only("a.ipynb", json.dumps({"nbformat": 4, "cells": [cell]}).encode())

    words = " ".join(one.data.decode().split())
    assert words == '``` 1 + 1 ``` plain a page $x^2$ {"k": 1} line 1 E: v'
    assert one.notes == ("1 picture was left out",)


def test_a_notebook_of_format_3_is_read() -> None:
    cells: list[dict[str, Any]] = [
        {"cell_type": "heading", "level": 2, "source": ["A heading"]},
        {"cell_type": "markdown", "source": "Some words."},
        {
            "cell_type": "code",
            "input": ["print(6 * 7)"],
            "outputs": [
                {"output_type": "stream", "stream": "stdout", "text": ["42\n"]},
                {"output_type": "pyout", "text": ["43"], "html": ["<b>43</b>"]},
                {"output_type": "pyerr", "ename": "E", "evalue": "v", "traceback": []},
            ],
        },
    ]
    more = [{"cell_type": "raw", "source": "The second sheet."}]
    whole = {"nbformat": 3, "worksheets": [{"cells": cells}, {"cells": more}]}

    one = only("a.ipynb", json.dumps(whole).encode())

    words = " ".join(one.data.decode().split())
    assert words == "## A heading Some words. ``` print(6 * 7) ``` 42 43 E: v The second sheet."


def test_cells_of_a_notebook_that_are_malformed_cost_nothing() -> None:
    cells: list[Any] = [
        {"cell_type": "markdown"},
        "a text",
        None,
        7,
        {"source": {"a": ["b"]}},
        {"cell_type": "heading", "level": "x", "source": "top"},
        {"cell_type": "code", "source": "code", "outputs": None},
        {"cell_type": "code", "outputs": ["loose", {"data": 3}, {"traceback": 1}]},
    ]

    one = only("a.ipynb", json.dumps({"cells": cells}).encode())

    for words in ("a text", "7", '{"a": ["b"]}', "# top", "code", "loose"):
        assert words in one.data.decode()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"cells": [', "it is not JSON"),
        (b"<<<<<<< HEAD", "it is not JSON"),
        (b"[" * 100_000, "it is not JSON"),
        (b"[1]", "it has no cells"),
        (b'{"cells": {}}', "it has no cells"),
        (b'{"worksheets": [1, {}]}', "it has no cells"),
    ],
)
def test_what_is_no_notebook_is_stored_as_the_text_that_it_is(data: bytes, reason: str) -> None:
    one = only("a.ipynb", data)

    assert (one.data, one.is_raw) == (data, True)
    assert one.notes == (f"{reason}, so it is not a notebook; it is stored as it is",)
