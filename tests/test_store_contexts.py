"""Contexts: sealed once each, listed, read in slices, made into sources, deleted."""

from __future__ import annotations

import hashlib
import random
import sqlite3
import threading
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from rlm_mcp.cursors import encode_cursor
from rlm_mcp.errors import InvalidInputError, NotFoundError, NotTextError, StoreError
from rlm_mcp.sandbox.types import ContextSource
from rlm_mcp.store.contexts.chunking import CHUNK_BYTES
from rlm_mcp.store.contexts.contexts import Contexts
from rlm_mcp.store.contexts.records import (
    ContextRecord,
    DocumentRecord,
    SealedContext,
    Span,
    TextSlice,
)
from rlm_mcp.store.contexts.uploads import Pages
from rlm_mcp.store.database import Database, open_database

MIB = 1 << 20


@pytest.fixture
async def database(tmp_path: Path) -> AsyncGenerator[Database]:
    async with open_database(tmp_path / "rlm.sqlite3") as database:
        yield database


@pytest.fixture
async def contexts(database: Database) -> Contexts:
    return Contexts(database)


async def add(contexts: Contexts, text: str, name: str = "") -> SealedContext:
    async with contexts.open_upload(name) as upload:
        await upload.write(text.encode())
        return await upload.seal()


async def add_several(
    contexts: Contexts, documents: Mapping[str, str], name: str = ""
) -> SealedContext:
    async with contexts.open_upload(name) as upload:
        for title, text in documents.items():
            await upload.begin_document(title)
            await upload.write(text.encode())
        return await upload.seal()


async def count_rows(database: Database) -> dict[str, int]:
    tables = ("texts", "chunks", "documents", "uploads", "contexts")
    return await database.read(
        lambda db: {
            table: db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables
        }
    )


async def test_a_sealed_context_has_a_handle_made_from_its_content(contexts: Contexts) -> None:
    text = "héllo\nwörld"
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    sealed = await add(contexts, text, "greeting")
    expected = ContextRecord(
        handle=f"ctx_{sha256[:16]}",
        name="greeting",
        sha256=sha256,
        bytes=13,
        chars=11,
        lines=2,
        documents=1,
        created_at=sealed.record.created_at,
        preview=text,
    )
    assert sealed == SealedContext(expected, deduplicated=False, replaced_characters=0)
    assert sealed.record.created_at.endswith("+00:00")
    assert sealed.record.estimated_tokens == 4
    assert await contexts.get(expected.handle) == expected
    assert await contexts.count() == 1


async def test_the_same_content_is_stored_once_and_keeps_its_name(
    contexts: Contexts, database: Database
) -> None:
    first = await add(contexts, "same", "old name")
    second = await add(contexts, "same", "new name")
    assert second == SealedContext(first.record, deduplicated=True, replaced_characters=0)
    assert await count_rows(database) == {
        "texts": 1,
        "chunks": 1,
        "documents": 1,
        "uploads": 0,
        "contexts": 1,
    }


async def test_content_without_a_name_takes_that_of_its_duplicate(contexts: Contexts) -> None:
    first = await add(contexts, "same")
    second = await add(contexts, "same", "at last")
    assert second.deduplicated
    assert (await contexts.get(first.record.handle)).name == "at last"


async def test_uploads_of_the_same_content_at_once_give_one_context(contexts: Contexts) -> None:
    sealed: list[SealedContext] = []

    async def upload() -> None:
        sealed.append(await add(contexts, "same" * 1000))

    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(upload)
    assert len({one.record.handle for one in sealed}) == 1
    assert sorted(one.deduplicated for one in sealed) == [False] + [True] * 7
    assert await contexts.count() == 1


async def test_names_and_division_of_documents_are_part_of_the_content(contexts: Contexts) -> None:
    several = [
        await add_several(contexts, {"a": "x", "b": "y"}),
        await add_several(contexts, {"a": "xy", "b": ""}),
        await add_several(contexts, {"b": "x", "a": "y"}),
        await add_several(contexts, {"ab": "x", "": "y"}),
        await add_several(contexts, {"a": "xy"}),
    ]
    assert len({one.record.handle for one in several}) == 5
    assert (await add_several(contexts, {"a": "x", "b": "y"})).deduplicated
    assert (await add(contexts, "xy", "the name of one document is not")).deduplicated


async def test_a_context_of_several_documents_is_named_by_their_names_and_digests(
    contexts: Contexts,
) -> None:
    sealed = await add_several(contexts, {"a": "x", "é": "y"})
    framing = b"\xffdocuments\n"
    for name, text in (("a", b"x"), ("é", b"y")):
        encoded = name.encode()
        framing += len(encoded).to_bytes(8, "big") + encoded + hashlib.sha256(text).digest()
    assert sealed.record.sha256 == hashlib.sha256(framing).hexdigest()


