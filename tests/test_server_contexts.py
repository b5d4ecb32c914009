from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from tests.serving import Served, open_served, text_of, turns

pytestmark = pytest.mark.usefixtures("one_sandbox_for_all")


@pytest.fixture
async def served(tmp_path: Path) -> AsyncGenerator[Served]:
    async with open_served(tmp_path, turns("FINAL(never asked)")) as served:
        yield served


async def test_a_text_is_stored_once_and_read_by_its_handle(served: Served) -> None:
    added = await served.call("rlm_context_add", text="one\ntwo\nthree\n", name="numbers")
    again = await served.call("rlm_context_add", text="one\ntwo\nthree\n")
    lines = await served.call(
        "rlm_context_read", handle=added["handle"], start=1, limit=1, unit="lines"
    )
    listed = await served.call("rlm_context_list")

    assert re.fullmatch("ctx_[0-9a-f]{16}", added["handle"])
    assert added["sha256"].startswith(added["handle"][4:])
    assert (added["chars"], added["documents"], added["deduplicated"]) == (14, 1, False)
    assert (again["handle"], again["deduplicated"]) == (added["handle"], True)
    assert lines == {
        "text": "two\n",
        "start": 1,
        "end": 2,
        "total": 3,
        "next_start": 2,
        "cut": False,
        "cut_at": None,
    }
    assert [context["name"] for context in listed["contexts"]] == ["numbers"]


async def test_a_text_may_look_like_json(served: Served) -> None:
    added = await served.call("rlm_context_add", text='{"a": [1, 2]}')
    read = await served.call("rlm_context_read", handle=added["handle"])

    assert read["text"] == '{"a": [1, 2]}'


async def test_a_file_is_stored_by_its_path_with_progress(served: Served, tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("a line of it\n" * 300_000)

    added = await served.call("rlm_context_add", path=str(tmp_path / "book.txt"))

    assert (added["name"], added["bytes"]) == ("book.txt", 3_900_000)
    done = [progress for progress, _ in served.progress]
    assert done == sorted(set(done))
    assert done[-1] == 3_900_000


async def test_a_directory_is_one_context_with_a_document_for_each_file(
    served: Served, tmp_path: Path
) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "b.txt").write_text("second")
    (files / "a.txt").write_text("first")
    (files / "c.bin").write_bytes(b"\0\1\2")

    added = await served.call("rlm_context_add", path=str(files))
    second = await served.call("rlm_context_read", handle=added["handle"], document=1)

    assert (added["documents"], added["skipped"]) == (2, [{"path": "c.bin", "reason": "binary"}])
    assert second["text"] == "second"


async def test_documents_are_kept_apart(served: Served) -> None:
    added = await served.call("rlm_context_add", documents=["one", "", "three"])

    texts = [
        (await served.call("rlm_context_read", handle=added["handle"], document=index))["text"]
        for index in range(3)
    ]
    assert texts == ["one", "", "three"]


async def test_a_text_can_be_sent_in_parts(served: Served) -> None:
    first = await served.call("rlm_context_add", text="one ", name="parts", final=False)
    between = await served.call("rlm_context_list")
    second = await served.call(
        "rlm_context_add", text="two ", upload_id=first["upload_id"], final=False
    )
    last = await served.call("rlm_context_add", text="three", upload_id=first["upload_id"])
    read = await served.call("rlm_context_read", handle=last["handle"])

    assert (first["handle"], first["chars"], second["chars"]) == (None, 4, 8)
    assert between["contexts"] == []
    assert (last["upload_id"], last["name"]) == (None, "parts")
    assert read["text"] == "one two three"


