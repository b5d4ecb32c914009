"""Callers: each has contexts and runs of its own, and learns nothing of the others'."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from sqlite_utils import Database as SQLiteFile

from rlm_mcp.errors import NotFoundError, RLMError
from rlm_mcp.service.contexts.added import Added
from rlm_mcp.service.contexts.requests import NewText, SearchQuery
from rlm_mcp.service.opening import open_service
from rlm_mcp.service.runs.questions import Question
from rlm_mcp.service.runs.runs import RunState
from rlm_mcp.service.service import Service
from rlm_mcp.store.contexts.contexts import Contexts
from rlm_mcp.store.contexts.records import SealedContext, Span
from rlm_mcp.store.contexts.texts import utc_now
from rlm_mcp.store.database import Database, open_database
from rlm_mcp.store.migrations import migrations
from rlm_mcp.store.runs.leases import RunLeases
from rlm_mcp.store.runs.records import NewEvent, NewRun, Outcome, SavedVariable
from rlm_mcp.store.runs.runs import Runs
from rlm_mcp.testing.scripted_model import ScriptedModel, open_scripted_model
from tests.serving import cell, settings_in, turns


@pytest.fixture
async def database(tmp_path: Path) -> AsyncGenerator[Database]:
    async with open_database(tmp_path / "rlm.sqlite3") as database:
        yield database


@pytest.fixture
async def ann(database: Database) -> Contexts:
    return Contexts(database, caller="ann")


@pytest.fixture
async def bob(database: Database) -> Contexts:
    return Contexts(database, caller="bob")


async def add(contexts: Contexts, text: str, name: str = "") -> SealedContext:
    async with contexts.open_upload(name) as upload:
        await upload.write(text.encode())
        return await upload.seal()


async def writes(database: Database) -> int:
    """Return how many rows were inserted, changed or deleted so far."""
    return await database.write(lambda db: db.total_changes)


async def count(database: Database, table: str) -> int:
    sql = f"SELECT count(*) FROM {table}"
    return await database.read(lambda db: db.execute(sql).fetchone()[0])


async def test_equal_content_is_stored_once_and_each_caller_has_an_entry_of_its_own(
    database: Database, ann: Contexts, bob: Contexts
) -> None:
    hers, his = await add(ann, "same", "her name"), await add(bob, "same", "his name")

    assert (hers.deduplicated, his.deduplicated) == (False, False)
    assert hers.record.handle == his.record.handle
    assert (await ann.get(hers.record.handle)).name == "her name"
    assert (await bob.get(hers.record.handle)).name == "his name"
    # How long adding takes must not tell one that another has it: copies go a little later.
    assert await bob.drop_unused() == 1
    assert [await count(database, table) for table in ("texts", "chunks")] == [1, 1]
    assert (await add(bob, "same")).deduplicated
    assert [(await one.count(), await one.total_bytes()) for one in (ann, bob)] == [(1, 4)] * 2


async def test_a_text_lasts_until_its_last_holder_lets_go(
    database: Database, ann: Contexts, bob: Contexts
) -> None:
    handle = (await add(ann, "same")).record.handle
    await add(bob, "same")

    assert await ann.delete(handle) == 4
    assert (await bob.read(handle)).text == "same"
    with pytest.raises(NotFoundError):
        await ann.read(handle)
    assert await bob.drop_unused() == 1  # the copy that he sent
    assert await bob.drop_unused() == 0
    assert (await bob.read(handle)).text == "same"
    assert await bob.delete(handle) == 4
    assert await bob.drop_unused() == 1
    assert [await count(database, table) for table in ("texts", "chunks", "documents")] == [0] * 3


async def test_adding_and_deleting_write_as_much_whether_or_not_another_holds_the_text(
    database: Database, ann: Contexts, bob: Contexts
) -> None:
    counts: list[tuple[int, int]] = []
    await add(ann, "her text" * 500_000)
    for text in ("her text", "his text"):
        before = await writes(database)
        handle = (await add(bob, text * 500_000)).record.handle
        added = await writes(database)
        await bob.delete(handle)
        counts.append((added - before, await writes(database) - added))
    assert counts[0] == counts[1]


async def test_the_names_of_others_are_not_seen_in_documents_sources_or_hints(
    ann: Contexts, bob: Contexts
) -> None:
    handle = (await add(ann, "same", "secret project")).record.handle
    with pytest.raises(NotFoundError) as raised:
        await bob.get(handle[:-1])
    assert handle not in str(raised.value)
    assert (await bob.list()).items == []

    await add(bob, "same", "mine")
    await add(bob, "other", "other")
    his = await bob.source([handle])
    assert (list(his.names), his.key) != (["secret project"], (await ann.source([handle])).key)
    assert [one.name for one in await bob.documents(handle)] == ["mine"]
    assert [one.name for one in await ann.documents(handle)] == ["secret project"]
    assert list((await bob.source([handle])).names) == ["mine"]


async def test_an_upload_is_continued_by_nobody_else(ann: Contexts, bob: Contexts) -> None:
    async with ann.open_upload("parts") as upload:
        await upload.write(b"one ")
        upload_id = (await upload.pause()).upload_id
    with pytest.raises(NotFoundError):
        async with bob.continue_upload(upload_id):
            pass
    async with ann.continue_upload(upload_id) as upload:
        await upload.write(b"two")
        assert (await upload.seal()).record.chars == 7


async def test_every_way_to_a_run_is_closed_to_others(database: Database) -> None:
    ann, bob = (Runs(database, owner="me", caller=name) for name in ("ann", "bob"))
    await ann.create(NewRun("run_1", "q"))
    await ann.append_event("run_1", NewEvent("run_started"))
    await ann.save_variables("run_1", [SavedVariable("x", "int", 1, "1", "1", json=True)])

    ended = NewEvent("run_finished")
    attempts: list[Callable[[Runs], Awaitable[object]]] = [
        lambda runs: runs.get("run_1"),
        lambda runs: runs.append_event("run_1", ended),
        lambda runs: runs.append_afterwards("run_1", ended),
        lambda runs: runs.finish("run_1", Outcome("cancelled"), ended),
        lambda runs: runs.events("run_1"),
        lambda runs: runs.save_variables("run_1", []),
        lambda runs: runs.variables("run_1"),
        lambda runs: runs.saved_variables("run_1"),
        lambda runs: runs.variable("run_1", "x"),
    ]
    for attempt in attempts:
        with pytest.raises(NotFoundError) as raised:
            await attempt(bob)
        assert "Did you mean" not in str(raised.value)

    assert ((await bob.list()).items, await bob.count()) == ([], 0)
    assert (await ann.get("run_1")).last_event == 1
    assert len(await ann.variables("run_1")) == 1


async def test_runs_of_every_caller_are_interrupted_with_their_process(database: Database) -> None:
    ann, leases = Runs(database, owner="me", caller="ann"), RunLeases(database, owner="another")
    await ann.create(NewRun("run_1", "q"))

    assert await leases.interrupt_owner("me") == ["run_1"]
    assert (await ann.get("run_1")).status == "interrupted"


def _write_old_file(path: Path) -> None:
    with sqlite3.connect(path) as db:
        migrations.apply(SQLiteFile(db), stop_before="m002_contexts_by_caller")
        rows = ((1, "ctx_one", "one", ["doc"]), (2, "ctx_two", "two", ["a", "b"]))
        for text, handle, name, documents in rows:
            db.execute("INSERT INTO texts VALUES (?)", [text])
            db.execute("INSERT INTO chunks VALUES (?, ?, 0, 0, 0, ?)", [text, text, b"xy"])
            for position, document in enumerate(documents):
                db.execute(
                    "INSERT INTO documents VALUES (?, ?, ?, ?, 1, ?, 1, 0, 1)",
                    [text, position, document, position, position],
                )
            db.execute(
                "INSERT INTO contexts(handle, text_id, name, sha256, bytes, chars, lines, "
                "documents, preview, created_at) VALUES (?, ?, ?, ?, 2, 2, 1, ?, 'xy', ?)",
                [handle, text, name, handle, len(documents), utc_now()],
            )
    db.close()


async def test_a_file_of_the_first_version_keeps_its_contexts(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite3"
    await anyio.to_thread.run_sync(_write_old_file, path)

    async with open_database(path) as database:
        contexts = Contexts(database)
        listed = [record.handle for record in (await contexts.list()).items]
        names = [[one.name for one in await contexts.documents(handle)] for handle in listed]
        text = await contexts.read("ctx_two", Span(document=1))
        sealed = await add(contexts, "new")

    assert listed == ["ctx_two", "ctx_one"]
    assert names == [["a", "b"], ["doc"]]
    assert text.text == "y"
    assert not sealed.deduplicated


@asynccontextmanager
async def two_callers(
    directory: Path, *replies: str
) -> AsyncGenerator[tuple[Service, Service, ScriptedModel]]:
    async with open_scripted_model(turns(*replies)) as model:
        settings = settings_in(directory, base_url=model.base_url)
        async with open_service(settings) as service:
            yield service.as_caller("ann"), service.as_caller("bob"), model


async def add_text(service: Service, text: str, name: str = "") -> Added:
    return await service.contexts.add(NewText(text=text, name=name), silent)


async def silent(done: int, total: int) -> None:
    del done, total


async def heard(state: RunState) -> None:
    del state


async def ask(service: Service, **asked: str | tuple[str, ...]) -> RunState:
    begun = await service.runs.begin(Question("?", **asked))  # pyright: ignore[reportArgumentType]  # by field
    return await service.runs.wait(begun.run_id, 30, heard)


async def test_who_knows_a_run_of_another_can_do_nothing_with_it(tmp_path: Path) -> None:
    stuck = cell("import time\nprint('at work')\ntime.sleep(600)")
    async with two_callers(tmp_path, stuck) as (ann, bob, model):
        handle = (await add_text(ann, "her text")).handle or ""
        run_id = (await ann.runs.begin(Question("?", (handle,)))).run_id
        with anyio.fail_after(60):
            await model.until(lambda: model.received == 1)
        attempts: list[Callable[[], Awaitable[object]]] = [
            lambda: bob.runs.cancel(run_id),
            lambda: bob.runs.wait(run_id, 600, heard),
            lambda: bob.runs.events(run_id, 0, 10),
            lambda: bob.runs.variables(run_id),
            lambda: bob.runs.variable(run_id, "context", 0, 10),
            lambda: bob.cells.execute("print(context)", run_id, (), 5),
            lambda: bob.cells.execute("print(context)", "", (handle,), 5),
            lambda: bob.runs.begin(Question("?", inline_text="x", continue_run=run_id)),
            lambda: bob.runs.begin(Question("?", (handle,))),
            lambda: bob.contexts.search((handle,), SearchQuery("her"), ""),
            lambda: bob.contexts.delete(handle),
        ]
        for attempt in attempts:
            with pytest.raises(RLMError) as raised:
                await attempt()
            assert raised.value.code == "not_found"
        still = await ann.runs.wait(run_id, 0, heard)
        store = (await bob.status()).store
        await ann.runs.cancel(run_id)

    assert still.status == "running"
    assert (store.contexts, store.runs, store.bytes) == (0, 0, 0)


async def test_equal_texts_keys_and_sub_calls_of_two_callers_stay_apart(tmp_path: Path) -> None:
    code = cell("FINAL(llm_query('the same prompt') + ' in ' + context_names[0])")
    async with two_callers(tmp_path, code) as (ann, bob, model):
        handle = (await add_text(ann, "same text", "hers")).handle or ""
        assert not (await add_text(bob, "same text", "his")).deduplicated
        asked = {"contexts": (handle,), "idempotency_key": "key"}
        hers, his = await ask(ann, **asked), await ask(bob, **asked)
        again = await ask(bob, contexts=(handle,))
        prompts = [request.model for request in model.requests].count("sub")

    assert (hers.answer, his.answer) == ("the same prompt in hers", "the same prompt in his")
    assert hers.run_id != his.run_id
    figures = [(state.figures.sub_calls, state.figures.cached_sub_calls) for state in (hers, his)]
    assert figures == [(1, 0), (1, 0)]
    assert again.figures.cached_sub_calls == 1
    assert prompts == 2
