from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator
from pathlib import Path

import anyio.to_thread
import pytest

from rlm_mcp.cursors import encode_cursor
from rlm_mcp.store.contexts.contexts import Contexts
from rlm_mcp.store.contexts.records import ContextRecord
from rlm_mcp.store.database import DATABASE_NAME, open_database
from rlm_mcp.store.index import building
from rlm_mcp.store.index.files import FOLDER, sweep_indexes
from rlm_mcp.store.index.folding import fold, fold_char, split_scripts
from rlm_mcp.store.index.indexes import TextIndexes
from rlm_mcp.store.index.locating import best_line
from rlm_mcp.store.index.passages import PASSAGE_BYTES, cut_passages
from rlm_mcp.store.index.ranking import query_terms
from tests.commands import command, environment
from tests.serving import Served, open_served, turns

pytestmark = pytest.mark.usefixtures("one_sandbox_for_all")

NOVEL = "".join(f"Chapter {number}. Nothing much happened here.\n\n" for number in range(400))


@pytest.fixture
async def served(tmp_path: Path) -> AsyncGenerator[Served]:
    async with open_served(tmp_path, turns("FINAL(never asked)")) as served:
        yield served


async def searched(
    served: Served, words: str, *texts: str, **more: object
) -> list[dict[str, object]]:
    """Store texts as one context each and search them by words."""
    handles = [(await served.call("rlm_context_add", text=text))["handle"] for text in texts]
    found = await served.call(
        "rlm_context_search", handles=handles, pattern=words, mode="words", **more
    )
    return found["matches"]


async def test_the_line_that_holds_most_of_the_words_comes_first(served: Served) -> None:
    line = "The harbour master counted nine ships in the fog."
    text = f"{NOVEL}A ship came.\n{NOVEL}{line}\n{NOVEL}"

    best, *_ = await searched(served, "How many ships did the harbour master count?", text)

    assert best["text"] == line
    assert best["line"] == text[: text.index(line)].count("\n") + 1
    found = text[int(str(best["start"])) : int(str(best["end"]))]
    assert (found.split()[0], found.split()[-1]) == ("The", "the")
    assert isinstance(best["score"], float)


async def test_matches_of_several_texts_are_in_one_order_with_their_documents(
    served: Served, tmp_path: Path
) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/a.txt").write_text(NOVEL)
    (tmp_path / "d/b.txt").write_text(f"{NOVEL}walrus and otter\n")
    directory = await served.call("rlm_context_add", path=str(tmp_path / "d"))
    other = await served.call("rlm_context_add", text=f"{NOVEL}walrus\n", name="zoo")

    found = await served.call(
        "rlm_context_search",
        handles=[other["handle"], directory["handle"]],
        pattern="otter walrus",
        mode="words",
    )

    first, second = found["matches"]
    assert (first["handle"], first["document"], first["name"]) == (directory["handle"], 1, "b.txt")
    assert (second["handle"], second["document"], second["name"]) == (other["handle"], 0, "zoo")
    assert first["score"] > second["score"]


async def test_words_and_a_pattern_give_a_document_the_same_name(
    served: Served, tmp_path: Path
) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/a.txt").write_text("one walrus")
    (tmp_path / "d/b.txt").write_text("two walrus")
    sources = [
        {"path": str(tmp_path / "d/a.txt"), "name": "a label"},
        {"path": str(tmp_path / "d"), "name": "another label"},
        {"text": "three walrus"},
        {"text": "four walrus", "name": "of its own"},
    ]
    handles = [(await served.call("rlm_context_add", **one))["handle"] for one in sources]

    named: dict[str, list[list[str]]] = {}
    for mode in ("pattern", "words"):
        asked = {"pattern": "walrus", "mode": mode}
        calls = [
            *([handle] for handle in handles),
            handles,
        ]
        found = [await served.call("rlm_context_search", handles=texts, **asked) for texts in calls]
        named[mode] = [sorted(one["name"] for one in page["matches"]) for page in found]

    assert named["words"] == named["pattern"]