async def test_another_content_under_the_same_handle_is_refused(
    contexts: Contexts, database: Database
) -> None:
    handle = (await add(contexts, "text")).record.handle
    forged = "UPDATE contexts SET sha256 = ?"
    await database.write(lambda db: db.execute(forged, [handle.removeprefix("ctx_") + "0" * 48]))
    with pytest.raises(StoreError, match=f"The handle '{handle}' already belongs"):
        await add(contexts, "text")
    assert (await count_rows(database))["uploads"] == 0


async def test_a_text_without_a_character_is_refused_and_leaves_nothing(
    contexts: Contexts, database: Database
) -> None:
    for documents in ({}, {"a": ""}, {"a": "", "b": ""}, {"a": "\ufeff"}):
        with pytest.raises(NotTextError, match="is empty"):
            await add_several(contexts, documents, "nothing")
    assert set((await count_rows(database)).values()) == {0}


async def test_bytes_that_are_no_utf8_are_replaced_and_counted(contexts: Contexts) -> None:
    async with contexts.open_upload() as upload:
        await upload.write(b"caf\xe9 \xff")
        sealed = await upload.seal()
    assert sealed.replaced_characters == 2
    assert sealed.record.preview == "caf\ufffd \ufffd"


async def test_the_preview_is_the_first_200_characters(contexts: Contexts) -> None:
    assert (await add(contexts, "😀" * 500)).record.preview == "😀" * 200
    several = await add_several(contexts, {"empty": "", "a": "x" * 150, "b": "y" * 150})
    assert several.record.preview == "x" * 150 + "y" * 50


async def test_pages_of_the_list_are_newest_first_and_stay_put_under_inserts(
    contexts: Contexts,
) -> None:
    handles = [(await add(contexts, f"text {index}")).record.handle for index in range(5)]
    first = await contexts.list(limit=2)
    await add(contexts, "one more")
    second = await contexts.list(limit=2, cursor=first.next_cursor)
    await contexts.delete(second.items[-1].handle)
    third = await contexts.list(limit=2, cursor=second.next_cursor)
    listed = [record.handle for page in (first, second, third) for record in page.items]
    assert listed == handles[::-1]
    assert third.next_cursor is None


@pytest.mark.parametrize(
    "cursor",
    [
        *("", "x", "é", "Y29udGV4dHM6", "0" * 10_000, "\ud800"),
        encode_cursor("runs", 5),
        encode_cursor("contexts"),
        encode_cursor("contexts", -1),
        encode_cursor("contexts", "5"),
        encode_cursor("contexts", 5, 5),
    ],
)
async def test_a_cursor_of_another_list_or_none_at_all_is_refused(
    contexts: Contexts, cursor: str
) -> None:
    with pytest.raises(InvalidInputError, match="does not belong to this list"):
        await contexts.list(cursor=cursor)


async def test_a_limit_below_one_is_refused(contexts: Contexts) -> None:
    with pytest.raises(InvalidInputError, match="limit must be at least 1, not 0"):
        await contexts.list(limit=0)


async def test_many_documents_without_text_are_written_as_they_come(contexts: Contexts) -> None:
    async with contexts.open_upload() as upload:
        for index in range(20_001):
            await upload.begin_document(str(index))
        await upload.write(b"at last")
        record = (await upload.seal()).record
    assert (record.documents, record.chars) == (20_001, 7)


async def test_an_unknown_handle_names_near_ones_and_how_to_list_them(contexts: Contexts) -> None:
    handle = (await add(contexts, "text")).record.handle
    for call in (contexts.get, contexts.read, contexts.delete, contexts.documents):
        with pytest.raises(NotFoundError) as caught:
            await call(handle[:-1])
        assert repr(handle[:-1]) in caught.value.message
        assert repr(handle) in caught.value.fix
        assert "rlm_context_list" in caught.value.fix
    with pytest.raises(NotFoundError, match="rlm_context_list"):
        await contexts.get("\ud800" * 100_000)


async def test_documents_are_listed_in_pages(contexts: Contexts) -> None:
    handle = (await add_several(contexts, {"a": "é\n", "b": "", "c": "x"})).record.handle
    rows = [
        DocumentRecord(0, "a", 3, 2, 1),
        DocumentRecord(1, "b", 0, 0, 0),
        DocumentRecord(2, "c", 1, 1, 1),
    ]
    assert await contexts.documents(handle) == rows
    assert await contexts.documents(handle, start=1, limit=1) == rows[1:2]
    assert await contexts.documents(handle, start=10**30) == []


