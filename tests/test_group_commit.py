"""Writes that share a transaction: each has its own outcome, and lasts once it is told."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import threading
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from sqlite3 import Connection

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from rlm_mcp.errors import InvalidInputError, StoreBusyError, StoreError
from rlm_mcp.store.database import Database, open_database

WRITERS = 100


@pytest.fixture
async def database(tmp_path: Path) -> AsyncGenerator[Database]:
    async with open_database(tmp_path / "rlm.sqlite3") as opened:
        await opened.write(lambda db: db.execute("CREATE TABLE noted (number INTEGER)"))
        yield opened


def note(number: int) -> Callable[[Connection], int]:
    def write(db: Connection) -> int:
        db.execute("INSERT INTO noted VALUES (?)", [number])
        return number

    return write


async def noted(database: Database) -> list[int]:
    sql = "SELECT number FROM noted ORDER BY number"
    return await database.read(lambda db: [row[0] for row in db.execute(sql)])


class Held:
    """A write that keeps the writer until it is let go, so that others gather behind it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._goes_on = threading.Event()
        self.has_begun = threading.Event()

    def _wait(self, db: Connection) -> None:
        del db
        self.has_begun.set()
        self._goes_on.wait(30)

    async def write(self) -> None:
        await self._database.write_grouped(self._wait)

    def let_go(self) -> None:
        self._goes_on.set()


async def until_gathered() -> None:
    for _ in range(20):
        await anyio.lowlevel.checkpoint()


async def test_writes_that_come_at_the_same_time_share_transactions(database: Database) -> None:
    statements: list[str] = []
    await database.write(lambda db: db.set_trace_callback(statements.append))
    results: list[int] = []

    async def write(number: int) -> None:
        results.append(await database.write_grouped(note(number)))
        assert number in await noted(database)

    async with anyio.create_task_group() as group:
        for number in range(WRITERS):
            group.start_soon(write, number)

    assert sorted(results) == list(range(WRITERS)) == await noted(database)
    assert statements.count("COMMIT") < WRITERS / 10


async def test_a_write_that_fails_is_undone_alone(database: Database) -> None:
    held = Held(database)
    errors: list[Exception] = []

    async def fail(error: Exception) -> None:
        def write(db: Connection) -> None:
            note(-1)(db)
            raise error

        with pytest.raises((InvalidInputError, StoreError, ZeroDivisionError)) as raised:
            await database.write_grouped(write)
        errors.append(raised.value)

    async with anyio.create_task_group() as group:
        group.start_soon(held.write)
        await until_gathered()
        group.start_soon(database.write_grouped, note(1))
        group.start_soon(fail, InvalidInputError("no"))
        group.start_soon(database.write_grouped, note(2))
        group.start_soon(fail, ZeroDivisionError())
        # SQLite's own may have ended the whole transaction: each is then done alone.
        group.start_soon(fail, sqlite3.OperationalError("disk I/O error"))
        group.start_soon(database.write_grouped, note(3))
        await until_gathered()
        held.let_go()

    assert {type(error) for error in errors} == {InvalidInputError, ZeroDivisionError, StoreError}
    assert await noted(database) == [1, 2, 3]


async def test_a_write_that_is_cancelled_while_it_waits_leaves_no_trace(
    database: Database,
) -> None:
    held = Held(database)
    scopes = [anyio.CancelScope() for _ in range(3)]

    async def write(number: int) -> None:
        with scopes[number]:
            await database.write_grouped(note(number))

    async with anyio.create_task_group() as group:
        group.start_soon(held.write)
        await until_gathered()
        for number in range(3):
            group.start_soon(write, number)
        await until_gathered()
        scopes[0].cancel()
        await until_gathered()
        held.let_go()

    assert await noted(database) == [1, 2]
    assert [scope.cancelled_caught for scope in scopes] == [True, False, False]


async def test_a_write_that_has_begun_ends_before_its_caller_is_cancelled(
    database: Database,
) -> None:
    held = Held(database)
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(held.write)
            await anyio.to_thread.run_sync(held.has_begun.wait)
            group.start_soon(database.write_grouped, note(1))
            await until_gathered()
            scope.cancel()
            held.let_go()
    await database.write_grouped(note(2))
    assert await noted(database) == [2]


@pytest.mark.parametrize("seed", range(5))
async def test_whoever_is_cancelled_no_write_is_lost_doubled_or_left_waiting(
    database: Database, seed: int
) -> None:
    chance = random.Random(seed)
    done: list[int] = []
    cancelled: set[int] = set()

    async def write(number: int, steps: int | None) -> None:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                if steps is not None:
                    group.start_soon(cancel_after, scope, steps)
                done.append(await database.write_grouped(note(number)))
                group.cancel_scope.cancel()
        if scope.cancelled_caught:
            cancelled.add(number)

    async def cancel_after(scope: anyio.CancelScope, steps: int) -> None:
        for _ in range(steps):
            await anyio.lowlevel.checkpoint()
        scope.cancel()

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            for number in range(WRITERS):
                steps = chance.randrange(30) if chance.random() < 0.5 else None
                group.start_soon(write, number, steps)
                for _ in range(chance.randrange(3)):
                    await anyio.lowlevel.checkpoint()
    kept = await noted(database)
    assert len(kept) == len(set(kept))
    assert set(done) <= set(kept) <= set(done) | cancelled


async def test_callers_who_cannot_wait_long_are_all_told_at_the_same_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlm_mcp.store.database.CALLER_PATIENCE_SECONDS", 0.05)
    held, told = Held(database), list[StoreBusyError]()

    async def write(number: int) -> None:
        try:
            await database.write_grouped(note(number), is_patient=False)
        except StoreBusyError as error:
            told.append(error)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(held.write)
            await anyio.to_thread.run_sync(held.has_begun.wait)
            async with anyio.create_task_group() as callers:
                for number in range(5):
                    callers.start_soon(write, number)
            held.let_go()
    assert len(told) == 5
    await write(6)
    assert (len(told), await noted(database)) == (5, [6])


async def test_reads_that_come_at_the_same_time_each_get_their_own_result(
    database: Database,
) -> None:
    results: dict[int, int] = {}

    async def read(number: int) -> None:
        if number == 7:
            with pytest.raises(InvalidInputError, match="no"):
                await database.read_grouped(refuse)
            return
        sql = "SELECT ?"
        results[number] = await database.read_grouped(
            lambda db: db.execute(sql, [number]).fetchone()[0]
        )

    def refuse(db: Connection) -> None:
        del db
        raise InvalidInputError("no")

    async with anyio.create_task_group() as group:
        for number in range(WRITERS):
            group.start_soon(read, number)
    assert results == {number: number for number in range(WRITERS) if number != 7}


async def test_a_write_is_not_acknowledged_before_its_transaction_is_in_the_file(
    database: Database,
) -> None:
    before, last = Held(database), Held(database)
    first = asyncio.create_task(before.write())
    await anyio.to_thread.run_sync(before.has_begun.wait)
    leader = asyncio.create_task(database.write_grouped(note(1)))
    await until_gathered()
    other = asyncio.create_task(database.write_grouped(note(2)))
    behind = asyncio.create_task(last.write())
    await until_gathered()
    before.let_go()
    await anyio.to_thread.run_sync(last.has_begun.wait)
    leader.cancel()  # as asyncio does it, past every shield
    await asyncio.wait([other], timeout=1)
    is_told = other.done() and other.exception() is None
    seen = await noted(database)
    last.let_go()
    await asyncio.gather(first, leader, other, behind, return_exceptions=True)

    assert not is_told or 2 in seen
