"""Files made to do harm, and files that change: nothing else is lost, and the reasons are told."""

from __future__ import annotations

import gzip
import io
import random
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from reportlab.lib.pdfencrypt import (  # pyright: ignore[reportMissingTypeStubs]
    StandardEncryption,
)
from reportlab.pdfgen.canvas import Canvas  # pyright: ignore[reportMissingTypeStubs]

from rlm_mcp.errors import InvalidInputError
from rlm_mcp.service.contexts.file_text import Piece, read_batches
from rlm_mcp.service.contexts.files import FoundFiles, find_files
from rlm_mcp.service.contexts.paths import AllowedPaths
from rlm_mcp.service.documents import archives
from rlm_mcp.service.documents.archives import MAX_MEMBER_NAME_CHARS
from rlm_mcp.service.documents.converter import Begun, Converter, Ended
from rlm_mcp.service.documents.frames import (
    DATA,
    DONE,
    MAX_FRAME_BYTES,
    FrameError,
    FrameReader,
    Small,
    write_frame,
)
from rlm_mcp.service.documents.kinds import kind_of
from rlm_mcp.service.documents.reading import Converted, LeftOut, convert
from tests.document_samples import write_excel_5

WORDS = b"words of a text\n"


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return packed.getvalue()


def tarred(members: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", errors="surrogateescape") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return packed.getvalue()


def read(name: str, data: bytes) -> list[Converted | LeftOut]:
    return list(convert(name, kind_of(name, data[:8192]), data))


def test_names_within_an_archive_are_labels_and_harm_nothing(tmp_path: Path) -> None:
    names = ["/etc/passwd", "../../up.txt", "a\x1b]52;c;x\x07.txt", "two\nlines.txt", "ü.txt"]
    texts = {name: WORDS + name.encode() for name in names}
    wild = {b"\xff\xfe.txt".decode("utf-8", "surrogateescape"): WORDS, "/abs/" + "x" * 3000: WORDS}
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "a.zip").write_bytes(zipped(texts))
    (tmp_path / "all" / "b.tar").write_bytes(tarred(texts | wild))
    (tmp_path / "all" / "c.txt").write_bytes(WORDS)
    pieces = pieces_of(found_in(tmp_path / "all"), tmp_path)
    found = [piece.name or "" for piece in pieces if piece.name is not None]

    plain = ["etc/passwd", "../../up.txt", "a?]52;c;x?.txt", "two?lines.txt", "ü.txt"]
    assert found[:5] == [f"a.zip/{name}" for name in plain]
    assert found[5:10] == [f"b.tar/{name}" for name in plain]
    assert found[10] == "b.tar/??.txt"
    assert found[11].startswith("b.tar/abs/xxx")
    assert len(found[11]) <= MAX_MEMBER_NAME_CHARS + len("b.tar/")
    assert found[12:] == ["c.txt"]
    assert [piece.left_out for piece in pieces if piece.left_out] == []


def test_a_name_of_many_megabytes_is_cut(converter: Converter) -> None:
    said = said_of(converter, "a.tar.gz", gzip.compress(tarred({"n" * (20 << 20): WORDS}), 1))

    [small] = said
    assert (len(small.name), small.data) == (MAX_MEMBER_NAME_CHARS, WORDS)


def test_an_archive_with_too_many_names_gives_the_first_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 10)
    for name, pack in (("a.zip", zipped), ("a.tar", tarred)):
        found = read(name, pack({f"{number}.txt": WORDS for number in range(30)}))

        assert [one.name for one in found[:-1]] == [f"{number}.txt" for number in range(10)]
        assert found[-1] == LeftOut("", "it holds more than 10 files")


def test_archives_within_an_archive_unpack_to_no_more_than_it_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(archives, "ALWAYS_ALLOWED_BYTES", 100_000)
    monkeypatch.setattr(archives, "MAX_GROWTH", 1)
    inner = zipped({"much.txt": b"a" * 60_000})

    found = read("a.zip", zipped({"first.txt": WORDS, **{f"{n}.zip": inner for n in range(9)}}))

    assert [one.name for one in found[:2]] == ["first.txt", "0.zip/much.txt"]
    why = "it unpacks to more than 1 times its size"
    assert found[2:] == [LeftOut(f"{number}.zip", why) for number in range(1, 9)]


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_member_costs_the_others_nothing(method: int) -> None:
    dice = random.Random(method)
    damaged = bytes(dice.randrange(32, 127) for _ in range(3000))
    data = bytearray(zipped({"a.txt": WORDS, "damaged.txt": damaged, "z.txt": WORDS}, method))
    start = data.index(b"damaged.txt") + len("damaged.txt")
    data[start : start + 1500] = bytes(dice.randrange(256) for _ in range(1500))

    found = read("a.zip", bytes(data))

    assert [one.name for one in found] == ["a.txt", "damaged.txt", "z.txt"]
    assert isinstance(found[1], LeftOut)
    assert found[1].reason.startswith("cannot be unpacked: ")


@pytest.fixture
def converter() -> Iterator[Converter]:
    with closing(Converter(lambda: None)) as converter:
        yield converter


def said_of(converter: Converter, name: str, data: bytes) -> list[Any]:
    kind = kind_of(name, data[:8192])
    return list(converter.convert(name, kind, len(data), iter([data])))


