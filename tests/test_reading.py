"""What each kind of document becomes, read in this process: text, pages, and what is left out."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import sqlite3
import stat
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import docx
import openpyxl
import pytest
from reportlab.pdfgen.canvas import Canvas  # pyright: ignore[reportMissingTypeStubs]

from rlm_mcp.service.documents import archives, child, databases, mailboxes
from rlm_mcp.service.documents.archives import Member, UnreadableError, tar_members, zip_members
from rlm_mcp.service.documents.frames import (
    BEGUN,
    DATA,
    DONE,
    ENDED,
    MAX_FRAME_BYTES,
    PIECE_BYTES,
    SMALL,
    FrameError,
    Small,
    read_exactly,
    read_frame,
    small_of,
)
from rlm_mcp.service.documents.kinds import kind_of
from rlm_mcp.service.documents.member_names import charset_of_names, name_of
from rlm_mcp.service.documents.pictures import count_pictures
from rlm_mcp.service.documents.reading import MAX_DEPTH, Converted, LeftOut, convert
from tests.document_samples import PAGES, WRITERS, mail, write_excel_5, write_ods


def converted(name: str, data: bytes) -> list[Converted | LeftOut]:
    return list(convert(name, kind_of(name, data[:8192]), data))


def sample(directory: Path, name: str) -> bytes:
    WRITERS[name](directory / name)
    return (directory / name).read_bytes()


def only(name: str, data: bytes) -> Converted:
    (one,) = converted(name, data)
    assert isinstance(one, Converted), one
    return one


def zipped(files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return packed.getvalue()


def tarred(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return packed.getvalue()


# --- kinds ---


@pytest.mark.parametrize(
    ("name", "words", "pages"),
    [
        ("report.pdf", "region 7 was 7000 euros.", [f"page {n + 1}" for n in range(PAGES)]),
        ("talk.pptx", "The point of slide 2", ["slide 1", "slide 2", "slide 3"]),
        ("book.xlsx", '"North, upper",1200', ["sheet Sales", "sheet Costs"]),
        ("minutes.docx", "The board met in a café.", ["page 1", "page 2"]),
        ("box.mbox", "The body of mail 3.", ["mail 1", "mail 2", "mail 3"]),
        ("people.db", "name,age\nAnn,41\nBob,\n", ["schema", "table people"]),
        ("mail.eml", "Mail 1 from the café", []),
        ("book.epub", "It was a dark night.", []),
        ("notebook.ipynb", "print(6 * 7)", []),
        ("page.html", "With **words**.", []),
        ("rich.rtf", "Rich **text**.", []),
        ("text.odt", "A paragraph of OpenDocument.", []),
    ],
)  # fmt: skip
def test_a_document_becomes_its_words_with_its_pages(
    tmp_path: Path, name: str, words: str, pages: list[str]
) -> None:
    one = only(name, sample(tmp_path, name))

    assert (one.name, one.is_raw) == ("", False)
    assert words in one.data.decode()
    assert [label for _, label in one.pages] == pages


def test_a_page_begins_where_its_place_says(tmp_path: Path) -> None:
    one = only("report.pdf", sample(tmp_path, "report.pdf"))
    text = one.data.decode()

    starts = [start for start, _ in one.pages]
    assert len(starts) > 1
    for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(text)], strict=True), 1):
        assert text[start:end].strip().startswith(f"The revenue of region {number} was")


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("scan.pdf", None, "its 2 pages hold no text: a scanned document, which needs OCR first"),
        ("broken.pdf", b"%PDF-1.7\n garbage", "damaged: "),
        ("empty.html", b"<p> </p>", "it holds no text"),
        ("broken.docx", b"PK\x03\x04 garbage", "damaged: "),
        ("broken.db", b"SQLite format 3\0 garbage", "damaged: "),
        ("broken.tar.gz", gzip.compress(b"no archive"), "damaged: "),
    ],
)
def test_a_document_that_gives_no_text_is_left_out_with_the_reason(
    tmp_path: Path, name: str, data: bytes | None, reason: str
) -> None:
    (left_out,) = converted(name, sample(tmp_path, name) if data is None else data)

    assert isinstance(left_out, LeftOut)
    assert left_out.reason.startswith(reason)


def test_pictures_and_attachments_that_are_left_out_are_named(tmp_path: Path) -> None:
    document: Any = docx.Document()
    document.add_paragraph("Words beside a picture.")
    document.save(tmp_path / "pictures.docx")
    with zipfile.ZipFile(tmp_path / "pictures.docx", "a") as archive:
        archive.writestr("word/media/one.png", b"")
    assert only("a.docx", (tmp_path / "pictures.docx").read_bytes()).notes == (
        "1 picture was left out",
    )
    with zipfile.ZipFile(tmp_path / "pictures.docx", "a") as archive:
        archive.writestr("word/media/two.JPEG", b"")
    assert only("a.docx", (tmp_path / "pictures.docx").read_bytes()).notes == (
        "2 pictures were left out",
    )
    assert only("mail.eml", bytes(mail(1))).notes == ("attachments were left out: notes.txt",)


def test_pages_without_text_are_counted(tmp_path: Path) -> None:
    canvas: Any = Canvas(str(tmp_path / "half.pdf"))
    canvas.drawString(72, 700, "The only page with words.")
    canvas.showPage()
    canvas.rect(100, 100, 200, 200, fill=1)
    canvas.showPage()
    canvas.save()

    assert only("half.pdf", (tmp_path / "half.pdf").read_bytes()).notes == (
        "1 of 2 pages hold no text (scanned or empty)",
    )


def test_a_mail_of_a_mailbox_that_cannot_be_parsed_is_shown_as_it_is() -> None:
    box = b"From a\nno header\n\n>From here on\n\nFrom b\nSubject: two\n\nThe second.\n"

    text = only("box.mbox", box).data.decode()

    assert "From here on" in text
    assert "The second." in text


def test_a_mailbox_of_one_line_holds_no_mail() -> None:
    assert list(mailboxes.mails_of(b"From a")) == []


def test_attachments_of_a_mailbox_are_counted(tmp_path: Path) -> None:
    (note,) = only("box.mbox", sample(tmp_path, "box.mbox")).notes

    assert note == "attachments were left out: notes.txt, notes.txt, notes.txt"


def test_an_old_office_file_is_known_by_what_it_holds() -> None:
    for name in ("sums.xls", "sums.doc", "standard input"):
        one = only(name, write_excel_5())
        assert [label for _, label in one.pages] == ["sheet Cost"]


def test_the_ending_of_an_old_office_file_says_what_it_is() -> None:
    ole = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1 garbage"

    for name in ("letter.doc", "sums.xls", "letter"):
        (left_out,) = converted(name, ole)
        assert isinstance(left_out, LeftOut)
        assert left_out.reason.startswith("damaged: ")


def test_values_of_a_table_are_told_as_text() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute('CREATE TABLE "odd ""name" (a, b)')
        long = "x" * (databases.MAX_CELL_CHARS + 1)
        rows = [(b"1234", None), (1.5, "two\nlines"), (long, "")]
        connection.executemany('INSERT INTO "odd ""name" VALUES (?, ?)', rows)
        connection.commit()
        data = connection.serialize()

    left_out: list[str] = []
    (_, schema), (label, rows) = databases.tables_of(data, left_out)

    assert schema == [['CREATE TABLE "odd ""name" (a, b);']]
    assert label == 'table odd "name'
    assert rows[:3] == [["a", "b"], ["<4 bytes>", ""], ["1.5", "two\nlines"]]
    assert rows[3] == ["x" * databases.MAX_CELL_CHARS + "...", ""]


def saved(directory: Path, *statements: str) -> bytes:
    with closing(sqlite3.connect(directory / "a.db")) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    return (directory / "a.db").read_bytes()


def test_a_database_with_a_write_ahead_log_is_read(tmp_path: Path) -> None:
    data = saved(
        tmp_path, "PRAGMA journal_mode=WAL", "CREATE TABLE a (b)", "INSERT INTO a VALUES (7)"
    )

    assert data[18:20] == b"\x02\x02"
    assert only("a.db", data).data.decode().endswith("b\n7\n\n")


def test_a_table_that_cannot_be_read_costs_the_others_nothing(tmp_path: Path) -> None:
    data = saved(
        tmp_path,
        "CREATE TABLE a (b)",
        "INSERT INTO a VALUES (CAST(x'4bf66c6e' AS TEXT)), ('Köln')",
        "CREATE VIRTUAL TABLE c USING fts5(d)",
        "CREATE TABLE e (f)",
    ).replace(b"USING fts5(d)", b"USING fts9(d)")

    one = only("a.db", data)

    assert "b\nK\ufffdln\nKöln\n" in one.data.decode()
    assert "table e" in [label for _, label in one.pages]
    assert one.notes == (
        "the table c cannot be read: no such module: fts9",
        "1 values are not UTF-8; their bytes became U+FFFD",
    )


def test_a_table_of_one_column_is_rows_that_a_program_reads(tmp_path: Path) -> None:
    values = ("Smith, John", 'said "no"', "two\nlines", "")
    rows = ", ".join(f"('{value}')" for value in values)
    data = saved(tmp_path, "CREATE TABLE a (b)", f"INSERT INTO a VALUES {rows}")

    one = only("a.db", data)

    (start,) = [start for start, label in one.pages if label == "table a"]
    table = csv.reader(io.StringIO(one.data.decode()[start:].rstrip("\n")))
    assert list(table) == [["b"], *([value] for value in values)]


def test_a_database_or_mailbox_without_anything_in_it_holds_no_text(tmp_path: Path) -> None:
    for name, data in (("a.db", saved(tmp_path, "PRAGMA user_version=1")), ("a.mbox", b"From a\n")):
        (left_out,) = converted(name, data)
        assert isinstance(left_out, LeftOut)
        assert left_out.reason.startswith("it holds no ")


def test_pictures_of_a_pdf_are_counted_without_their_masks() -> None:
    picture = b"<</Type /XObject /Subtype /Image /SMask 5 0 R>>"
    mask = b"<</Subtype/Image/ColorSpace/DeviceGray>>"

    assert count_pictures("pdf", picture + mask + b"<</Subtype/Image>> /Subtype/ImageX") == 2
    assert count_pictures("rtf", rb"{\rtf1 {\pict\pngblip 00} \picture}") == 1
    assert count_pictures("ipynb", b'{"image/png": "iVBOR", "text/plain": ""}') == 1
    assert count_pictures("html", b"<img>") == 0


def test_a_pdf_behind_a_byte_order_mark_or_an_empty_line_is_one(tmp_path: Path) -> None:
    data = sample(tmp_path, "report.pdf")

    for before in (b"\xef\xbb\xbf", b"\r\n", b"HTTP/1.1 200 OK\r\n\r\n"):
        assert len(only("report", before + data).pages) == PAGES


# --- archives ---


def test_an_archive_gives_its_documents_and_its_files_as_they_are(tmp_path: Path) -> None:
    found = converted("archive.zip", sample(tmp_path, "archive.zip"))

    assert all(isinstance(one, Converted) for one in found)
    told = {one.name: one for one in found if isinstance(one, Converted)}
    assert told["notes/one.txt"].data.decode("latin-1").startswith("Grüße aus Köln")
    assert [one.is_raw for one in told.values()] == [True, False, True]
    assert "The board met in a café." in told["minutes.docx"].data.decode()


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_a_tar_archive_is_read_however_it_is_compressed(compress: Callable[[bytes], bytes]) -> None:
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    folder = tarfile.TarInfo("folder")
    folder.type = tarfile.DIRTYPE
    data = compress(tarred((folder, b""), (tarfile.TarInfo("a.txt"), b"words"), (link, b"")))

    assert list(tar_members(data)) == [
        Member("a.txt", b"words"),
        Member("link", reason="not a regular file"),
    ]


@pytest.mark.parametrize("compress", [bz2.compress, lzma.compress])
def test_what_xz_and_bzip2_hold_is_told_once_it_is_unpacked(
    tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    info = tarfile.TarInfo("logs/a.log")
    pdf = sample(tmp_path, "report.pdf")
    binary = bytes(range(256))

    assert converted("syslog.2", compress(b"a line\n")) == [Converted("", b"a line\n", is_raw=True)]
    assert [one.name for one in converted("standard input", compress(tarred((info, b"x"))))] == [
        "logs/a.log"
    ]
    assert len(only("report.pdf.packed", compress(pdf)).pages) == PAGES
    assert converted("x", compress(binary)) == [Converted("", binary, is_raw=True)]
    assert converted("x", compress(compress(b"a"))) == [LeftOut("", "compressed more than once")]
    (broken,) = converted("x", compress(b"a line\n" * 9)[:-3])
    assert isinstance(broken, LeftOut)
    assert broken.reason.startswith("damaged")


@pytest.mark.parametrize("kind", ["xlsx", "ods"])
def test_sheets_without_anything_in_them_take_no_name_from_others(kind: str) -> None:
    packed = io.BytesIO()
    if kind == "xlsx":
        book: Any = openpyxl.Workbook()
        for name, value in (("A", None), ("B", "in b"), ("C", None), ("D", "in d")):
            book.create_sheet(name)["B2"] = value
        book.create_chartsheet("Chart")
        book.create_sheet("E")["A1"] = "in e"
        book.save(packed)
    else:
        write_ods(packed, {"A": "", "B": "in b", "C": "", "D": "in d", "E": "in e"})

    one = only(f"a.{kind}", packed.getvalue())

    text = one.data.decode()
    assert [label for _, label in one.pages] == ["sheet B", "sheet D", "sheet E"]
    for (start, label), end in zip(
        one.pages, [*[at for at, _ in one.pages[1:]], None], strict=True
    ):
        assert f"in {label[-1].lower()}" in text[start:end]


def test_a_text_that_shows_how_a_pdf_file_begins_is_a_text() -> None:
    assert kind_of("a.txt", "So beginnt sie:\n%PDF-1.7\nund öffnet sich.".encode()) == ""


def test_a_text_that_begins_like_a_compressed_file_is_a_text() -> None:
    assert kind_of("a.txt", b"BZh9 is how bzip2 begins") == ""


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("utf-8", "Müller/日本.txt"),
        ("cp437", "Müller, Straße, réponse/Übersicht.txt"),
        ("cp850", "ação/señor.txt"),
        ("cp437", "Ångström.txt"),
        ("cp932", "議事録/APIデータベース (1).txt"),
        ("cp932", "新しいテキスト ドキュメント.txt"),
        ("gbk", "新建文件夹/数据库说明.txt"),
        ("big5", "新增資料夾/資料庫說明.txt"),
        ("cp949", "새 폴더/데이터베이스.txt"),
        ("cp866", "Новая папка/Отчёт №1.txt"),
    ],
)
def test_names_in_an_archive_are_read_though_it_does_not_say_their_charset(
    charset: str, name: str
) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("x" * len(name.encode(charset)), "words")
        archive.writestr("日.txt", "words")  # which is marked as UTF-8
    data = packed.getvalue().replace(b"x" * len(name.encode(charset)), name.encode(charset))

    assert [one.name for one in converted("a.zip", data)] == [name, "日.txt"]


def test_a_name_that_a_field_of_the_archive_tells_is_taken_as_it_is() -> None:
    member = zipfile.ZipInfo("Привет.txt")
    member.orig_filename = "Привет.txt".encode("cp866").decode("cp437")

    assert name_of(member, charset_of_names([member])) == "Привет.txt"


def test_an_archive_within_archives_is_opened_to_a_depth() -> None:
    data = zipped({"words.txt": b"words"})
    for layer in range(MAX_DEPTH):
        data = zipped({f"layer{layer}.zip": data})

    assert converted("outer.zip", data) == [
        LeftOut("layer1.zip/layer0.zip", "an archive within archives")
    ]


def test_members_of_an_archive_that_cannot_be_read_are_left_out_by_name() -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.mkdir("folder") if hasattr(archive, "mkdir") else archive.writestr("folder/", b"")
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("locked.txt", b"secret")
        archive.writestr("broken.txt", b"these words are damaged")
        archive.writestr("fine.txt", b"words")
    data = packed.getvalue().replace(b"these words are", b"these WORDS are")
    flags = data.rindex(b"locked.txt") - 46 + 8  # of its entry in the central directory
    data = data[:flags] + b"\x01" + data[flags + 1 :]

    link_, locked, broken, fine = zip_members(data)

    assert link_ == Member("link", reason="a link, not followed")
    assert locked == Member("locked.txt", reason="encrypted")
    assert broken.reason.startswith("cannot be unpacked: Bad CRC-32")
    assert fine == Member("fine.txt", b"words")
    assert LeftOut("locked.txt", "encrypted") in converted("mixed.zip", data)


def test_an_archive_that_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = zipped({"one.txt": bytes(3000), "two.txt": bytes(3000)})
    tar = tarred((tarfile.TarInfo("one.txt"), bytes(3000)))

    monkeypatch.setattr(archives, "MAX_MEMBER_BYTES", 2000)
    assert [one.reason for one in zip_members(data)] == ["larger than 2,000 bytes"] * 2
    assert [one.reason for one in tar_members(tar)] == ["larger than 2,000 bytes"]
    monkeypatch.undo()

    monkeypatch.setattr(archives, "ALWAYS_ALLOWED_BYTES", 4000)
    monkeypatch.setattr(archives, "MAX_GROWTH", 2)
    with pytest.raises(UnreadableError, match="unpacks to more than 2 times its size"):
        list(zip_members(data))
    monkeypatch.undo()

    monkeypatch.setattr(archives, "MAX_MEMBERS", 1)
    with pytest.raises(UnreadableError, match="holds more than 1 files"):
        list(zip_members(data))


def test_a_zip_file_says_by_itself_which_book_it_is() -> None:
    assert archives.zip_kind(zipped({"mimetype": b"application/epub+zip"})) == "epub"
    assert archives.zip_kind(zipped({"mimetype": b"image/png"})) == "archive"
    assert archives.zip_kind(zipped({"mimetype": bytes(300)})) == "archive"


# --- what the process says ---


def test_a_long_document_is_told_in_pieces_that_make_it_up_again() -> None:
    pages = tuple((number, f"page {number}") for number in range(10_001))
    whole = Converted("a", b"x" * (PIECE_BYTES + 1), pages=pages, notes=("a note",))
    answers = io.BytesIO()

    telling = child.Telling(answers)
    telling.tell(whole)
    telling.tell(LeftOut("b", "damaged"))
    telling.end()

    frames = frames_of(answers)
    assert [kind for kind, _ in frames] == [b"B", b"D", b"D", b"E", b"E", b"E", b"S", b"F"]
    assert b"".join(body for kind, body in frames if kind == b"D") == whole.data
    ends = [cast("dict[str, Any]", json.loads(body)) for kind, body in frames if kind == b"E"]
    assert [tuple(page) for end in ends for page in end["pages"]] == list(pages)
    assert [(end["notes"], end["is_last"]) for end in ends] == [
        ([], False),
        ([], False),
        (["a note"], True),
    ]
    assert list(small_of(frames[-2][1])) == [Small("b", reason="damaged")]


def frames_of(answers: io.BytesIO) -> list[tuple[bytes, bytes]]:
    answers.seek(0)
    frames: list[tuple[bytes, bytes]] = []
    while not frames or frames[-1][0] != DONE:
        frames.append(read_frame(answers))
    return frames


def test_short_texts_go_many_in_a_frame_and_in_order() -> None:
    answers, count = io.BytesIO(), 3 * child.MAX_TOGETHER
    told: list[Converted | LeftOut] = [
        Converted(f"{number}.txt", b"Gr\xc3\xbc\xc3\x9fe", is_raw=True) for number in range(count)
    ]
    told[1] = LeftOut("1.txt", "encrypted")
    told[2] = Converted("2.txt", b"", is_raw=True)

    telling = child.Telling(answers)
    for one in told:
        telling.tell(one)
    telling.end()

    frames = frames_of(answers)
    assert [kind for kind, _ in frames] == [SMALL] * 3 + [DONE]
    small = [one for _, body in frames[:-1] for one in small_of(body)]
    assert [one.name for one in small] == [f"{number}.txt" for number in range(count)]
    assert small[:4] == [
        Small("0.txt", b"Gr\xc3\xbc\xc3\x9fe"),
        Small("1.txt", reason="encrypted"),
        Small("2.txt", reason="empty"),
        Small("3.txt", b"Gr\xc3\xbc\xc3\x9fe"),
    ]


@pytest.mark.parametrize(
    "data",
    [
        "Grüße".encode("latin-1"),
        "words".encode("utf-16"),
        b"\xef\xbb\xbfwords",
        b"one\rtwo\r",
        gzip.compress(b"words"),
        b"\0binary",
        b"x" * (child.MAX_TOGETHER_BYTES + 1),
    ],
)
def test_a_text_that_is_not_stored_as_it_is_or_is_long_goes_by_itself(data: bytes) -> None:
    answers = io.BytesIO()

    telling = child.Telling(answers)
    telling.tell(Converted("a.txt", data, is_raw=True))
    telling.end()

    assert [kind for kind, _ in frames_of(answers)] == [BEGUN, DATA, ENDED, DONE]


def test_what_came_before_a_document_is_sent_before_its_parser_begins() -> None:
    steps: list[str] = []
    data = zipped({"a.txt": b"words", "b.html": b"<p>words</p>", "c.txt": b"words"})

    found = convert("a.zip", "zip", data, before_parser=lambda: steps.append("sent"))
    while one := next(found, None):
        steps.append(one.name)

    assert steps == ["a.txt", "sent", "b.html", "c.txt"]


def test_a_stream_that_ends_or_says_no_frame_is_refused() -> None:
    with pytest.raises(FrameError, match="the stream ended"):
        read_exactly(io.BytesIO(b"ab"), 3)
    too_large = b"D" + (MAX_FRAME_BYTES + 1).to_bytes(4, "big")
    with pytest.raises(FrameError, match="a frame of 16,777,217 bytes"):
        read_frame(io.BytesIO(too_large))


def test_all_parsers_are_loaded_before_the_first_document(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TMPDIR", "TMP"):
        monkeypatch.setenv(name, "/nowhere")
    monkeypatch.setattr(child.tempfile, "tempdir", None)

    read: list[Converted | LeftOut] = []

    def note(*document: Any) -> list[Converted | LeftOut]:
        found = list(convert(*document))
        read.extend(found)
        return found

    monkeypatch.setattr(child, "convert", note)
    child.warm_up()

    assert {one.reason for one in read if isinstance(one, LeftOut)} == {
        "its 1 pages hold no text: a scanned document, which needs OCR first",
        "an archive without files",
    }
