"""UTF-16 and marks that do not speak for a whole file, holes, and texts with one name in them."""

from __future__ import annotations

import codecs
import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from rlm_mcp.service.contexts.text_reader import TextReader
from tests.commands import environment, process
from tests.serving import open_served, turns

GERMAN = "Kunde Müller in Köln bestätigt die Änderung über das Gerät.\n"
LOG = "2026-01-01 12:00:00 INFO the service was started again\n"
CHINESE = "中文文本，用于测试。上海、北京和广州都是大城市。\n"


def read(data: bytes, size: int) -> tuple[str, TextReader]:
    reader = TextReader()
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    text = b"".join(piece for part in parts for piece in reader.feed(part))
    return (text + b"".join(reader.end())).decode("utf-8", "replace").lstrip("\ufeff"), reader


@pytest.mark.parametrize("size", [61, 4096, 1 << 20])
@pytest.mark.parametrize(
    ("parts", "charset"),
    [
        ([(GERMAN, "utf-16"), (LOG * 5, "ascii")], "utf-16, utf-8"),
        ([(GERMAN, "utf-16"), (GERMAN * 5, "utf-8")], "utf-16, utf-8"),
        ([(GERMAN, "utf-16"), (GERMAN * 5, "cp1252")], "utf-16, cp1252"),
        ([(GERMAN, "utf-16"), ("done\n", "ascii")], "utf-16, utf-8"),
        ([("\ufeff" + GERMAN, "utf-16-be"), (LOG * 5, "ascii")], "utf-16, utf-8"),
        ([("\ufeff" + GERMAN, "utf-16-be"), ("done\n", "ascii")], "utf-16, utf-8"),
        (
            [("\ufeff" + GERMAN, "utf-16-be"), (LOG * 5, "ascii"), (GERMAN, "utf-16-be")],
            "utf-16, utf-8",
        ),
        ([(GERMAN, "utf-16"), (LOG * 5, "ascii"), (GERMAN * 5, "utf-16-le")], "utf-16, utf-8"),
        ([(CHINESE * 50, "utf-16"), (LOG * 5, "ascii")], "utf-16, utf-8"),
        ([(CHINESE * 500, "utf-16")], "utf-16"),
        ([(GERMAN, "utf-32"), (LOG * 5, "ascii")], "utf-32, utf-8"),
        ([(LOG * 5, "ascii"), (GERMAN * 20, "utf-16-le")], "utf-8, utf-16-le"),
        ([(GERMAN * 5, "utf-8"), (GERMAN * 20, "utf-16-le")], "utf-8, utf-16-le"),
        ([(GERMAN * 3000, "utf-8"), (GERMAN * 20, "utf-16-le")], "utf-8, utf-16-le"),
        ([(LOG * 5, "ascii"), (GERMAN * 20, "utf-16-be")], "utf-8, utf-16-be"),
        ([("\ufeff" + GERMAN, "utf-8"), (GERMAN * 20, "cp1252")], "utf-8, cp1252"),
        ([("\ufeff", "utf-8"), (GERMAN * 20, "cp1252")], "utf-8, cp1252"),
    ],
)
def test_no_mark_speaks_for_what_other_programs_appended(
    parts: list[tuple[str, str]], charset: str, size: int
) -> None:
    data = b"".join(text.encode(name) for text, name in parts)

    text, reader = read(data, size)

    assert text == "".join(text for text, _ in parts).lstrip("\ufeff")
    assert reader.charset in charset  # what is UTF-8 may have passed before
    assert reader.replaced == 0


@pytest.mark.parametrize("size", [1, 1 << 20])
def test_nuls_in_a_log_make_no_utf_16_of_it(size: int) -> None:
    text = LOG * 50 + "lost:" + "x" * 100 + "\0" * 700 + "\n" + LOG * 50

    assert read(text.encode(), size)[0] == text


@pytest.mark.parametrize(
    "line",
    [
        "Dear Mr Müller, the invoice is attached.\n",
        "We met in a café.\n",
        "It’s late\n",
        "10\xa0000 km at 21°C\n",
        "KUNDE: MÜLLER\n",
    ],
)
@pytest.mark.parametrize("before", ["", LOG * 5000])
def test_a_single_name_in_plain_text_is_read(line: str, before: str) -> None:
    text, reader = read((before + line + before).encode("cp1252"), 1000)

    assert (text, reader.charset, reader.replaced) == (before + line + before, "cp1252", 0)


@pytest.mark.parametrize(
    "data",
    [
        b"plain \xff\xff text\n",
        b"cut in a character: \xe2\x80\n",
        b"a \x81 b\n",
        "Größe über alles\n".encode() * 20 + b"a caf\xe9\n",
    ],
)
def test_bytes_that_make_no_word_are_replaced(data: bytes) -> None:
    text, reader = read(data, 1000)

    assert "\ufffd" in text
    assert reader.charset == "utf-8"


async def added(directory: Path, data: bytes, hole: int, **given: Any) -> dict[str, Any]:
    """Add a file that begins with a hole which takes no room on the disk."""
    path = directory / "app.log"
    with path.open("wb") as file:
        file.seek(hole)
        file.write(data)
    async with open_served(directory, turns("never")) as served:
        return await served.call("rlm_context_add", path=str(path), **given)


@pytest.mark.skipif(not hasattr(os, "SEEK_DATA"), reason="this platform shows no holes")
async def test_a_log_behind_a_large_hole_is_stored_and_the_hole_is_counted(tmp_path: Path) -> None:
    hole = 300 << 20
    found = await added(tmp_path, LOG.encode() * 100, hole)

    assert found["chars"] == len(LOG) * 100
    assert found["skipped"][0]["reason"].startswith(f"{hole:,} NUL bytes")


async def test_a_compressed_log_with_a_hole_is_stored_like_the_log_itself(tmp_path: Path) -> None:
    data = gzip.compress(bytes(20 << 20) + LOG.encode() * 100)
    found = await added(tmp_path, data, 0)
    env = environment(tmp_path, "http://127.0.0.1:9/v1")

    code, out, _ = await process(env, "contexts", "add", "-", "--json", given=data)

    assert (code, json.loads(out)["sha256"]) == (0, found["sha256"])
    assert found["chars"] == len(LOG) * 100


async def test_damaged_gzip_says_how_to_store_what_can_still_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.log.gz").write_bytes(gzip.compress(GERMAN.encode() * 99)[:-20])
    async with open_served(tmp_path, turns("never")) as served:
        error = await served.error("rlm_context_add", path=str(tmp_path / "a.log.gz"))

    assert "not whole gzip: it ends too early" in error["message"]
    assert "gzip -dc" in error["fix"]


async def test_halves_of_characters_that_were_replaced_are_counted(tmp_path: Path) -> None:
    async with open_served(tmp_path, turns("never")) as served:
        one = await served.call("rlm_context_add", documents=["a\ud800b", "fine", "\udfff\udfff"])
        first = await served.call("rlm_context_add", text="x\ud800y\ud83d", final=False)
        last = await served.call(
            "rlm_context_add", text="\ude00 \udc00", upload_id=first["upload_id"]
        )

    assert (one["replaced_characters"], last["replaced_characters"]) == (3, 2)


def test_a_file_with_a_mark_is_known_by_it_when_it_is_short() -> None:
    for mark, charset in ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")):
        assert read(mark + "é".encode(charset), 1)[0] == "é"