async def test_slices_of_characters_and_of_lines(contexts: Contexts) -> None:
    handle = (await add(contexts, "one\r\ntwo\n\nfour")).record.handle
    assert await contexts.read(handle, Span(start=1, limit=3)) == TextSlice("ne\r", 1, 4, 14, 4)
    assert await contexts.read(handle, Span(start=10)) == TextSlice("four", 10, 14, 14, None)
    lines = Span(start=1, limit=2, unit="lines")
    assert await contexts.read(handle, lines) == TextSlice("two\n\n", 1, 3, 4, 3)


@pytest.mark.parametrize("start", [14, 15, 10**30])
async def test_a_start_past_the_end_gives_an_empty_slice_at_the_end(
    contexts: Contexts, start: int
) -> None:
    handle = (await add(contexts, "one\r\ntwo\n\nfour")).record.handle
    assert await contexts.read(handle, Span(start=start)) == TextSlice("", 14, 14, 14, None)
    lines = Span(start=start, unit="lines")
    assert await contexts.read(handle, lines) == TextSlice("", 4, 4, 4, None)


@pytest.mark.parametrize(
    ("span", "message"),
    [
        (Span(start=-1), "start must not be negative, not -1"),
        (Span(limit=-2), "limit must not be negative, not -2"),
        (Span(document=-3), "document must not be negative, not -3"),
        (Span(max_chars=0), "max_chars must be at least 1, not 0"),
        (Span(unit="bytes"), "no unit 'bytes'"),  # pyright: ignore[reportArgumentType]  # as a caller might
    ],
)
async def test_offsets_that_no_slice_has_are_refused(
    contexts: Contexts, span: Span, message: str
) -> None:
    handle = (await add(contexts, "text")).record.handle
    with pytest.raises(InvalidInputError, match=message):
        await contexts.read(handle, span)


async def test_a_document_out_of_range_names_the_range(contexts: Contexts) -> None:
    handle = (await add_several(contexts, {"a": "x", "b": "y"})).record.handle
    for document in (2, 10**30):
        with pytest.raises(NotFoundError, match="documents are 0 to 1"):
            await contexts.read(handle, Span(document=document))


async def test_lines_stop_before_they_are_too_many_characters(contexts: Contexts) -> None:
    handle = (await add(contexts, "aaa\nbbb\ncccccccccc\nd")).record.handle

    async def read(start: int, max_chars: int) -> TextSlice:
        return await contexts.read(handle, Span(start=start, unit="lines", max_chars=max_chars))

    assert await read(0, 20) == TextSlice("aaa\nbbb\ncccccccccc\nd", 0, 4, 4, None)
    assert await read(0, 10) == TextSlice("aaa\nbbb\n", 0, 2, 4, 2)
    assert await read(0, 8) == TextSlice("aaa\nbbb\n", 0, 2, 4, 2)
    assert await read(2, 5) == TextSlice("ccccc", 2, 3, 4, 3, cut=True, cut_at=13)
    assert (await contexts.read(handle, Span(start=13, limit=6))).text == "ccccc\n"
    assert await read(3, 1) == TextSlice("d", 3, 4, 4, None)


