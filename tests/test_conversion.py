"""Documents that are no text, by path through the server: converted in a process of their own."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import lzma
import os
import re
import signal
import sqlite3
import sys
import time
import zipfile
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import closing
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from rlm_mcp.service.documents import kinds
from rlm_mcp.service.documents.converter import Converter, Ended, Said
from rlm_mcp.service.documents.frames import Small
from rlm_mcp.service.documents.kinds import kind_of
from tests.commands import environment, process
from tests.document_samples import PAGES, WRITERS, write_all, write_excel_5, write_pdf
from tests.http_serving import open_site
from tests.serving import Served, cell, open_served, turns

pytestmark = pytest.mark.usefixtures("one_sandbox_for_all")

ZSTD = import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")


@pytest.fixture
async def served(tmp_path: Path) -> AsyncGenerator[Served]:
    async with open_served(tmp_path, lambda _: "FINAL(done)") as served:
        yield served


@pytest.fixture
def converter() -> Iterator[Converter]:
    with closing(Converter(lambda: None)) as converter:
        yield converter


def said_of(converter: Converter, name: str, data: bytes) -> list[Said]:
    kind = kind_of(name, data[:8192])
    return list(converter.convert(name, kind, len(data), iter([data])))


async def text_of_document(served: Served, handle: str, document: int) -> str:
    read = await served.call("rlm_context_read", handle=handle, document=document, limit=50_000)
    return read["text"]


async def texts_of(served: Served, handle: str, documents: int) -> list[str]:
    return [await text_of_document(served, handle, index) for index in range(documents)]


async def test_a_directory_with_one_document_of_each_kind_goes_in(
    served: Served, tmp_path: Path
) -> None:
    added = await served.call("rlm_context_add", path=str(write_all(tmp_path / "all")))

    # The scan is left out, and the archive of three files holds two texts.
    assert added["documents"] == len(WRITERS)
    reasons = {one["path"]: one["reason"] for one in added["skipped"]}
    assert "scanned" in reasons["scan.pdf"]
    assert reasons["archive.zip/logo.bin"] == "binary"
    assert reasons["mail.eml"] == "attachments were left out: notes.txt"
    texts = "\0".join(await texts_of(served, added["handle"], added["documents"]))
    for words in (
        "Grüße aus Köln",
        "It was a dark night.",
        "a line of a log",
        "The body of mail 3.",
        "The board met in a café.",
        "print(6 * 7)",
        "With **words**.",
        "Ann,41",
        "region 7 was 7000 euros",
        "Rich **text**.",
        "The point of slide 2",
        "A paragraph of OpenDocument.",
    ):
        assert words in texts


@pytest.mark.parametrize(
    ("name", "pattern", "page"),
    [
        ("report.pdf", "region 7 was", "page 7"),
        ("book.xlsx", "rent", "sheet Costs"),
        ("talk.pptx", "point of slide 3", "slide 3"),
        ("box.mbox", "body of mail 2", "mail 2"),
        ("minutes.docx", "says goodbye", "page 2"),
        ("people.db", "Ann", "table people"),
    ],
)
async def test_what_is_found_is_told_with_its_page(
    served: Served, tmp_path: Path, name: str, pattern: str, page: str
) -> None:
    WRITERS[name](tmp_path / name)
    added = await served.call("rlm_context_add", path=str(tmp_path / name))
    found = await served.call(
        "rlm_context_search", handles=[added["handle"]], pattern=pattern, literal=True
    )
    assert [match["page"] for match in found["matches"]] == [page]


@pytest.mark.parametrize("compress", [gzip.compress, ZSTD.compress], ids=["gzip", "zstd"])
async def test_a_document_that_is_compressed_is_read_as_the_document(
    served: Served, tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    write_pdf(tmp_path / "report.pdf")
    packed = tmp_path / "report.pdf.packed"
    packed.write_bytes(compress((tmp_path / "report.pdf").read_bytes()))
    added = await served.call("rlm_context_add", path=str(packed))
    found = await served.call(
        "rlm_context_search", handles=[added["handle"]], pattern="region 7 was", literal=True
    )
    assert [(match["name"], match["page"]) for match in found["matches"]] == [
        ("report.pdf.packed", "page 7")
    ]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (gzip.compress(bytes(20_000))[:-9], "ends too early"),
        (gzip.compress(bytes(20_000))[:-8] + bytes(8), "not whole gzip"),
        (ZSTD.compress(bytes(20_000))[:-1], "ends too early"),
    ],
)
def test_a_compressed_document_that_is_damaged_is_left_out_with_the_reason(
    converter: Converter, data: bytes, reason: str
) -> None:
    [failed] = converter.convert("a.pdf.packed", "packed", len(data), iter([data]))

    assert isinstance(failed, Small)
    assert reason in failed.reason


def test_a_tar_archive_that_zstd_compressed_is_opened(converter: Converter, tmp_path: Path) -> None:
    WRITERS["logs.tar.gz"](tmp_path / "logs.tar.gz")
    plain = gzip.decompress((tmp_path / "logs.tar.gz").read_bytes())

    packed = said_of(converter, "archive.tar.zst", ZSTD.compress(plain))

    assert packed == said_of(converter, "archive.tar", plain)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.docx", "EncryptedPackage".encode("utf-16-le")),
        ("a.doc", bytes(512) + b"\xec\xa5" + bytes(9) + b"\x01"),
        ("a.ppt", b"\x14\0\0\0\xdf\xc4\xd1\xf3"),
    ],
)
def test_an_encrypted_office_file_is_left_out_as_such(
    converter: Converter, name: str, data: bytes
) -> None:
    ole = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"

    assert said_of(converter, name, (ole + bytes(504) + data).ljust(8192, b"\0")) == [
        Small("", reason="encrypted")
    ]


async def test_sheets_and_tables_are_rows_that_a_program_reads(
    served: Served, tmp_path: Path
) -> None:
    WRITERS["book.xlsx"](tmp_path / "book.xlsx")
    added = await served.call("rlm_context_add", path=str(tmp_path / "book.xlsx"))
    text = await text_of_document(served, added["handle"], 0)
    rows = list(csv.reader(io.StringIO(text.partition("\n\n")[0])))
    assert rows == [["region", "amount"], ["North, upper", "1200"], ["South", "3.5"]]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("scan.pdf", "scanned document, which needs OCR"), ("broken.pdf", "damaged")],
)
async def test_a_document_without_text_is_refused_by_name_and_reason(
    served: Served, tmp_path: Path, name: str, reason: str
) -> None:
    WRITERS.get(name, lambda path: path.write_bytes(b"%PDF-1.7\n garbage"))(tmp_path / name)
    error = await served.error("rlm_context_add", path=str(tmp_path / name))
    assert error["code"] == "not_text"
    assert name in error["message"]
    assert reason in error["message"]
    assert (await served.call("rlm_context_list"))["contexts"] == []


@pytest.fixture
def base_installation(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The extra `documents` is not installed."""

    def no_spec(name: str) -> None:
        del name

    monkeypatch.setattr(kinds, "find_spec", no_spec)
    kinds.is_installed.cache_clear()
    yield
    monkeypatch.undo()
    kinds.is_installed.cache_clear()