async def test_invalid_utf_8_is_replaced_and_said(served: Served, tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_bytes(b"good text " * 40 + b"\xff" + b" and more")

    result = await served.raw("rlm_context_add", path=str(tmp_path / "file.txt"))

    assert result.structured_content is not None
    assert result.structured_content["replaced_characters"] == 1
    assert "1 byte sequences that are not text" in text_of(result)


async def test_files_in_other_charsets_are_decoded_and_that_is_said(
    served: Served, tmp_path: Path
) -> None:
    files = tmp_path / "files"
    files.mkdir()
    german, russian = "Größe über alles. " * 20, "Съешь же ещё этих мягких булок. " * 20
    (files / "a.txt").write_text(german, encoding="cp1252")
    (files / "b.txt").write_text(russian, encoding="utf-16")
    (files / "c.txt").write_text(german, encoding="utf-8")

    result = await served.raw("rlm_context_add", path=str(files))
    added = result.structured_content
    assert added is not None
    whole = [
        (await served.call("rlm_context_read", handle=added["handle"], document=document))["text"]
        for document in range(3)
    ]

    assert (added["charset"], added["replaced_characters"]) == ("cp1252, utf-16", 0)
    assert whole == [german, russian, german]
    assert "Decoded from cp1252, utf-16." in text_of(result)


async def test_a_search_gives_places_that_can_be_read(served: Served) -> None:
    text = "alpha\nbeta needle\ngamma\n" * 3
    handle = (await served.call("rlm_context_add", text=text))["handle"]

    first = await served.call(
        "rlm_context_search", handles=[handle], pattern="^beta (n.*)$", limit=2
    )
    rest = await served.call(
        "rlm_context_search",
        handles=[handle],
        pattern="^beta (n.*)$",
        limit=2,
        cursor=first["next_cursor"],
    )

    found = first["matches"] + rest["matches"]
    assert [match["line"] for match in found] == [2, 5, 8]
    assert [text[match["start"] : match["end"]] for match in found] == ["beta needle"] * 3
    assert (first["truncated"], rest["truncated"], rest["next_cursor"]) == (True, False, None)


async def test_a_search_over_several_contexts_names_the_one_of_each_match(served: Served) -> None:
    one = (await served.call("rlm_context_add", text="red green"))["handle"]
    two = (await served.call("rlm_context_add", documents=["blue", "GREEN leaf\nroot"]))["handle"]

    found = await served.call(
        "rlm_context_search",
        handles=[one, two],
        pattern="green",
        literal=True,
        ignore_case=True,
        context_lines=1,
    )

    places = [(match["handle"], match["document"], match["text"]) for match in found["matches"]]
    assert places == [(one, 0, "red green"), (two, 1, "GREEN leaf\nroot")]


async def test_a_deleted_context_is_gone(served: Served) -> None:
    handle = (await served.call("rlm_context_add", text="short-lived"))["handle"]

    deleted = await served.call("rlm_context_delete", handle=handle)
    error = await served.error("rlm_context_read", handle=handle)

    assert deleted == {"deleted": True, "freed_bytes": 11}
    assert error["code"] == "not_found"


async def test_a_list_is_paged(served: Served) -> None:
    for number in range(5):
        await served.call("rlm_context_add", text=f"text {number}", name=str(number))

    names: list[str] = []
    cursor = ""
    while True:
        page = await served.call("rlm_context_list", limit=2, cursor=cursor)
        names += [context["name"] for context in page["contexts"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break

    assert names == ["4", "3", "2", "1", "0"]


async def refused(served: Served, tool: str, **arguments: object) -> str:
    """Make a call that is refused, and check that nothing came of it; gives the error's text."""
    before = await served.call("rlm_context_list")
    error = await served.error(tool, **arguments)
    after = await served.call("rlm_context_list")
    assert after == before
    assert not list((served.settings.data_dir).glob("*.tmp"))
    return error["text"]


async def test_an_unknown_handle_is_answered_with_the_nearest(served: Served) -> None:
    handle: str = (await served.call("rlm_context_add", text="something"))["handle"]
    wrong = handle[:-1] + ("0" if handle[-1] != "0" else "1")

    text = await refused(served, "rlm_context_read", handle=wrong)

    assert wrong in text
    assert handle in text
    assert "rlm_context_list" in text


async def test_a_path_that_does_not_exist_is_named(served: Served, tmp_path: Path) -> None:
    text = await refused(served, "rlm_context_add", path=str(tmp_path / "gone.txt"))

    assert "gone.txt" in text
    assert repr(str(tmp_path)) in text


async def test_a_path_outside_is_refused_also_through_a_link(
    served: Served, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to("/etc/hostname")

    plain = await refused(served, "rlm_context_add", path="/etc/hostname")
    linked = await refused(served, "rlm_context_add", path=str(tmp_path / "link"))

    assert plain.startswith("path_not_allowed: ")
    assert "/etc/hostname" in linked
    assert "RLM_MCP_ALLOWED_PATHS" in linked


@pytest.mark.parametrize(("data", "reason"), [(b"MZ\0\0" * 9, "binary"), (b"", "empty")])
async def test_a_file_without_text_is_refused(
    served: Served, tmp_path: Path, data: bytes, reason: str
) -> None:
    (tmp_path / "file").write_bytes(data)

    text = await refused(served, "rlm_context_add", path=str(tmp_path / "file"))

    assert reason in text
    assert str(tmp_path / "file") in text


async def test_two_sources_at_once_are_refused(served: Served) -> None:
    text = await refused(served, "rlm_context_add", text="a", documents=["b"])

    assert "text and documents" in text
    assert "Give one" in text


async def test_no_source_is_refused(served: Served) -> None:
    assert "There is no source" in await refused(served, "rlm_context_add", name="nothing")


@pytest.mark.parametrize("arguments", [{"start": -1}, {"document": -1}])
async def test_a_negative_offset_is_refused(served: Served, arguments: dict[str, int]) -> None:
    handle = (await served.call("rlm_context_add", text="something"))["handle"]

    assert "-1" in await refused(served, "rlm_context_read", handle=handle, **arguments)


async def test_a_document_that_does_not_exist_is_refused_with_the_range(served: Served) -> None:
    handle = (await served.call("rlm_context_add", documents=["a", "b"]))["handle"]

    text = await refused(served, "rlm_context_read", handle=handle, document=2)

    assert "2" in text
    assert "0 to 1" in text or "0 and 1" in text or "0..1" in text


async def test_an_unknown_argument_is_refused_with_the_nearest(served: Served) -> None:
    text = await refused(served, "rlm_context_add", txt="something")

    assert "'txt'" in text
    assert "'text'" in text


async def test_an_argument_of_the_wrong_kind_is_named_with_its_value(served: Served) -> None:
    text = await refused(served, "rlm_context_list", limit=-1)

    assert "limit=-1" in text
    assert "greater than or equal to 1" in text


async def test_a_pattern_that_is_no_expression_is_refused(served: Served) -> None:
    handle = (await served.call("rlm_context_add", text="something"))["handle"]

    text = await refused(served, "rlm_context_search", handles=[handle], pattern="(a")

    assert "'(a'" in text
    assert "literal=true" in text


async def test_an_upload_that_is_not_open_is_refused(served: Served) -> None:
    text = await refused(served, "rlm_context_add", text="x", upload_id="upl_nothing")

    assert "upl_nothing" in text


async def test_patterns_that_have_nothing_to_choose_from_are_told(
    served: Served, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("a line\n")

    of_file = await served.call(
        "rlm_context_add", path=str(tmp_path / "a.txt"), include=["*.py"], exclude=["*.txt"]
    )
    of_text = await served.raw("rlm_context_add", text="a line of text", exclude=["*.txt"])
    of_texts = await served.call("rlm_context_add", documents=["one", "two"], include=["*"])
    of_directory = await served.call("rlm_context_add", path=str(tmp_path), include=["*.txt"])

    assert of_file["documents"] == 1
    assert of_file["note"] == (
        "Include and exclude had no effect: they choose files of a directory or glob, and the "
        "path names a single file."
    )
    assert "Exclude had no effect" in text_of(of_text)
    assert "no path was given" in of_texts["note"]
    assert "note" not in of_directory


@pytest.mark.parametrize(
    "name",
    ["rlm.sqlite3", "rlm.sqlite3-wal", "upload.key", "texts/0", "search/0", "page-0/open.html"],
)
async def test_what_the_server_keeps_for_all_callers_is_nobodys_text(
    served: Served, tmp_path: Path, name: str
) -> None:
    """The allowed paths of these servers hold their data directory too."""
    kept = served.settings.data_dir / name
    beside = served.settings.data_dir / "notes.txt"
    link = tmp_path / "link.txt"
    await served.call("rlm_context_list")  # from now on there is a database
    await anyio.to_thread.run_sync(_write, kept, beside, link)

    for path in (kept, link):
        told = await served.error("rlm_context_add", path=str(path))
        assert told["code"] == "path_not_allowed"
        assert "belongs to the server's own data" in told["message"]
    both = await served.call("rlm_context_add", path=str(served.settings.data_dir))
    globbed = await served.call("rlm_context_add", path=f"{served.settings.data_dir}/**/*")

    assert (both["documents"], globbed["documents"]) == (1, 1)
    assert "notes" in both["preview"]


def _write(kept: Path, beside: Path, link: Path) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True)
    if not kept.exists():
        kept.write_text("what belongs to another caller\n" * 10)
    beside.write_text("some notes\n" * 10)
    link.symlink_to(kept)