async def test_what_has_no_effect_on_words_is_said(served: Served) -> None:
    handle = (await served.call("rlm_context_add", text="Walrus"))["handle"]
    search = {"handles": [handle], "pattern": "walrus", "mode": "words"}
    both = await served.call("rlm_context_search", **search, literal=True)
    plain = await served.call("rlm_context_search", **search)

    assert both["note"] == "literal and ignore_case have no effect with mode='words'."
    assert "note" not in plain


async def test_pages_by_words_join_to_what_one_page_gives(served: Served) -> None:
    text = "".join(f"walrus {number}\n{NOVEL[:2500]}\n" for number in range(9))
    whole = await searched(served, "walrus", text)
    handle = whole[0]["handle"]
    paged: list[object] = []
    cursor: str | None = ""
    while cursor is not None:
        page = await served.call(
            "rlm_context_search",
            handles=[handle],
            pattern="walrus",
            mode="words",
            limit=2,
            cursor=cursor,
        )
        paged += page["matches"]
        cursor = page["next_cursor"]

    assert len(whole) == 9
    assert paged == whole


@pytest.mark.parametrize(
    "cursor",
    [encode_cursor("search", 0, 0), encode_cursor("ranked", -1), encode_cursor("ranked", 10**30)],
)
async def test_a_cursor_of_another_list_is_refused(served: Served, cursor: str) -> None:
    handle = (await served.call("rlm_context_add", text="Walrus"))["handle"]
    search = {"handles": [handle], "pattern": "walrus", "mode": "words"}
    refused = await served.error("rlm_context_search", **search, cursor=cursor)

    assert "does not belong to this list" in refused["message"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("世界上最长的日志", "这是世界上最长的日志文件。"),
        ("日志", "这是世界上最长的日志文件。"),
        ("文件", "这是世界上最长的日志文件"),
        ("データベース", "データベースに接続できません"),
        ("데이터베이스", "데이터베이스를 열 수 없습니다"),
        ("ฐานข้อมูล", "ไม่สามารถเปิดฐานข้อมูลได้"),
        ("Müller", "Kunde MÜLLER bestätigt"),
        ("muller", "Kunde Müller bestätigt"),
        ("ошибка", "Ошибка при открытии"),
        ("рабочий", "Рабочий стол пользователя"),
        ("Ελλάδα", "Η ΕΛΛΆΔΑ είναι εδώ"),
        ("ΕΛΛΑΔΑ", "Η Ελλάδα είναι εδώ"),
        ("हिन्दी", "यह हिन्दी भाषा है।"),
        ("வணக்கம்", "அனைவருக்கும் வணக்கம் நண்பர்களே"),
        ("أحمد", "كتب أَحْمَد رسالة"),
        ("أَحْمَد", "كتب أحمد رسالة"),
        ("می‌خواهم", "من میخواهم بروم"),
        ("שלום", "הוא אמר שָׁלוֹם לכולם"),
        ("Köln", "Der Dom in Ko\u0308ln steht"),
        ("strasse", "Die Straße nach Hause"),
        ("office", "The o\ufb03ce is closed"),
        ("lodz", "Miasto Łódź w Polsce"),
        ("ŁÓDŹ", "Miasto Lodz w Polsce"),
        ("tromso", "Havnen i Tromsø er stor"),
        ("Đà Nẵng", "They met in Da Nang"),
        ("ILIK", "hava ılık ve güzel"),
        ("encyclopaedia", "The Encyclopædia of ships"),
        ("كتاب", "این کتاب خوب است"),
        ("データベース", "ﾃﾞｰﾀﾍﾞｰｽ ﾆ ｾﾂｿﾞｸ"),
        ("AND OR NOT near", "the word NEAR it"),
        ('"walrus*" -otter ^x', "one walrus here"),
        ("naïve:résumé", "a naive resume"),
    ],
)
async def test_words_of_any_script_are_found(served: Served, words: str, line: str) -> None:
    found = await searched(served, words, f"{NOVEL}{line}\n{NOVEL}")

    assert [match["text"] for match in found] == [line]