@pytest.mark.usefixtures("base_installation")
async def test_without_the_extra_a_document_says_what_to_install(tmp_path: Path) -> None:
    write_pdf(tmp_path / "report.pdf")
    async with (
        open_site(tmp_path, lambda _: "FINAL(done)") as site,
        site.open_http() as ann,
        site.open_client() as client,
    ):
        sent = await ann.put("/contexts/a", content=(tmp_path / "report.pdf").read_bytes())
        page = await ann.put("/contexts/a.html", content=b"<p>words</p>")
        read = await client.call("rlm_context_read", handle=page.json()["handle"])
    async with open_served(tmp_path, lambda _: "FINAL(done)") as served:
        by_path = await served.error("rlm_context_add", path=str(tmp_path / "report.pdf"))

    for error in (sent.json()["error"], by_path):
        assert error["code"] == "not_text"
        assert "a PDF file, which needs the extra `documents`" in error["message"]
        assert "pip install 'rlm-mcp[documents]'" in error["message"]
        assert re.fullmatch(
            r"Install it for the server, or convert .* to text first\.", error["fix"]
        )
    assert read["text"] == "<p>words</p>"


@pytest.mark.parametrize(
    ("system", "machine", "built_for", "has_wheel"),
    [
        ("linux", "x86_64", "x86_64-pc-linux-gnu", True),
        ("linux", "x86_64", "x86_64-alpine-linux-musl", False),
        ("linux", "riscv64", "riscv64-linux-gnu", False),
        ("darwin", "arm64", "arm-apple-darwin", True),
        ("darwin", "x86_64", "x86_64-apple-darwin", False),
        ("win32", "AMD64", "None", True),
    ],
)
def test_a_machine_without_a_wheel_of_the_extra_is_told_so(
    system: str, machine: str, built_for: str, has_wheel: bool
) -> None:
    said = kinds.how_to_install(system, machine, built_for)

    assert ("pip install" in said, "there is no wheel" in said) == (has_wheel, not has_wheel)


