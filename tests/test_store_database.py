"""The file itself: made, shared, refused, full, cancelled."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from rlm_mcp.errors import StoreBusyError, StoreError
from rlm_mcp.store.database import Database, open_database
from rlm_mcp.store.migrations import bring_up_to_date
from rlm_mcp.store.schema_steps import STEPS, applied_steps

COUNT = "SELECT count(*) FROM texts"


def add_text(db: sqlite3.Connection) -> None:
    db.execute("INSERT INTO texts DEFAULT VALUES")


def count_texts(db: sqlite3.Connection) -> int:
    return db.execute(COUNT).fetchone()[0]


def content_of(path: Path) -> bytes:
    return path.read_bytes()


def files_in(directory: Path) -> list[Path]:
    return list(directory.iterdir())


def damage(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:8192] + b"\xa5" * (len(content) - 8192))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new directory" / "rlm.sqlite3"


async def test_a_missing_file_is_made_private_with_its_directory(path: Path) -> None:
    async with open_database(path) as database:
        await database.write(add_text)
        modes = [stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()]
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert len(modes) == 3
        assert set(modes) == {0o600}
        assert await database.size_bytes() > 0


async def test_what_was_written_is_there_when_the_file_is_opened_again(path: Path) -> None:
    async with open_database(path) as database:
        await database.write(add_text)
    async with open_database(path) as database:
        assert await database.read(count_texts) == 1
        assert await database.scan(count_texts) == 1


async def test_the_file_is_set_up_as_the_design_says(path: Path) -> None:
    names = ("journal_mode", "synchronous", "foreign_keys", "auto_vacuum", "page_size")
    async with open_database(path) as database:
        found = await database.write(
            lambda db: [db.execute(f"PRAGMA {name}").fetchone()[0] for name in names]
        )
    assert found == ["wal", 1, 1, 2, 8192]


async def test_a_write_that_raises_leaves_nothing(path: Path) -> None:
    def fail(db: sqlite3.Connection) -> None:
        add_text(db)
        raise LookupError("after the insert")

    async with open_database(path) as database:
        with pytest.raises(LookupError, match="after the insert"):
            await database.write(fail)
        assert await database.read(count_texts) == 0
        await database.write(add_text)
        assert await database.read(count_texts) == 1


async def test_a_read_cannot_write(path: Path) -> None:
    async with open_database(path) as database:
        with pytest.raises(StoreError, match="cannot be written") as caught:
            await database.read(add_text)
    assert str(path) in caught.value.message
    assert "RLM_MCP_DATA_DIR" in caught.value.fix


async def test_reads_go_on_while_a_write_is_under_way_and_see_nothing_of_it(path: Path) -> None:
    begun, end = threading.Event(), threading.Event()

    def write_and_wait(db: sqlite3.Connection) -> None:
        add_text(db)
        begun.set()
        assert end.wait(60)

    async with open_database(path) as database, anyio.create_task_group() as group:
        with anyio.fail_after(60):
            group.start_soon(database.write, write_and_wait)
            await anyio.to_thread.run_sync(begun.wait, 60)
            assert await database.read(count_texts) == 0
            assert await database.scan(count_texts) == 0
            end.set()


async def test_writes_go_on_while_reads_are_under_way(path: Path) -> None:
    end = threading.Event()

    def read_and_wait(db: sqlite3.Connection) -> int:
        before = count_texts(db)
        assert end.wait(60)
        assert count_texts(db) == before
        return before

    async with open_database(path) as database, anyio.create_task_group() as group:
        with anyio.fail_after(60):
            for _ in range(4):
                group.start_soon(database.read, read_and_wait)
            for _ in range(10):
                await database.write(add_text)
            end.set()
        assert await database.scan(count_texts) == 10


async def test_a_cancelled_write_that_has_begun_finishes_and_the_next_one_goes_on(
    path: Path,
) -> None:
    begun, end = threading.Event(), threading.Event()

    def write_and_wait(db: sqlite3.Connection) -> None:
        begun.set()
        assert end.wait(60)
        add_text(db)

    async with open_database(path) as database:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                group.start_soon(database.write, write_and_wait)
                await anyio.to_thread.run_sync(begun.wait, 60)
                group.start_soon(database.write, add_text)
                await anyio.wait_all_tasks_blocked()
                group.cancel_scope.cancel()
                end.set()
            assert await database.read(count_texts) == 1
            await database.write(add_text)
            assert await database.read(count_texts) == 2


async def test_a_task_cancelled_past_anyio_leaves_no_half_transaction(path: Path) -> None:
    import asyncio  # noqa: PLC0415  # the one way to cancel that goes around anyio's shields

    begun, end = threading.Event(), threading.Event()

    def write_and_wait(db: sqlite3.Connection) -> None:
        add_text(db)
        begun.set()
        assert end.wait(60)
        add_text(db)

    async with open_database(path) as database:
        with anyio.fail_after(60):
            task = asyncio.ensure_future(database.write(write_and_wait))
            await anyio.to_thread.run_sync(begun.wait, 60)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            async with anyio.create_task_group() as group:
                group.start_soon(database.write, add_text)
                await anyio.wait_all_tasks_blocked()
                end.set()
            assert await database.read(count_texts) == 3


async def test_a_closed_database_says_so(path: Path) -> None:
    async with open_database(path) as database:
        await database.read(count_texts)
    for call in (database.read, database.write, database.scan):
        with pytest.raises(StoreError, match="is closed"):
            await call(count_texts)


async def test_a_full_disk_is_named_and_nothing_is_lost(path: Path) -> None:
    def fill(db: sqlite3.Connection) -> None:
        db.execute("PRAGMA max_page_count=60")
        for _ in range(100):
            text = db.execute("INSERT INTO texts DEFAULT VALUES").lastrowid
            db.execute(
                "INSERT INTO chunks(text_id, start_byte, start_char, start_line, data) "
                "VALUES (?, 0, 0, 0, zeroblob(100000))",
                [text],
            )

    async with open_database(path) as database:
        await database.write(add_text)
        with pytest.raises(StoreError, match="is full") as caught:
            await database.write(fill)
        assert str(path) in caught.value.message
        assert "RLM_MCP_DATA_DIR" in caught.value.fix
        await database.write(add_text)
        assert await database.read(count_texts) == 2


@pytest.mark.parametrize("content", [b"hello", b"not a database, but a long text\n" * 1000])
async def test_a_file_that_is_no_database_is_refused_and_left_alone(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(StoreError, match="is not a database"):
        async with open_database(path):
            pass
    assert content_of(path) == content
    assert files_in(tmp_path) == [path]


async def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE mail (id)")
    other.close()
    content = content_of(path)
    with pytest.raises(StoreError, match="belongs to another program"):
        async with open_database(path):
            pass
    assert content_of(path) == content


async def test_a_file_of_a_newer_version_is_refused_and_left_alone(path: Path) -> None:
    def age(db: sqlite3.Connection) -> None:
        db.execute(
            "INSERT INTO _sqlite_migrations(migration_set, name, applied_at) "
            "VALUES ('rlm_mcp', 'm999_from_the_future', '')"
        )

    async with open_database(path) as database:
        await database.write(age)
    content = content_of(path)
    with pytest.raises(StoreError, match=r"newer version.*'m999_from_the_future'") as caught:
        async with open_database(path):
            pass
    assert "Upgrade" in caught.value.fix
    assert content_of(path) == content


@pytest.mark.parametrize("name", ["a file/rlm.sqlite3", "directory"])
async def test_a_place_that_cannot_hold_a_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "a file").write_text("in the way")
    (tmp_path / "directory").mkdir()
    path = tmp_path / name
    with pytest.raises(StoreError, match="cannot be opened") as caught:
        async with open_database(path):
            pass
    assert str(path) in caught.value.message


async def test_a_damaged_file_is_a_clear_error(path: Path) -> None:
    async with open_database(path) as database:
        await database.write(add_text)
    damage(path)
    with pytest.raises(StoreError, match="is damaged"):
        async with open_database(path) as database:
            await database.read(count_texts)


async def test_a_file_that_was_taken_away_does_not_come_back_empty(path: Path) -> None:
    async with open_database(path) as database:
        for file in path.parent.iterdir():
            file.unlink()
        with pytest.raises(StoreError, match="cannot be opened"):
            await database.scan(count_texts)
        assert files_in(path.parent) == []


async def test_paths_may_hold_any_character(tmp_path: Path) -> None:
    path = tmp_path / "50% of #1? ü.sqlite3"
    async with open_database(path) as database:
        await database.write(add_text)
    assert files_in(tmp_path) == [path]


def hold(path: Path, statement: str) -> sqlite3.Connection:
    """Lock a file as another program would, until the connection is closed."""
    path.parent.mkdir(exist_ok=True)
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute(statement)
    connection.execute("SELECT * FROM sqlite_master").fetchall()
    return connection


async def test_a_writer_that_stays_in_the_way_is_named_in_time(path: Path) -> None:
    async with open_database(path, busy_seconds=0.1) as database:
        with closing(hold(path, "BEGIN IMMEDIATE")), anyio.fail_after(60):
            with pytest.raises(StoreError, match="was busy") as caught:
                await database.write(add_text)
            assert await database.read(count_texts) == 0
        assert "Try again" in caught.value.fix
        await database.write(add_text)


async def test_somebody_who_can_ask_again_is_told_soon_that_others_write(path: Path) -> None:
    begun, end = threading.Event(), threading.Event()

    def write_and_wait(db: sqlite3.Connection) -> None:
        add_text(db)
        begun.set()
        assert end.wait(10)

    async with open_database(path) as database:
        with anyio.fail_after(60):
            with (
                closing(hold(path, "BEGIN IMMEDIATE")),
                pytest.raises(StoreBusyError, match="was busy") as elsewhere,
            ):
                await database.write(add_text, patience_seconds=0.1)
            async with anyio.create_task_group() as group:
                group.start_soon(database.write, write_and_wait)
                await anyio.to_thread.run_sync(begun.wait, 60)
                with pytest.raises(StoreBusyError, match="was busy"):
                    await database.write(add_text, patience_seconds=0.1)
                end.set()
        assert elsewhere.value.retryable
        assert await database.read(count_texts) == 1


async def test_a_long_line_of_writes_is_no_reason_to_give_up_while_it_moves(path: Path) -> None:
    """The last one here waits for more than twice its patience; nobody else has the file."""
    writes, step_seconds, patience_seconds = 12, 0.2, 1.0
    done: list[int] = []

    def write_slowly(db: sqlite3.Connection) -> None:
        add_text(db)
        assert not threading.Event().wait(step_seconds)

    async with open_database(path) as database:

        async def write(number: int) -> None:
            await database.write(write_slowly, patience_seconds=patience_seconds)
            done.append(number)

        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                for number in range(writes):
                    group.start_soon(write, number)

    assert done == list(range(writes))


async def test_who_leaves_the_line_of_writes_holds_up_nobody(path: Path) -> None:
    begun, end = threading.Event(), threading.Event()

    def write_and_wait(db: sqlite3.Connection) -> None:
        begun.set()
        assert end.wait(10)
        add_text(db)

    async with open_database(path) as database:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                group.start_soon(database.write, write_and_wait)
                await anyio.to_thread.run_sync(begun.wait, 60)
                async with anyio.create_task_group() as leaving:
                    leaving.start_soon(database.write, add_text)
                    group.start_soon(database.write, add_text)
                    await anyio.wait_all_tasks_blocked()
                    leaving.cancel_scope.cancel()
                end.set()

        assert await database.read(count_texts) == 2


async def test_the_version_changes_with_each_commit_and_with_nothing_else(path: Path) -> None:
    async with open_database(path) as database, open_database(path) as other:
        versions = [await database.version()]
        for write in (database.write, other.write):
            await write(add_text)
            versions += [await database.version(), await database.version()]
        await other.read(count_texts)
        versions.append(await database.version())

    first, second, again, third, *rest = versions
    assert len({first, second, third}) == 3
    assert (again, rest) == (second, [third, third])


async def is_given_up(path: Path) -> None:
    with pytest.raises(StoreError, match="was busy"):
        async with open_database(path, busy_seconds=0.1):
            pass


@pytest.mark.parametrize("statement", ["BEGIN", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
async def test_an_empty_file_that_another_process_holds_is_given_up_in_time(
    path: Path, statement: str
) -> None:
    with anyio.fail_after(60), closing(hold(path, statement)):
        await is_given_up(path)
    async with open_database(path) as database:
        assert await database.read(count_texts) == 0


async def test_a_file_that_was_taken_out_of_wal_is_put_back_once_nobody_holds_it(
    path: Path,
) -> None:
    async with open_database(path) as database:
        await database.write(add_text)
    hold(path, "PRAGMA journal_mode=DELETE").close()
    with anyio.fail_after(60), closing(hold(path, "BEGIN IMMEDIATE")):
        await is_given_up(path)
    async with open_database(path) as database:
        mode = await database.read(lambda db: db.execute("PRAGMA journal_mode").fetchone())
        assert mode == ("wal",)
        assert await database.read(count_texts) == 1


async def test_a_writer_waits_for_another_process_to_finish(path: Path) -> None:
    async with open_database(path) as database:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                with closing(hold(path, "BEGIN IMMEDIATE")):
                    group.start_soon(database.write, add_text)
                    await anyio.wait_all_tasks_blocked()
                    assert await database.read(count_texts) == 0
        assert await database.read(count_texts) == 1


WRITER = """
import sys, anyio
from pathlib import Path
from rlm_mcp.store.database import open_database