async def test_words_that_are_everywhere_are_found_all_the_same(served: Served) -> None:
    found = await searched(served, "nothing happened", NOVEL * 5, limit=3)

    assert len(found) == 3


async def test_a_query_without_a_word_is_refused(served: Served) -> None:
    added = await served.call("rlm_context_add", text="one two")

    error = await served.error(
        "rlm_context_search", handles=[added["handle"]], pattern="?!", mode="words"
    )

    assert (error["code"], "mode='pattern'" in error["fix"]) == ("invalid_input", True)


async def test_the_index_is_deleted_with_its_text(served: Served) -> None:
    folder = served.settings.data_dir / FOLDER
    (match,) = await searched(served, "walrus", "a walrus\n")
    assert len(list(folder.iterdir())) == 1

    await served.call("rlm_context_delete", handle=match["handle"])

    assert list(folder.iterdir()) == []


async def added(contexts: Contexts, text: bytes) -> ContextRecord:
    async with contexts.open_upload("text") as upload:
        await upload.write(text)
        return (await upload.seal()).record


async def test_each_of_two_callers_who_have_the_same_text_has_an_index_of_their_own(
    tmp_path: Path,
) -> None:
    async with open_database(tmp_path / DATABASE_NAME) as database:
        callers = [Contexts(database, caller=name) for name in ("", "ann", "bob")]
        record, *_ = [await added(contexts, b"a walrus\n") for contexts in callers]
        indexes = [TextIndexes(database, contexts.caller) for contexts in callers]

        await anyio.to_thread.run_sync(indexes[1].build, record, print)
        built = [await anyio.to_thread.run_sync(one.is_built, record) for one in indexes]
        for one in (indexes[0], indexes[2]):
            await anyio.to_thread.run_sync(one.build, record, print)
        await callers[1].delete(record.handle)
        left = [await anyio.to_thread.run_sync(one.is_built, record) for one in indexes]
        assert await anyio.to_thread.run_sync(sweep_indexes, database) == 0
        await callers[2].delete(record.handle)
        await callers[0].delete(record.handle)

        assert (built, left) == ([False, True, False], [True, False, True])
        assert list((tmp_path / FOLDER).iterdir()) == []


async def test_an_index_whose_text_is_gone_is_swept(tmp_path: Path) -> None:
    async with open_database(tmp_path / DATABASE_NAME) as database:
        (tmp_path / FOLDER).mkdir()
        (tmp_path / FOLDER / "0123.sqlite3").touch()
        (tmp_path / FOLDER / "0123.4567.sqlite3").touch()

        assert await anyio.to_thread.run_sync(sweep_indexes, database) == 2
        assert await Contexts(database).sweep() == 0


async def test_a_damaged_index_is_made_again(served: Served) -> None:
    first = await searched(served, "walrus", "a walrus\n")
    (path,) = (served.settings.data_dir / FOLDER).iterdir()
    path.write_bytes(b"no database at all" * 1000)

    assert await searched(served, "walrus", "a walrus\n") == first


