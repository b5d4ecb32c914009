"""One way for all bytes to become text: split anywhere, by path, by PUT and on standard input."""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from rlm_mcp.errors import InvalidInputError
from rlm_mcp.service.contexts.parts import PartsReader
from rlm_mcp.service.contexts.text_reader import (
    MIN_HOLE_BYTES,
    TextReader,
    is_stored_as_it_is,
    peek,
    read_inline,
)
from rlm_mcp.store.contexts.contexts import Contexts
from rlm_mcp.store.database import DATABASE_NAME, open_database
from tests.commands import environment, process
from tests.http_serving import open_site
from tests.serving import open_served, settings_in, turns

ZSTD = import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
GERMAN = "Größe über alles, äöü.\n" * 200


def read(data: bytes, size: int, **given: Any) -> tuple[str, TextReader]:
    reader = TextReader(**given)
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    text = b"".join(piece for part in parts for piece in reader.feed(part))
    return (text + b"".join(reader.end())).decode(), reader


@pytest.mark.parametrize("size", [1, 3, 1000, 1 << 20])
@pytest.mark.parametrize(
    "data",
    [
        GERMAN.encode(),
        gzip.compress(GERMAN.encode()),
        ZSTD.compress(GERMAN.encode()),
        gzip.compress(GERMAN.encode("cp1252")),
        GERMAN.encode("utf-16"),
        bytes(5000) + GERMAN.encode(),
        gzip.compress(bytes(5000) + GERMAN.encode()),
    ],
    ids=["utf-8", "gzip", "zstd", "gzip of cp1252", "utf-16", "hole", "gzip with a hole"],
)
def test_bytes_become_the_same_text_however_they_are_split(data: bytes, size: int) -> None:
    assert read(data, size)[0] == GERMAN


LATE_LINE_FEED = "row\r" * 3000 + "\nend\n"


@pytest.mark.parametrize(
    ("data", "is_so"),
    [
        (b"", True),
        (b"a", True),
        (GERMAN.encode(), True),
        (GERMAN.encode() * 100, True),
        (b"dos\r\nlines\r\n", True),
        (b"progress 10%\rprogress 20%\n", True),
        (b"mac\rlines\r", False),
        (LATE_LINE_FEED.encode(), False),
        (b"\xef\xbb\xbf" + GERMAN.encode(), False),
        (GERMAN.encode("utf-16"), False),
        (GERMAN.encode("cp1252"), False),
        (GERMAN.encode()[:3], False),  # it ends in the middle of a character
        ("日本語\n".encode("iso2022_jp"), False),
        (b"a\0b", False),
        (bytes(5000) + b"log\n", False),
        (gzip.compress(b"log\n"), False),
        (ZSTD.compress(b"log\n"), False),
    ],
)
def test_what_is_stored_without_being_read_is_what_reading_would_not_change(
    data: bytes, is_so: bool
) -> None:
    assert is_stored_as_it_is(data) is is_so
    if is_so:
        text, reader = read(data, 1 << 20)
        assert text.encode() == data
        assert (reader.charset, reader.replaced, reader.hole_bytes) == ("utf-8", 0, 0)


@pytest.mark.parametrize("size", [1, 1000, 1 << 20])
def test_lines_that_end_with_cr_alone_are_known_by_the_beginning_however_it_is_split(
    size: int,
) -> None:
    meant = LATE_LINE_FEED.replace("\r\n", "\n").replace("\r", "\n")

    assert read(LATE_LINE_FEED.encode(), size)[0] == meant


def test_a_hole_at_the_start_is_left_out_and_counted_and_a_few_nuls_are_not() -> None:
    _, holed = read(bytes(MIN_HOLE_BYTES) + b"text", 100)
    few, none = read(b"\0\0text", 100)

    assert (holed.hole_bytes, none.hole_bytes, few) == (MIN_HOLE_BYTES, 0, "\0\0text")


def test_compressed_bytes_that_end_too_early_are_refused_and_a_look_at_them_is_not() -> None:
    data = gzip.compress(GERMAN.encode())[:-9]

    assert peek(data, 20) == GERMAN.encode()[:20]
    with pytest.raises(InvalidInputError, match="ends too early"):
        read(data, 100)