def test_a_pdf_with_a_password_is_left_out_as_encrypted(
    converter: Converter, tmp_path: Path
) -> None:
    locked, readable = tmp_path / "locked.pdf", tmp_path / "readable.pdf"
    for path, user in ((locked, "secret"), (readable, "")):
        rules = StandardEncryption(user, ownerPassword="owner", strength=128)
        canvas: Any = Canvas(str(path), encrypt=rules)
        canvas.drawString(72, 700, "Words behind a password.")
        canvas.save()

    assert said_of(converter, "locked.pdf", locked.read_bytes()) == [Small("", reason="encrypted")]
    # It restricts printing alone, and any reader shows it.
    assert b"Words behind" in b"".join(
        one for one in said_of(converter, "a.pdf", readable.read_bytes()) if isinstance(one, bytes)
    )


def test_a_parser_that_panics_costs_an_archive_nothing_else_and_says_what_to_do(
    converter: Converter,
) -> None:
    books = {"a.xls": write_excel_5(is_damaged=True), "b.xls": write_excel_5(), "c.txt": WORDS}

    said = said_of(converter, "books.zip", zipped(books))

    assert said[0] == Small(
        "a.xls", reason="an Excel 5 or 95 file that its parser cannot read: save it as .xlsx first"
    )
    assert [one.name for one in said if isinstance(one, Begun)] == ["b.xls"]
    assert said[-1] == Small("c.txt", WORDS)
    assert Ended(((0, "sheet Cost"),), ()) in said


def test_one_file_that_is_damaged_behind_its_beginning_costs_a_directory_nothing_else(
    tmp_path: Path,
) -> None:
    dice = random.Random(1)
    lines = "".join(f"line {dice.random()} of a log\n" for _ in range(4000)).encode()
    whole = gzip.compress(lines)
    (tmp_path / "logs").mkdir()
    for name, data in (("a.log", WORDS), ("b.log.gz", whole[:-2000]), ("c.log.gz", whole)):
        (tmp_path / "logs" / name).write_bytes(data)

    pieces = pieces_of(found_in(tmp_path / "logs"), tmp_path)

    names = [piece.name for piece in pieces if piece.name is not None]
    assert names == ["a.log", "b.log.gz", "c.log.gz"]
    [[(name, reason)]] = [piece.left_out for piece in pieces if piece.left_out]
    assert (name, reason[:40]) == ("b.log.gz", "its rest cannot be read: The bytes are n")
    with pytest.raises(InvalidInputError, match="ends too early"):
        pieces_of(found_in(tmp_path / "logs" / "b.log.gz"), tmp_path)


def test_a_file_that_is_gone_when_it_is_read_costs_the_others_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(WORDS)
    (tmp_path / "c.txt").write_bytes(WORDS)
    found = FoundFiles(tuple((name, tmp_path / name) for name in ("a.txt", "b.txt", "c.txt")))

    pieces = pieces_of(found, tmp_path)

    assert [piece.name for piece in pieces] == ["a.txt", None, "c.txt"]
    assert pieces[1].left_out == (("b.txt", "cannot be read: No such file or directory"),)


@pytest.mark.parametrize("name", ["a.log", "a.zip"])
def test_a_file_that_grows_while_it_is_read_is_read_to_its_size_at_the_start(
    tmp_path: Path, name: str
) -> None:
    line = b"a line of a log that a program still writes\n"
    begin = line * 100_000
    path = tmp_path / name
    path.write_bytes(zipped({"a.log": begin}, zipfile.ZIP_STORED) if name == "a.zip" else begin)
    size = path.stat().st_size
    batches = read_batches(
        FoundFiles(((name, path),), is_single=True), AllowedPaths.chosen([tmp_path])
    )

    read = [next(batches)]
    with path.open("ab") as file:
        file.write(line * 100_000)
    read += batches

    data = b"".join(piece.data for batch in read for piece in batch)
    assert (path.stat().st_size > size, data) == (True, begin)


def found_in(path: Path) -> FoundFiles:
    return find_files(str(path), AllowedPaths.chosen([path.parent]))


def pieces_of(found: FoundFiles, directory: Path) -> list[Piece]:
    batches = read_batches(found, AllowedPaths.chosen([directory]))
    return [piece for batch in batches for piece in batch]


@pytest.mark.parametrize("size", [1, 4, 7, 100_000])
def test_frames_come_whole_however_their_bytes_arrive(size: int) -> None:
    sent, stream = [(DATA, b"words"), (DATA, b"x" * 70_000), (DONE, b"")], io.BytesIO()
    for kind, body in sent:
        write_frame(stream, kind, body)
    data, reader = stream.getvalue(), FrameReader()

    arrived = [reader.feed(data[start : start + size]) for start in range(0, len(data), size)]

    assert [frame for frames in arrived for frame in frames] == sent
    with pytest.raises(FrameError, match="ended"):
        reader.feed(b"")


def test_a_frame_that_says_it_is_endless_is_refused_before_it_arrives() -> None:
    with pytest.raises(FrameError, match="frame of"):
        FrameReader().feed(DATA + (MAX_FRAME_BYTES + 1).to_bytes(4, "big"))