def add(db):
    db.execute("INSERT INTO texts DEFAULT VALUES")

async def main():
    sys.stdin.readline()
    async with open_database(Path(sys.argv[1])) as database:
        for _ in range(20):
            await database.write(add)

print("ready", flush=True)
anyio.run(main)
"""


async def test_processes_that_start_at_once_on_an_empty_directory_share_the_file(
    path: Path,
) -> None:
    def race() -> list[int]:
        children = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(3)
        ]
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        for child in children:
            child.communicate(timeout=20)
        return [child.returncode for child in children]

    assert await anyio.to_thread.run_sync(race) == [0, 0, 0]
    async with open_database(path) as database:
        assert await database.read(count_texts) == 60


async def test_a_reader_left_half_way_gives_its_connection_back(path: Path) -> None:
    def half(database: Database) -> None:
        with database.open_reader() as db:
            count_texts(db)
            raise LookupError("left")

    async with open_database(path) as database:
        with pytest.raises(LookupError, match="left"):
            await anyio.to_thread.run_sync(half, database)


def test_the_steps_that_are_known_are_those_that_are_applied() -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        bring_up_to_date(connection)

        assert applied_steps(connection) == STEPS


@pytest.mark.parametrize("loss", ["deleted", "moved", "replaced", "emptied", "with its directory"])
async def test_a_write_into_a_file_that_is_gone_is_not_acknowledged(path: Path, loss: str) -> None:
    def lose() -> None:
        if loss == "emptied":
            os.truncate(path, 0)
        elif loss == "with its directory":
            shutil.rmtree(path.parent)
        elif loss == "deleted":
            path.unlink()
        else:
            path.rename(path.with_name("elsewhere"))
        if loss == "replaced":
            shutil.copy(path.with_name("elsewhere"), path)

    async with open_database(path) as database:
        await database.write(add_text)
        await anyio.to_thread.run_sync(lose)
        for write in (database.write, database.write_grouped):
            with pytest.raises(StoreError) as caught:
                await write(add_text)
            assert str(path) in caught.value.message
            assert caught.value.fix
