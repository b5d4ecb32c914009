"""Uploads that stop half-way: paused, continued elsewhere, aborted, cut off, killed."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import tracemalloc
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from rlm_mcp.errors import InvalidInputError, NotFoundError, NotTextError, StoreError
from rlm_mcp.store.contexts.contexts import Contexts
from rlm_mcp.store.contexts.records import OpenUpload, Span
from rlm_mcp.store.contexts.uploads import Upload
from rlm_mcp.store.database import Database, open_database

MIB = 1 << 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rlm.sqlite3"


@pytest.fixture
async def database(path: Path) -> AsyncGenerator[Database]:
    async with open_database(path) as database:
        yield database


@pytest.fixture
async def contexts(database: Database) -> Contexts:
    return Contexts(database)


async def send_part(contexts: Contexts, upload_id: str, *pieces: bytes) -> OpenUpload:
    async with contexts.continue_upload(upload_id) as upload:
        for piece in pieces:
            await upload.write(piece)
        return await upload.pause()


async def begin(contexts: Contexts, *pieces: bytes, name: str = "") -> str:
    async with contexts.open_upload(name) as upload:
        for piece in pieces:
            await upload.write(piece)
        return (await upload.pause()).upload_id


async def seal(contexts: Contexts, upload_id: str) -> str:
    async with contexts.continue_upload(upload_id) as upload:
        return (await upload.seal()).record.handle


async def fail_after_writing(opened: AbstractAsyncContextManager[Upload]) -> None:
    async with opened as upload:
        await upload.begin_document("forgotten")
        await upload.write(b"x" * (3 * MIB))
        raise LookupError


async def text_of(contexts: Contexts, handle: str) -> str:
    return (await contexts.read(handle, Span(limit=1 << 40))).text


async def is_empty(database: Database) -> bool:
    count = "SELECT (SELECT count(*) FROM texts) + (SELECT count(*) FROM chunks) + "
    count += "(SELECT count(*) FROM documents) + (SELECT count(*) FROM uploads)"
    return await database.read(lambda db: db.execute(count).fetchone()[0]) == 0


@pytest.mark.parametrize("size", [1, 2, 3, 7])
async def test_a_text_sent_in_parts_is_the_same_as_one_sent_whole(
    contexts: Contexts, size: int
) -> None:
    text = "\ufeffé€😀\n" * 5
    data = text.encode()
    upload_id = await begin(contexts, name="parts")
    for start in range(0, len(data), size):
        await send_part(contexts, upload_id, data[start : start + size])
    handle = await seal(contexts, upload_id)
    assert await text_of(contexts, handle) == text[1:]
    async with contexts.open_upload() as whole:
        await whole.write(data)
        assert (await whole.seal()).deduplicated


async def test_parts_larger_than_chunks_are_put_together(contexts: Contexts) -> None:
    parts = [("é" * (700_000 + index)).encode() + bytes([10]) for index in range(4)]
    upload_id = await begin(contexts)
    sizes = [(await send_part(contexts, upload_id, part)).bytes for part in parts]
    assert sizes == [sum(map(len, parts[: index + 1])) for index in range(4)]
    assert await text_of(contexts, await seal(contexts, upload_id)) == b"".join(parts).decode()


async def test_documents_go_on_over_parts(contexts: Contexts) -> None:
    async with contexts.open_upload("two") as upload:
        await upload.begin_document("a")
        await upload.write(b"one")
        paused = await upload.pause()
    assert paused == OpenUpload(upload.upload_id, "two", 3, 3, 1)
    async with contexts.continue_upload(paused.upload_id) as upload:
        await upload.write(b" more")
        await upload.begin_document("b")
        paused = await upload.pause()
    async with contexts.continue_upload(paused.upload_id) as upload:
        await upload.write(b"two")
        handle = (await upload.seal()).record.handle
    documents = await contexts.documents(handle)
    assert [(one.name, one.chars) for one in documents] == [("a", 8), ("b", 3)]


async def test_an_open_upload_is_in_no_list_and_its_id_is_no_handle(contexts: Contexts) -> None:
    upload_id = await begin(contexts, b"text")
    assert upload_id.startswith("upl_")
    assert (await contexts.list()).items == []
    with pytest.raises(NotFoundError):
        await contexts.get(upload_id)


async def test_a_part_that_fails_is_forgotten_and_the_upload_goes_on_before_it(
    contexts: Contexts,
) -> None:
    upload_id = await begin(contexts, b"kept ")
    with pytest.raises(LookupError):
        await fail_after_writing(contexts.continue_upload(upload_id))
    await send_part(contexts, upload_id, b"too")
    handle = await seal(contexts, upload_id)
    assert await text_of(contexts, handle) == "kept too"
    assert len(await contexts.documents(handle)) == 1


async def test_an_upload_that_is_left_unsealed_disappears(
    contexts: Contexts, database: Database
) -> None:
    with pytest.raises(LookupError):
        await fail_after_writing(contexts.open_upload())
    async with contexts.open_upload() as upload:
        await upload.write(b"x")
    assert await is_empty(database)


async def test_an_upload_that_cannot_be_removed_hides_no_other_error(
    contexts: Contexts, database: Database
) -> None:
    refuse = "CREATE TRIGGER refuse BEFORE DELETE ON uploads BEGIN SELECT RAISE(ABORT, 'no'); END"
    await database.write(lambda db: db.execute(refuse))
    with pytest.raises(LookupError):
        await fail_after_writing(contexts.open_upload())


async def test_an_upload_that_is_cancelled_disappears(
    contexts: Contexts, database: Database
) -> None:
    with anyio.CancelScope() as scope:
        async with contexts.open_upload() as upload:
            await upload.write(b"x" * (2 * MIB))
            scope.cancel()
            await upload.write(b"x" * (8 * MIB))
    assert scope.cancelled_caught
    assert await is_empty(database)


async def abort(contexts: Contexts, upload_id: str) -> None:
    async with contexts.continue_upload(upload_id) as upload:
        await upload.abort()


async def test_an_upload_is_aborted_by_whoever_continues_it(
    contexts: Contexts, database: Database
) -> None:
    upload_id = await begin(contexts, b"x" * (2 * MIB))
    await abort(contexts, upload_id)
    assert await is_empty(database)
    for call in (abort(contexts, upload_id), seal(contexts, upload_id)):
        with pytest.raises(NotFoundError, match="sealed or aborted"):
            await call


async def test_an_upload_that_was_sealed_cannot_be_continued(contexts: Contexts) -> None:
    upload_id = await begin(contexts, b"text")
    await seal(contexts, upload_id)
    with pytest.raises(NotFoundError, match="sealed or aborted"):
        await send_part(contexts, upload_id, b"more")


async def test_whoever_continues_an_upload_takes_it_from_whoever_did_before(
    contexts: Contexts,
) -> None:
    upload_id = await begin(contexts, b"one ")
    async with contexts.continue_upload(upload_id) as slow:
        await slow.write(b"lost")
        await send_part(contexts, upload_id, b"two")
        with pytest.raises(InvalidInputError, match="Another call continued"):
            await slow.pause()
        await slow.abort()
    assert await text_of(contexts, await seal(contexts, upload_id)) == "one two"


async def test_an_aborted_upload_takes_no_more(contexts: Contexts, database: Database) -> None:
    async with contexts.open_upload() as upload:
        await abort(contexts, upload.upload_id)
        await upload.write(b"x" * (2 * MIB))
        with pytest.raises(NotFoundError, match="sealed or aborted"):
            await upload.pause()
    assert await is_empty(database)


async def test_an_upload_that_lost_a_piece_can_not_be_sealed(
    contexts: Contexts, database: Database
) -> None:
    async with contexts.open_upload() as upload:
        await upload.write(b"a" * MIB)
        await database.write(lambda db: db.execute("PRAGMA max_page_count=1"))
        with pytest.raises(StoreError, match="is full"):
            await upload.write(b"b" * (40 * MIB))  # it is written while more is taken in
        await database.write(lambda db: db.execute("PRAGMA max_page_count=1000000"))
        for call in (upload.write(b"c" * MIB), upload.pause(), upload.seal()):
            with pytest.raises(StoreError, match="failed earlier and accepts no more"):
                await call
    assert await is_empty(database)


async def test_an_empty_upload_is_refused_at_its_seal_however_it_came(contexts: Contexts) -> None:
    upload_id = await begin(contexts, b"")
    with pytest.raises(NotTextError):
        await seal(contexts, upload_id)
    assert (await send_part(contexts, upload_id, b"text after all")).chars == 14


async def test_an_upload_of_any_size_takes_a_few_megabytes(contexts: Contexts) -> None:
    piece = b"0123456789abcde\n" * 4096
    tracemalloc.start()
    try:
        async with contexts.open_upload() as upload:
            for _ in range(1024):
                await upload.write(piece)
            record = (await upload.seal()).record
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert record.bytes == 64 * MIB
    assert record.lines == 4 * MIB
    assert peak < 40 * MIB


CHILD = """
import sys, anyio
from pathlib import Path
from rlm_mcp.store.contexts.contexts import Contexts
from rlm_mcp.store.database import open_database