def random_documents(dice: random.Random) -> dict[str, str]:
    alphabet = ["a", "\n", "\r\n", "é", "漢", "😀", "\u2028", "\0", " " * 30]
    sizes = [*dice.choices([0, 1, 5, 3000, 200_000], k=dice.randint(1, 5)), CHUNK_BYTES // 3]
    return {str(at): "".join(dice.choices(alphabet, k=size)) for at, size in enumerate(sizes)}


def lines_of(text: str) -> list[str]:
    lines = text.split("\n")
    return [line + "\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])


@pytest.mark.parametrize("seed", range(3))
async def test_random_slices_are_those_of_the_plain_text(contexts: Contexts, seed: int) -> None:
    dice = random.Random(seed)
    documents = random_documents(dice)
    handle = (await add_several(contexts, documents)).record.handle
    divided = [(name, text, lines_of(text)) for name, text in documents.items()]
    for _ in range(25):
        name, *kinds = dice.choice(divided)
        units = dice.choice(kinds)
        start, limit = dice.randint(0, len(units) + 2), dice.choice([0, 1, 100, 1 << 30])
        unit = "chars" if isinstance(units, str) else "lines"
        span = Span(int(name), start, limit, unit, max_chars=1 << 40)
        first, last = min(start, len(units)), min(start + limit, len(units))
        after = last if last < len(units) else None
        expected = TextSlice("".join(units[first:last]), first, last, len(units), after)
        assert await contexts.read(handle, span) == expected


async def read_all(source: ContextSource) -> bytes:
    return await anyio.to_thread.run_sync(lambda: b"".join(source.chunks()))


async def test_a_source_of_one_document_is_a_str(contexts: Contexts) -> None:
    sealed = await add(contexts, "é" * MIB, "big")
    source: ContextSource = await contexts.source([sealed.record.handle])
    assert not source.is_list
    assert source.key.startswith(sealed.record.handle)
    assert list(source.names) == ["big"]
    assert list(source.byte_lengths) == [2 * MIB]
    assert list(source.char_lengths) == [MIB]
    assert source.prefix == "é" * 4000
    assert await read_all(source) == ("é" * MIB).encode()


async def test_a_source_of_several_contexts_is_their_documents_in_order(
    contexts: Contexts,
) -> None:
    one = (
        await add_several(contexts, {"a\r\n😀": "x", "empty": "", "b": "yz"}, "first")
    ).record.handle
    two = (await add(contexts, "é", "second")).record.handle
    source = await contexts.source([two, one, two])
    assert source.is_list
    assert source.key.startswith(f"{two}+{one}+{two}+")
    assert list(source.names) == [
        "second/second",
        "first/a\r\n😀",
        "first/empty",
        "first/b",
        "second/second",
    ]
    assert source.names[-1] == "second/second"
    assert source.names[1:3] == ["first/a\r\n😀", "first/empty"]
    assert list(source.byte_lengths) == [2, 1, 0, 2, 2]
    assert list(source.char_lengths) == [1, 1, 0, 2, 1]
    assert source.prefix == "é"
    assert await read_all(source) == "éxyzé".encode()


async def test_a_source_needs_contexts_that_exist(contexts: Contexts) -> None:
    handle = (await add(contexts, "text")).record.handle
    with pytest.raises(InvalidInputError, match="No context was given"):
        await contexts.source([])
    with pytest.raises(NotFoundError, match="ctx_other"):
        await contexts.source([handle, "ctx_other"])


async def test_a_source_that_was_deleted_says_so_before_its_first_byte(contexts: Contexts) -> None:
    handle = (await add(contexts, "text")).record.handle
    source = await contexts.source([handle])
    await contexts.delete(handle)
    with pytest.raises(StoreError, match="was deleted while it was in use"):
        await read_all(source)


async def test_a_source_can_be_read_in_two_parts(contexts: Contexts) -> None:
    texts = ["a" * (2 * MIB), "ü" * MIB, "c" * 10]
    handles = [(await add(contexts, text)).record.handle for text in texts]
    source = await contexts.source(handles)
    whole = "".join(texts).encode()

    def read_in_parts(middle: int) -> bytes:
        spans = ((0, middle), (middle, len(whole)))
        parts = [list(source.chunks_between(*span)) for span in spans]
        assert all(place < middle for place, _ in parts[0])
        assert all(whole.startswith(data, place) for part in parts for place, data in part)
        return b"".join(data for part in parts for _, data in part)

    for middle in (0, 1, MIB, 2 * MIB, 2 * MIB + 1, 3 * MIB, len(whole)):
        assert await anyio.to_thread.run_sync(read_in_parts, middle) == whole


async def test_a_scan_that_has_begun_outlives_a_delete(contexts: Contexts) -> None:
    text = b"x" * (3 * MIB)
    handle = (await add(contexts, text.decode())).record.handle
    chunks = (await contexts.source([handle])).chunks()
    first = await anyio.to_thread.run_sync(next, chunks)
    await contexts.delete(handle)
    assert first + await anyio.to_thread.run_sync(lambda: b"".join(chunks)) == text


def is_pinned(path: Path) -> bool:
    """Say whether a snapshot that is still read keeps a write from being merged into the file."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("INSERT INTO texts DEFAULT VALUES")
        _, logged, merged = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    finally:
        connection.close()
    return merged < logged


async def test_a_scan_that_is_dropped_half_way_closes_its_connection(
    contexts: Contexts, database: Database
) -> None:
    handle = (await add(contexts, "x" * (2 * MIB))).record.handle
    source = await contexts.source([handle])

    def drop_half_way() -> tuple[bool, bool]:
        chunks = source.chunks()
        next(chunks)
        during = is_pinned(database.path)
        del chunks
        return during, is_pinned(database.path)

    assert await anyio.to_thread.run_sync(drop_half_way) == (True, False)


async def test_many_small_documents_share_chunks_and_keep_their_places(
    contexts: Contexts, database: Database
) -> None:
    count = 20_000
    async with contexts.open_upload("many") as upload:
        for index in range(count):
            await upload.begin_document(f"d{index}")
            if index % 3:
                await upload.write(b"%d\n" % index)
        sealed = await upload.seal()
    source = await contexts.source([sealed.record.handle])
    texts = [f"{index}\n" if index % 3 else "" for index in range(count)]
    assert list(source.byte_lengths) == [len(text) for text in texts]
    assert list(source.names) == [f"d{index}" for index in range(count)]
    assert await read_all(source) == "".join(texts).encode()
    assert (await count_rows(database))["chunks"] == 1
    for index in (0, 1, 12_345, count - 1):
        found = await contexts.read(sealed.record.handle, Span(document=index, unit="lines"))
        assert found.text == texts[index]


async def test_a_deleted_context_leaves_no_row_and_can_be_added_again(
    contexts: Contexts, database: Database
) -> None:
    kept = (await add(contexts, "kept")).record.handle
    async with contexts.open_upload() as upload:
        for index in range(6000):
            await upload.begin_document(str(index))
            await upload.write(b"x" * 4000)
        sealed = await upload.seal()
    assert await contexts.delete(sealed.record.handle) == 24_000_000
    assert await count_rows(database) == {
        "texts": 1,
        "chunks": 1,
        "documents": 1,
        "uploads": 0,
        "contexts": 1,
    }
    assert (await contexts.read(kept)).text == "kept"
    with pytest.raises(NotFoundError):
        await contexts.delete(sealed.record.handle)
    assert not (await add(contexts, "x" * 4000)).deduplicated


async def test_a_delete_that_is_cancelled_is_finished_by_a_sweep(
    contexts: Contexts, database: Database
) -> None:
    handle = (await add(contexts, "x" * (40 * MIB))).record.handle
    first, second = threading.Event(), threading.Event()

    async def hold(end: threading.Event) -> None:
        await database.write(lambda _: end.wait(5))

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            # Writers take turns: this one, the delete's first step, then the next one.
            group.start_soon(hold, first)
            await anyio.wait_all_tasks_blocked()
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as deleting:
                    deleting.start_soon(contexts.delete, handle)
                    await anyio.wait_all_tasks_blocked()
                    group.start_soon(hold, second)
                    await anyio.wait_all_tasks_blocked()
                    first.set()
                    while await contexts.count():
                        await anyio.lowlevel.checkpoint()
                    scope.cancel()
            second.set()
    assert (await count_rows(database))["texts"] == 1
    assert await contexts.sweep() == 1
    assert set((await count_rows(database)).values()) == {0}
    assert await contexts.sweep() == 0


async def test_a_place_in_a_converted_document_is_told_by_its_page(
    contexts: Contexts, database: Database
) -> None:
    async with contexts.open_upload("report") as upload:
        await upload.begin_document("plain.txt")
        await upload.write(b"no pages here")
        await upload.begin_document("report.pdf")
        await upload.write(b"first page\nsecond page\n")
        await upload.write_all([Pages(((0, "page 1"), (11, "page 2")))], 0)
        handle = (await upload.seal()).record.handle

    labels = await contexts.pages_at(handle, [(0, 3), (1, 0), (1, 10), (1, 11), (1, 22)])
    assert labels == [None, "page 1", "page 1", "page 2", "page 2"]
    await contexts.delete(handle)
    pages = await database.read(lambda db: db.execute("SELECT count(*) FROM pages").fetchone())
    assert pages == (0,)


async def test_the_pages_of_one_caller_are_none_of_another_who_holds_the_same_text(
    database: Database,
) -> None:
    marked, plain = Contexts(database, caller="one"), Contexts(database, caller="two")
    for contexts, pages in ((marked, ((0, "page 1"),)), (plain, ())):
        async with contexts.open_upload("same") as upload:
            await upload.write(b"the same text")
            await upload.write_all([Pages(pages)], 0)
            handle = (await upload.seal()).record.handle

    assert await marked.pages_at(handle, [(0, 5)]) == ["page 1"]
    assert await plain.pages_at(handle, [(0, 5)]) == [None]


async def test_a_text_that_is_stored_again_keeps_the_pages_that_it_had(contexts: Contexts) -> None:
    for pages in ([(0, "page 1")], [(0, "slide 1"), (4, "slide 2")]):
        async with contexts.open_upload("same") as upload:
            await upload.write(b"the same text")
            await upload.write_all([Pages(tuple(pages))], 0)
            handle = (await upload.seal()).record.handle

    assert await contexts.pages_at(handle, [(0, 0), (0, 5)]) == ["page 1", "page 1"]