async def test_the_same_bytes_are_the_same_text_by_path_put_and_standard_input(
    tmp_path: Path,
) -> None:
    late_nul = b"Jan 1 host kernel: fine\n" * 1000 + b"\0" * 512 + b"Jan 2 host kernel: fine\n"
    cases = {
        "utf-16": GERMAN.encode("utf-16"),
        "cp1252": GERMAN.encode("cp1252"),
        "late NULs": late_nul,
        "gzip": gzip.compress(GERMAN.encode()),
        "hole": bytes(5000) + b"started\n" * 100,
    }
    async with (
        open_served(tmp_path, turns("never")) as served,
        open_site(tmp_path / "site", turns("never")) as site,
        site.open_http() as http,
    ):
        env = environment(tmp_path, served.model.base_url)
        for name, data in cases.items():
            file = tmp_path / "text"
            file.write_bytes(data)
            by_path = await served.call("rlm_context_add", path=str(file))
            code, out, _ = await process(env, "contexts", "add", "-", "--json", given=data)
            assert (code, json.loads(out)["handle"]) == (0, by_path["handle"]), name
            sent = await http.put("/contexts/text", content=data)
            assert (sent.status_code, sent.json()["handle"]) == (201, by_path["handle"]), name


def test_nothing_but_nuls_takes_no_memory_at_its_end() -> None:
    reader = TextReader()
    for _ in range(64):
        assert not b"".join(reader.feed(bytes(1 << 20)))
    assert len(b"".join(reader.end())) <= MIN_HOLE_BYTES


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_lines_that_end_with_a_carriage_return_alone_become_lines(size: int) -> None:
    rows = [f"row {number},ü" for number in range(2000)]

    assert read("\r".join(rows).encode(), size)[0] == "\n".join(rows)
    assert read("\r".join(rows[:3]).encode("cp1252"), size)[0] == "\n".join(rows[:3])


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize("text", ["dos\r\nlines\r\n" * 2000, "10%\r20%\rdone\nnext\n" * 999])
def test_other_line_ends_stay_as_they_are(text: str, size: int) -> None:
    assert read(text.encode(), size)[0] == text


async def test_inline_text_is_stored_as_a_file_with_it_and_what_is_left_out_is_counted(
    tmp_path: Path,
) -> None:
    text = "\0" * 5000 + "row\r" * 999
    (tmp_path / "a.log").write_bytes(text.encode())
    async with open_served(tmp_path, turns("FINAL(never asked)")) as served:
        by_path = await served.call("rlm_context_add", path=str(tmp_path / "a.log"))
        inline = await served.call("rlm_context_add", text=text)
        several = await served.call("rlm_context_add", documents=[text, "b\n"])

    assert inline["sha256"] == by_path["sha256"]
    reason = "NUL bytes at its start were left out"
    for added in (by_path, inline, several):
        assert (added["skipped_total"], added["skipped_reasons"]) == (1, {reason: 1})
    assert several["chars"] == inline["chars"] + 2


def utf_16_units(text: str) -> list[str]:
    """The characters as a program has them that counts in UTF-16: some are half of one."""
    data = text.encode("utf-16-le")
    return [chr(int.from_bytes(data[at : at + 2], "little")) for at in range(0, len(data), 2)]


@pytest.mark.parametrize("size", [1, 2, 7, 999, 5000])
@pytest.mark.parametrize(
    "text",
    [
        "one \U0001f600 two \U0001f680\U0001f681 three\n" * 200,
        "\0" * 5000 + "started\n" * 300,
        "\0\0a few NULs are text\n",
        "\0" * 5000,
        "row\r" * 3000,
        "\r",
        "10%\r20%\rdone\nnext\n" * 300,
        "\ufeffa mark at the start is dropped by whoever cuts\n",
        "ü",
    ],
)
def test_a_text_in_parts_is_read_as_a_whole_one_wherever_it_is_cut(text: str, size: int) -> None:
    units, state, data = utf_16_units(text), "", b""
    for start in range(0, len(units), size):
        parts = PartsReader(state)
        data += parts.read("".join(units[start : start + size]), is_last=False)
        state = parts.state()
    last = PartsReader(state)
    data += last.read("", is_last=True)

    whole = read_inline(text)
    assert (data, last.hole_bytes, last.waiting) == (whole.data, whole.hole_bytes, "")