async def main():
    async with open_database(Path(sys.argv[1])) as database:
        contexts = Contexts(database)
        async with contexts.open_upload("sealed") as upload:
            await upload.write(b"kept for good" * 100_000)
            print((await upload.seal()).record.handle, flush=True)
        async with contexts.open_upload("paused") as upload:
            await upload.write(b"kept so far" * 200_000)
            print((await upload.pause()).upload_id, flush=True)
            for index in range(1_000_000):
                await upload.begin_document(str(index))
                await upload.write(b"x" * 100_000)
                if index % 10 == 0:
                    print(index, flush=True)

anyio.run(main)
"""


def kill_in_the_middle(path: Path, lines: int) -> Sequence[str]:
    """Run an upload in another process, kill it after some lines of output, and return them."""
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        printed = [child.stdout.readline().strip() for _ in range(lines)]
        child.kill()
    return printed


def integrity(path: Path) -> list[tuple[str, ...]]:
    connection = sqlite3.connect(path)
    try:
        return [
            *connection.execute("PRAGMA integrity_check"),
            *connection.execute("PRAGMA foreign_key_check"),
        ]
    finally:
        connection.close()


@pytest.mark.parametrize("lines", [3, 7])
async def test_a_killed_upload_harms_no_sealed_context_and_goes_on_from_its_pause(
    path: Path, lines: int
) -> None:
    handle, upload_id, *_ = await anyio.to_thread.run_sync(kill_in_the_middle, path, lines)
    assert await anyio.to_thread.run_sync(integrity, path) == [("ok",)]
    async with open_database(path) as database:
        contexts = Contexts(database)
        assert [record.handle for record in (await contexts.list()).items] == [handle]
        assert await text_of(contexts, handle) == "kept for good" * 100_000
        await send_part(contexts, upload_id, b"!")
        continued = await seal(contexts, upload_id)
        assert await text_of(contexts, continued) == "kept so far" * 200_000 + "!"
        assert len(await contexts.documents(continued)) == 1


async def test_what_a_killed_upload_left_is_dropped_once_its_upload_is_aborted(
    path: Path,
) -> None:
    handle, upload_id, *_ = await anyio.to_thread.run_sync(kill_in_the_middle, path, 4)
    async with open_database(path) as database:
        contexts = Contexts(database)
        assert await contexts.sweep() == 0
        await abort(contexts, upload_id)
        await contexts.delete(handle)
        assert await is_empty(database)


async def test_two_open_databases_upload_to_one_file_at_once(path: Path) -> None:
    async def upload(contexts: Contexts, name: str) -> None:
        async with contexts.open_upload(name) as one:
            for index in range(5):
                await one.write(f"{name} {index} ".encode() * 60_000)
            await one.seal()

    async with open_database(path) as first, open_database(path) as second:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                for index in range(4):
                    group.start_soon(upload, Contexts(first), f"first {index}")
                    group.start_soon(upload, Contexts(second), f"second {index}")
        names = {record.name for record in (await Contexts(first).list()).items}
    assert names == {f"{name} {index}" for name in ("first", "second") for index in range(4)}


async def test_an_upload_that_nobody_writes_to_is_given_up_in_time(database: Database) -> None:
    contexts = Contexts(database)
    async with contexts.open_upload("paused") as upload:
        await upload.write(b"text " * 1000)
        await upload.pause()

    kept = await contexts.sweep(idle_seconds=3600)
    given_up = await contexts.sweep(idle_seconds=-1)

    assert (kept, given_up) == (0, 1)
    with pytest.raises(NotFoundError):
        async with contexts.continue_upload(upload.upload_id):
            raise AssertionError