@pytest.mark.parametrize("damage", ["cut", "overwritten", "other tables"])
async def test_an_index_that_is_damaged_behind_its_beginning_is_made_again(
    served: Served, damage: str
) -> None:
    text = f"{NOVEL * 5}a walrus\n"
    first = await searched(served, "walrus", text)
    (path,) = (served.settings.data_dir / FOLDER).iterdir()
    data = path.read_bytes()
    if damage == "cut":
        path.write_bytes(data[: len(data) // 8])
    elif damage == "overwritten":
        path.write_bytes(data[:8192] + b"\x5a" * (len(data) - 8192))
    else:
        path.unlink()
        with sqlite3.connect(path) as db:
            db.execute(f"PRAGMA user_version={building.FORMAT}")
            db.execute("CREATE TABLE passages (id)")
        db.close()

    assert await searched(served, "walrus", text) == first


async def test_an_sqlite_without_its_module_is_named_with_the_way_out(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "FTS_MODULE", "fts9")
    added = await served.call("rlm_context_add", text="one two")

    error = await served.error(
        "rlm_context_search", handles=[added["handle"]], pattern="two", mode="words"
    )

    assert "no such module: fts9" in error["message"]
    assert "mode='pattern'" in error["fix"]
    assert list((served.settings.data_dir / FOLDER).iterdir()) == []


async def test_an_index_holds_none_of_the_text(served: Served) -> None:
    await searched(served, "canary", "the canary sings of secrets\n")
    (path,) = (served.settings.data_dir / FOLDER).iterdir()

    with sqlite3.connect(path) as db:
        assert db.execute("SELECT text FROM words").fetchall() == [(None,)]
    db.close()


def test_passages_join_to_the_documents_whatever_the_chunks() -> None:
    documents = ["short\n", "", "x" * 5000, "é" * 3000, "a b " * 2000, "line\n" * 3000, "世" * 900]
    data = [document.encode() for document in documents]
    whole = b"".join(data)
    sizes = [(number, len(one)) for number, one in enumerate(data)]
    for step in (1, 7, 1000, len(whole)):
        chunks = (whole[at : at + step] for at in range(0, len(whole), step))
        joined = [""] * len(documents)
        for passage, text in cut_passages(chunks, sizes):
            document = documents[passage.document]
            assert passage.bytes <= PASSAGE_BYTES
            assert passage.start_char == len(joined[passage.document])
            assert passage.line == document.count("\n", 0, passage.start_char)
            assert whole[passage.start_byte :][: passage.bytes].decode() == text
            joined[passage.document] += text
        assert joined == documents


def test_unspaced_scripts_are_indexed_apart() -> None:
    assert split_scripts("plain words") == ("plain words", "")
    assert split_scripts("LOG 日志 of 世界") == ("log   of  ", "日志  世界  ")
    assert query_terms("Log-file 日志文件, LOG") == (("log", "file"), ("日志文件",))


@pytest.mark.parametrize(
    "line", ["plain WORDS", "Ὀδυσσεύς ﬃ ½", "Herr Mu\u0308ller, 日志 Straße", "हिन्दी שָׁלוֹם"]
)
def test_a_line_is_folded_as_its_characters_are(line: str) -> None:
    assert fold(line) == "".join(map(fold_char, line))


def test_the_words_found_on_a_line_are_told_by_their_place_in_it() -> None:
    passage = "Ein Dom in Ko\u0308ln, Hauptstraß, ein Cafe\u0301 dort\n"

    for words, found in (
        (("koln", "hauptstrass"), "Ko\u0308ln, Hauptstraß"),
        (("cafe",), "Cafe\u0301"),
        (("dom",), "Dom"),
    ):
        place = best_line(passage, dict.fromkeys(words, 1.0), 0)
        assert passage[place.start : place.end] == found


def test_the_best_line_is_given_with_lines_around_it() -> None:
    passage = "one\ntwo cats\nthree cats and dogs\nfour\n"

    place = best_line(passage, {"cats": 1.0, "dogs": 2.0}, 1)

    assert passage[place.start : place.end] == "cats and dogs"
    assert (place.line, place.text) == (2, "two cats\nthree cats and dogs\nfour")


async def test_a_command_searches_by_pattern_and_by_words(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(f"{NOVEL}a walrus and an otter\n")
    given = environment(tmp_path)
    handle = (await command(given, "contexts", "add", str(tmp_path / "a.txt"))).stdout.strip()

    by_words = await command(given, "contexts", "search", "otter walrus", handle, "--words")
    by_pattern = await command(given, "contexts", "search", "wal.us", handle)

    assert by_words.stdout == "a.txt:801: a walrus and an otter\n"
    assert by_pattern.stdout == by_words.stdout


def test_the_line_with_most_words_is_shown_and_not_one_that_repeats_a_word() -> None:
    passage = "walrus walrus walrus\na tusk of a walrus\n"

    found = best_line(passage, {"walrus": 1.0, "tusk": 0.5}, 0)
    assert (found.line, found.text) == (1, "a tusk of a walrus")
    assert passage[found.start : found.end] == "tusk of a walrus"