def test_a_document_that_needs_too_much_memory_costs_none_of_the_others(
    tmp_path: Path, converter: Converter
) -> None:
    # Each value is 900 MB, which are computed when they are read: more than the process may have.
    columns = ", ".join(f"b{number} AS (zeroblob(900000000 + a))" for number in range(4))
    with closing(sqlite3.connect(tmp_path / "trap.db")) as connection, connection:
        connection.execute(f"CREATE TABLE trap (a, {columns})")
        connection.execute("INSERT INTO trap VALUES (1)")
    [failed] = said_of(converter, "trap.db", (tmp_path / "trap.db").read_bytes())
    assert failed == Small("", reason="it needs more memory than a document may use")

    write_pdf(tmp_path / "next.pdf")
    *_, ended = said_of(converter, "next.pdf", (tmp_path / "next.pdf").read_bytes())
    assert isinstance(ended, Ended)
    assert len(ended.pages) == PAGES


@pytest.fixture(scope="module")
def slow_database() -> bytes:
    """An SQLite file that takes minutes to read, since a column is computed for each row."""
    rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 300000)"
    slow = "length(replace(hex(zeroblob(100000 + a % 2)), '00', '1'))"
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE trap (a)")
        connection.execute(f"{rows} INSERT INTO trap SELECT i FROM n")
        connection.execute(f"ALTER TABLE trap ADD COLUMN b AS ({slow})")
        connection.commit()
        return connection.serialize()


def test_a_document_that_takes_too_long_is_given_up(slow_database: bytes) -> None:
    with closing(Converter(lambda: None, seconds=2)) as converter:
        said = said_of(converter, "slow.db", slow_database)
    assert said == [Small("", reason="not converted within 2 s")]


def test_a_document_that_kills_its_parser_costs_none_of_the_others(
    slow_database: bytes, tmp_path: Path
) -> None:
    calls = 0

    def killing() -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            os.kill(process_of(converter), signal.SIGKILL)

    with closing(Converter(killing)) as converter:
        [failed] = said_of(converter, "slow.db", slow_database)
        write_pdf(tmp_path / "next.pdf")
        *_, ended = said_of(converter, "next.pdf", (tmp_path / "next.pdf").read_bytes())

    assert isinstance(failed, Small)
    assert failed.reason.startswith("its parser ended (signal 9)")
    assert isinstance(ended, Ended)


def test_texts_before_a_document_that_kills_its_parser_are_kept(slow_database: bytes) -> None:
    data = zipped({"a.txt": b"words", "b.txt": b"more words", "slow.db": slow_database})
    said: list[Said] = []

    with closing(Converter(lambda: None)) as converter:
        for one in converter.convert("a.zip", "zip", len(data), iter([data])):
            said.append(one)
            if one == Small("b.txt", b"more words"):
                os.kill(process_of(converter), signal.SIGKILL)

    assert said[:2] == [Small("a.txt", b"words"), Small("b.txt", b"more words")]
    assert isinstance(said[2], Small)
    assert said[2].reason.startswith("its parser ended (signal 9)")


def test_short_texts_of_an_archive_arrive_many_at_a_time() -> None:
    names, looks = [f"{number}.txt" for number in range(2000)], 0

    def look() -> None:  # for each frame, and five times a second while none comes
        nonlocal looks
        looks += 1

    with closing(Converter(look)) as converter:
        said = said_of(converter, "a.zip", zipped({name: name.encode() for name in names}))

    assert said == [Small(name, name.encode()) for name in names]
    assert looks < len(names)