def test_half_a_character_that_stays_alone_becomes_a_question_mark() -> None:
    parts = PartsReader()

    assert parts.read("a\ud83d", is_last=False) + parts.read("b\n\ud83d", is_last=True) == b"a?b\n?"


async def test_parts_go_through_the_reader_that_all_texts_go_through(tmp_path: Path) -> None:
    text = "\0" * 5000 + "row\r" * 999
    async with open_served(tmp_path, turns("FINAL(never asked)")) as served:
        whole = await served.call("rlm_context_add", text=text)
        first = await served.call("rlm_context_add", text=text[:400], name="log", final=False)
        between = await served.call(
            "rlm_context_add", text=text[400:5011], upload_id=first["upload_id"], final=False
        )
        last = await served.call("rlm_context_add", text=text[5011:], upload_id=first["upload_id"])

    assert (between["chars"], last["sha256"]) == (11, whole["sha256"])
    assert last["skipped_reasons"] == {"NUL bytes at its start were left out": 1}
    assert last["skipped"][0]["reason"].startswith("5,000 NUL bytes")


async def test_an_upload_that_an_earlier_version_opened_continues_as_it_began(
    tmp_path: Path,
) -> None:
    data = settings_in(tmp_path).data_dir
    async with (
        open_database(data / DATABASE_NAME) as database,
        Contexts(database).open_upload("old") as upload,
    ):
        await upload.write(b"row\rrow\r")
        upload_id = (await upload.pause()).upload_id
    async with open_served(tmp_path, turns("FINAL(never asked)")) as served:
        last = await served.call("rlm_context_add", text="row\r", upload_id=upload_id)
        read = await served.call("rlm_context_read", handle=last["handle"])

    assert read["text"] == "row\rrow\rrow\r"


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_crlf_behind_a_line_that_carriage_returns_overwrite_is_one_line_end(size: int) -> None:
    progress = b"".join(b"%d %% done\r" % number for number in range(1000))

    text, _ = read(progress + b"all\r\nis\r\nwell\r\n", size)

    assert text.endswith("999 % done\nall\nis\nwell\n")


@pytest.mark.parametrize("behind", [b"", b"Jan 2 host kernel: fine\n" * 3])
async def test_a_block_of_nuls_that_a_loss_of_power_left_makes_no_log_binary(
    tmp_path: Path, behind: bytes
) -> None:
    (tmp_path / "syslog").write_bytes(b"Jan 1 host kernel: fine\n" * 20 + bytes(4096) + behind)
    (tmp_path / "nothing").write_bytes(bytes(4096))
    (tmp_path / "short").write_bytes(b"a record\n" * 20 + bytes(100))
    async with open_served(tmp_path, turns("never")) as served:
        added = await served.call("rlm_context_add", path=str(tmp_path / "syslog"))
        refused = [
            await served.error("rlm_context_add", path=str(tmp_path / name))
            for name in ("nothing", "short")
        ]

    assert added["chars"] == 24 * 20 + 4096 + len(behind)
    assert ["binary" in error["text"] for error in refused] == [True, True]


async def test_compressed_text_is_known_however_late_it_comes_and_what_is_cut_is_told(
    tmp_path: Path,
) -> None:
    noise = "".join(hashlib.sha256(b"%d" % number).hexdigest() for number in range(6000))
    (tmp_path / "a.zst").write_bytes(ZSTD.compress(noise.encode()))  # its first block is 128 KiB
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"a line\n" * 1000)[:-30])
    async with open_served(tmp_path, turns("never")) as served:
        added = await served.call("rlm_context_add", path=str(tmp_path / "a.zst"))
        error = await served.error("rlm_context_add", path=str(tmp_path / "cut.gz"))

    assert added["chars"] == len(noise)
    assert "The bytes are not whole gzip: it ends too early. Convert" in error["text"]