def zipped(members: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return packed.getvalue()


def test_a_cancel_ends_a_conversion_and_its_process(slow_database: bytes) -> None:
    class CancelledError(Exception):
        pass

    class Check:
        calls = 0

        def __call__(self) -> None:
            self.calls += 1
            if self.calls == 4:
                raise CancelledError

    with closing(Converter(Check())) as converter:
        answers = converter.convert("slow.db", "sqlite", len(slow_database), iter([slow_database]))
        with pytest.raises(CancelledError):
            list(answers)
        assert converter._process is None  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize("layers", [3, 4])
def test_archives_within_archives_are_opened_to_a_depth(converter: Converter, layers: int) -> None:
    data = b"words"
    name = "words.txt"
    for layer in range(layers):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr(name, data)
        data, name = packed.getvalue(), f"{layer}.zip"
    said = said_of(converter, name, data)
    assert [type(one) for one in said] == [Small]
    assert "an archive within archives" in str(said)


def test_a_zip_bomb_is_left_out_and_the_server_holds_little_of_it(converter: Converter) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("good.txt", "words")
        for number in range(20):
            archive.writestr(f"{number}.txt", bytes(20_000_000))
    said = said_of(converter, "bomb.zip", packed.getvalue())
    assert Small("good.txt", b"words") in said
    assert said[-1] == Small("", reason="it unpacks to more than 250 times its size")


def test_an_encrypted_member_is_left_out_by_name(converter: Converter) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("secret.txt", "words")
    data = bytearray(packed.getvalue())
    for sign, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(sign) + offset] |= 1
    assert said_of(converter, "a.zip", bytes(data)) == [Small("secret.txt", reason="encrypted")]


def test_the_process_that_converts_opens_no_file_and_knows_no_environment(
    converter: Converter, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RLM_MCP_API_KEY", "canary-4711")
    write_pdf(tmp_path / "a.pdf")
    said_of(converter, "a.pdf", (tmp_path / "a.pdf").read_bytes())
    pid = process_of(converter)
    environment = Path(f"/proc/{pid}/environ").read_bytes()
    status = Path(f"/proc/{pid}/status").read_text()
    assert b"canary-4711" not in environment
    assert "Seccomp:\t2" in status
    opened = [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()]
    assert [path for path in opened if path.startswith("/") and path != "/dev/null"] == []


def test_one_process_converts_all_documents_of_a_directory(
    converter: Converter, tmp_path: Path
) -> None:
    write_pdf(tmp_path / "a.pdf")
    processes: set[int] = set()
    for name in ("a.pdf", "b.pdf", "c.pdf"):
        said_of(converter, name, (tmp_path / "a.pdf").read_bytes())
        processes.add(process_of(converter))

    assert len(processes) == 1


def test_the_process_outlives_the_thread_that_used_it_first(tmp_path: Path) -> None:
    write_pdf(tmp_path / "a.pdf")
    data = (tmp_path / "a.pdf").read_bytes()
    with closing(Converter(lambda: None)) as converter:
        thread = Thread(target=lambda: said_of(converter, "a.pdf", data))
        thread.start()
        place = Path(f"/proc/self/task/{thread.native_id}")
        thread.join()
        until = time.monotonic() + 60
        while place.exists() and time.monotonic() < until:
            time.sleep(0.01)  # the system ends a thread a little later than Python
        pid = process_of(converter)
        *_, ended = said_of(converter, "a.pdf", data)

        assert isinstance(ended, Ended)
        assert process_of(converter) == pid


def process_of(converter: Converter) -> int:
    process: Any = converter._process  # pyright: ignore[reportPrivateUsage]
    return process._popen.pid


async def test_a_document_that_is_sent_becomes_the_text_that_its_path_gives(
    tmp_path: Path,
) -> None:
    path = tmp_path / "report.pdf"
    write_pdf(path)
    data = path.read_bytes()
    async with (
        open_site(tmp_path, lambda _: "FINAL(done)") as site,
        site.open_http() as ann,
        site.open_client() as client,
    ):
        sent = await ann.put(
            "/contexts/report.pdf",
            content=data,
            headers={"X-Content-SHA256": hashlib.sha256(data).hexdigest()},
        )
        refused = await ann.put("/contexts/broken", content=b"%PDF-1.7\n garbage")
        found = await client.call(
            "rlm_context_search", handles=[sent.json()["handle"]], pattern="region 9 was"
        )
    assert [match["page"] for match in found["matches"]] == ["page 9"]
    assert refused.json()["error"]["code"] == "not_text", refused.text
    assert "damaged" in refused.text


@pytest.mark.parametrize(("coding", "compress"), [("gzip", gzip.compress), ("zstd", ZSTD.compress)])
async def test_a_document_that_is_sent_compressed_is_converted_too(
    tmp_path: Path, coding: str, compress: Callable[[bytes], bytes]
) -> None:
    write_pdf(tmp_path / "report.pdf")
    data = (tmp_path / "report.pdf").read_bytes()
    headers = {
        "Content-Encoding": coding,
        "X-Content-SHA256": hashlib.sha256(data).hexdigest(),
    }
    async with (
        open_site(tmp_path, lambda _: "FINAL(done)") as site,
        site.open_http() as ann,
        site.open_client() as client,
    ):
        sent = await ann.put("/contexts/report.pdf", content=compress(data), headers=headers)
        plain = await ann.put("/contexts/report.pdf", content=data)
        cut = await ann.put("/contexts/report.pdf", content=compress(data)[:-9], headers=headers)
        found = await client.call(
            "rlm_context_search", handles=[sent.json()["handle"]], pattern="region 9 was"
        )

    assert sent.json()["handle"] == plain.json()["handle"]
    assert [match["page"] for match in found["matches"]] == ["page 9"]
    assert cut.json()["error"]["code"] == "invalid_input", cut.text


async def test_a_document_is_the_same_by_path_by_put_and_on_standard_input(tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    write_pdf(files / "report.pdf")
    (files / "book.xls").write_bytes(write_excel_5())
    WRITERS["logs.tar.gz"](files / "logs")
    (files / "logs").write_bytes(lzma.compress(gzip.decompress((files / "logs").read_bytes())))
    given = environment(tmp_path)
    found: dict[str, set[str]] = {}
    async with open_site(tmp_path, lambda _: "FINAL(done)") as site, site.open_http() as ann:
        for path in files.iterdir():
            sent = await ann.put(f"/contexts/{path.name}", content=path.read_bytes())
            found[path.name] = {sent.json()["sha256"]}
    for name, hashes in found.items():
        for source in (str(files / name), "-"):
            data = (files / name).read_bytes()
            code, out, err = await process(given, "contexts", "add", source, "--json", given=data)
            assert code == 0, err
            hashes.add(json.loads(out)["sha256"])

    assert {name: len(hashes) for name, hashes in found.items()} == dict.fromkeys(found, 1)
    assert len(found) == 3


async def test_citations_name_the_page_sheet_slide_or_mail_of_each_kind(tmp_path: Path) -> None:
    cited = {
        "region 7 was 7000 euros": ("report.pdf", "page 7"),
        "rent,77": ("book.xlsx", "sheet Costs"),
        "The point of slide 3": ("talk.pptx", "slide 3"),
        "The body of mail 2.": ("box.mbox", "mail 2"),
        "The second page says goodbye.": ("archive.zip/minutes.docx", "page 2"),
        "Ann,41": ("people.db", "table people"),
        "It was a dark night.": ("book.epub", None),
        "a sentence that stands nowhere": (None, None),
    }
    script = turns(cell(f"FINAL('done', citations={list(cited)!r})"))
    async with open_served(tmp_path, script) as served:
        added = await served.call("rlm_context_add", path=str(write_all(tmp_path / "all")))
        run = await served.call("rlm_query", question="?", contexts=[added["handle"]])

    found = {one["quote"]: one for one in run["citations"]}
    assert {quote: (one["name"], one["page"]) for quote, one in found.items()} == cited
    unverified = [quote for quote, one in found.items() if not one["verified"]]
    assert unverified == ["a sentence that stands nowhere"]


async def test_an_archive_without_files_and_changes_beside_a_database_are_told(
    served: Served, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    with closing(sqlite3.connect(tmp_path / "a.db")) as database:
        database.execute("PRAGMA journal_mode = wal")
        database.execute("CREATE TABLE kept (word TEXT)")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.execute("INSERT INTO kept VALUES ('new')")
        database.commit()
        added = await served.call("rlm_context_add", path=str(tmp_path / "a.db"))
    error = await served.error("rlm_context_add", path=str(tmp_path / "empty.zip"))

    assert "an archive without files" in error["text"]
    assert added["skipped"] == [
        {
            "path": "a.db",
            "reason": "its newest changes, which stand in a.db-wal: close it first in the program "
            "that writes it",
        }
    ]
