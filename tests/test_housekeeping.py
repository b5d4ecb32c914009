"""Housekeeping: what is old goes, what was deleted is gone, and one process sees to it."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator
from pathlib import Path
from sqlite3 import Connection

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from rlm_mcp.sandbox.host import fork_client
from rlm_mcp.service import housekeeping
from rlm_mcp.service.housekeeping import Housekeeping
from rlm_mcp.store.contexts.contexts import Contexts
from rlm_mcp.store.contexts.forgetting import FORGOTTEN, forget_ended
from rlm_mcp.store.database import DATABASE_NAME, Database, open_database
from rlm_mcp.store.retention import GRACE_SECONDS, Keeping, Retention, log_bytes, shrink
from rlm_mcp.store.runs.leases import Leases, RunLeases
from rlm_mcp.store.runs.owners import owner_id
from rlm_mcp.store.runs.records import NewEvent, NewRun, Outcome, SavedVariable, WorkClock
from rlm_mcp.store.runs.replies import Replies
from rlm_mcp.store.runs.runs import Runs
from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView, Reply
from tests.serving import cell, open_served, turns
from tests.test_store_runs import Clock
from tests.waiting import until
from tests.walls import native_alone

DAY = 86_400.0
CANARY = "canary-7c41e0"
ENDED = NewEvent("run_finished", "completed")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def database(tmp_path: Path) -> AsyncGenerator[Database]:
    async with open_database(tmp_path / DATABASE_NAME) as database:
        yield database


@pytest.fixture
async def runs(database: Database, clock: Clock) -> Runs:
    return Runs(database, owner="me", clock=WorkClock(clock, clock))


async def work(runs: Runs, *, chars: int = 10, ends: bool = True) -> str:
    """Begin a run whose log is so long, and end it."""
    run_id = f"run_{secrets.token_hex(16)}"
    await runs.create(NewRun(run_id, "q"))
    event = NewEvent("code_executed", "ran", detail={"output": "x" * (chars // 250)})
    await runs.append_events(run_id, [event] * 250)
    if ends:
        kept = [SavedVariable("x", "str", 1, "x", "x")]
        await runs.finish(run_id, Outcome("completed", "42"), ENDED, kept)
    return run_id


async def left(runs: Runs) -> list[str]:
    return [run.run_id for run in (await runs.list(limit=100)).items][::-1]


def rows_of(db: Connection, *tables: str) -> list[int]:
    return [db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables]


async def test_ended_runs_and_replies_go_by_age_and_runs_at_work_never_do(
    database: Database, runs: Runs, clock: Clock
) -> None:
    replies = Replies(database, clock=clock)
    old = {f"{number:064}": "old" for number in range(450)}
    await replies.put_many(old)
    await work(runs)
    working = await work(runs, ends=False)
    clock.now += 10 * DAY
    young = await work(runs)
    await replies.put_many({"new": "new"})

    dropped = await Retention(database, Keeping(run_seconds=9 * DAY), clock=clock).drop_old()

    assert dropped == 1
    assert await left(runs) == [working, young]
    assert list(await replies.get_many([*old, "new"])) == ["new"]
    assert await database.read(lambda db: rows_of(db, "events", "variables")) == [501, 1]


@pytest.mark.parametrize("days", [1e6, 1e12, 1e300, float("inf")])
async def test_who_keeps_runs_for_longer_than_there_are_dates_keeps_all_of_them(
    database: Database, runs: Runs, clock: Clock, days: float
) -> None:
    run_id = await work(runs)
    clock.now += 10 * DAY

    keeping = Keeping(run_seconds=days * DAY, upload_seconds=days * DAY)

    assert await Retention(database, keeping, clock=clock).drop_old() == 0
    assert await left(runs) == [run_id]


async def test_a_reply_that_is_used_outlives_one_that_is_not(
    database: Database, clock: Clock
) -> None:
    replies = Replies(database, clock=clock)
    await replies.put_many({"hot": "used", "cold": "unused"})
    clock.now += 8 * DAY
    assert await replies.get_many(["hot"]) == {"hot": "used"}
    clock.now += 8 * DAY

    await Retention(database, Keeping(run_seconds=9 * DAY), clock=clock).drop_old()

    assert list(await replies.get_many(["hot", "cold"])) == ["hot"]


async def test_beyond_their_room_the_replies_that_were_not_used_for_longest_go(
    database: Database, clock: Clock
) -> None:
    replies = Replies(database, clock=clock)
    for number in range(5):
        await replies.put_many({f"{number}.{one}": "x" * 20_000 for one in range(50)})
        clock.now += 60

    await Retention(database, Keeping(run_bytes=2_000_000), clock=clock).drop_old()

    assert list(await replies.get_many([f"{number}.0" for number in range(5)])) == ["4.0"]


async def test_beyond_their_room_the_oldest_go_but_none_in_its_first_hour(
    database: Database, runs: Runs, clock: Clock
) -> None:
    replies = Replies(database, clock=clock)
    ids: list[str] = []
    for _ in range(4):
        ids.append(await work(runs, chars=2_000_000))
        await replies.put_many({ids[-1]: "x" * 500_000})
        clock.now += GRACE_SECONDS / 2
    async with Contexts(database).open_upload("a text is no log") as upload:
        await upload.write(b"text " * 2_000_000)
        await upload.seal()
    before = await database.read(log_bytes)

    await Retention(database, Keeping(run_bytes=8_000_000), clock=clock).drop_old()
    some = await left(runs)
    await Retention(database, Keeping(run_bytes=0), clock=clock).drop_old()

    assert 10_000_000 < before < 12_000_000
    assert some == ids[1:]
    assert await left(runs) == ids[2:]


async def test_beyond_their_room_the_oldest_of_the_user_who_has_most_go(
    database: Database, runs: Runs, clock: Clock
) -> None:
    ann, bob = runs.as_caller("ann"), runs.as_caller("bob")
    replies = Replies(database, clock=clock)
    hers = [await work(ann, chars=200_000)]  # the oldest of all
    await replies.put_many({"hers": "x" * 100_000}, run_id=hers[0])
    his: list[str] = []
    for number in range(5):
        clock.now += 60
        his.append(await work(bob, chars=1_000_000))
        await replies.put_many({f"his {number}": "x" * 1_000_000}, run_id=his[-1])
    clock.now += 2 * GRACE_SECONDS

    await Retention(database, Keeping(run_bytes=5_000_000), clock=clock).drop_old()
    assert await left(ann) == hers
    assert list(await replies.get_many(["hers", "his 0"])) == ["hers"]
    some = await left(bob)
    assert some == his[-len(some) :]
    assert 0 < len(some) <= 5

    await Retention(database, Keeping(run_bytes=0), clock=clock).drop_old()
    assert (await left(ann), await left(bob)) == ([], [])


async def test_a_context_whose_own_time_is_over_goes_and_the_others_stay(
    database: Database, clock: Clock
) -> None:
    contexts = Contexts(database)
    handles: list[str] = []
    for text in (b"one", b"two", b"three"):
        async with contexts.open_upload() as upload:
            await upload.write(text)
            handles.append((await upload.seal()).record.handle)
    for handle, end in zip(handles, (clock.now - 1, clock.now + 1), strict=False):
        await database.write(
            lambda db, row=(end, handle): db.execute(
                "UPDATE contexts SET expires_at = ? WHERE handle = ?", row
            )
        )

    await Retention(database, Keeping(), clock=clock).drop_old()

    assert [record.handle for record in (await contexts.list()).items] == handles[:0:-1]


async def test_the_file_shrinks_and_others_write_meanwhile(database: Database, runs: Runs) -> None:
    contexts = Contexts(database)
    async with contexts.open_upload() as upload:
        await upload.write(b"a line of a text\n" * 1_000_000)
        handle = (await upload.seal()).record.handle
    await contexts.delete(handle)
    run_id = await work(runs, ends=False)
    before = await database.size_bytes()

    async def write_on() -> None:
        for _ in range(20):
            await runs.append_event(run_id, NewEvent("warning"))

    cut: list[int] = []
    async with anyio.create_task_group() as group:
        group.start_soon(write_on)
        cut.append(await shrink(database))
    assert await database.merge_log()

    assert cut[0] > 1000
    assert before > 17_000_000
    assert await database.size_bytes() < 2_000_000
    assert len(await runs.events(run_id, limit=1000)) == 270


def raw(directory: Path) -> bytes:
    return b"".join(file.read_bytes() for file in directory.iterdir())


async def test_a_deleted_text_is_nowhere_in_the_files(tmp_path: Path) -> None:
    look = cell(
        "seen = context\nprint(seen)\nreplies = llm_query_batch([f'{context} {n}' for n in '12'])"
    )

    def script(request: ChatRequestView) -> Answer:
        if request.model == "sub":
            return request.text
        is_first = not any(message["role"] == "assistant" for message in request.messages)
        return look if is_first else cell("print(replies)\nFINAL('the answer')")

    async with open_served(tmp_path, script) as served:
        secret = (await served.call("rlm_context_add", text=f"{CANARY} " * 300))["handle"]
        other = (await served.call("rlm_context_add", text="a text that stays"))["handle"]
        run = await served.call("rlm_query", question="?", contexts=[secret])
        kept = await served.call("rlm_query", question="?", contexts=[other])
        before = await anyio.to_thread.run_sync(raw, served.settings.data_dir)
        await served.call("rlm_context_delete", handle=secret)
        async with open_database(served.settings.data_dir / DATABASE_NAME) as database:
            owner = await anyio.to_thread.run_sync(owner_id)
            leases = RunLeases(database, owner=owner)
            await Housekeeping(database, leases, Leases(database, owner=owner), Keeping()).tidy()
        after = await anyio.to_thread.run_sync(raw, served.settings.data_dir)
        read = await served.call("rlm_run_wait", run_id=run["run_id"])
        log = await served.call("rlm_run_trace", run_id=run["run_id"], limit=100)
        names = await served.call("rlm_run_variables", run_id=run["run_id"])
        stays = await served.call("rlm_run_variables", run_id=kept["run_id"], name="seen")

    assert CANARY.encode() in before
    assert CANARY.encode() not in after
    assert (read["answer"], read["sub_calls"]) == ("the answer", 2)
    assert [event["seq"] for event in log["events"]] == list(range(1, run["last_event"] + 1))
    assert {(event["preview"], len(event["detail"])) for event in log["events"]} == {(FORGOTTEN, 0)}
    assert [variable["name"] for variable in names["variables"]] == ["FINAL"]
    assert stays["text"] == "a text that stays"


async def test_a_run_whose_text_was_deleted_goes_on_no_more_also_when_that_is_stored_again(
    tmp_path: Path,
) -> None:
    held = Reply("late", gate=anyio.Event())
    async with open_served(tmp_path, lambda _: held) as served:
        handle = (await served.call("rlm_context_add", text="a text"))["handle"]
        run = await served.call("rlm_query", question="?", contexts=[handle], wait_seconds=0)
        await served.call("rlm_run_cancel", run_id=run["run_id"])
        await served.call("rlm_context_delete", handle=handle)
        await served.call("rlm_context_add", text="a text")
        error = await served.error("rlm_run_resume", run_id=run["run_id"])

    assert "deleted" in error["text"]
    assert "rlm_query" in error["fix"]


async def test_a_run_at_work_forgets_its_deleted_text_when_it_ends(
    database: Database, runs: Runs
) -> None:
    contexts = Contexts(database)
    async with contexts.open_upload() as upload:
        await upload.write(b"text")
        handle = (await upload.seal()).record.handle
    await runs.create(NewRun("run_1", "q", (handle,)))
    await runs.append_event("run_1", NewEvent("warning", "text", detail={"is": "text"}))
    await contexts.delete(handle)
    still = (await runs.events("run_1"))[0].preview
    await runs.finish("run_1", Outcome("completed", "42"), ENDED)

    assert still == "text"
    assert await forget_ended(database) == 1
    assert await forget_ended(database) == 0
    assert {event.preview for event in await runs.events("run_1")} == {FORGOTTEN}


async def test_leases_are_renewed_while_much_is_put_in_order(
    database: Database, runs: Runs, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "_ROUND_SECONDS", 0.01)
    begun = anyio.Event()

    class Busy(Housekeeping):
        async def tidy(self, *, is_due: bool = True) -> None:
            begun.set()
            await anyio.sleep_forever()

    run_id = await work(runs, ends=False)
    leases = RunLeases(database, owner="me", clock=clock)
    house = Busy(database, leases, Leases(database, owner="me", clock=clock), Keeping())
    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(house.renew_leases)
            group.start_soon(house.run_forever)
            await begun.wait()
            clock.now += 1000
            while (await runs.get(run_id)).lease_until < clock.now:
                await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()

    assert (await runs.get(run_id)).status == "running"


async def test_one_process_at_a_time_holds_a_lease(database: Database, clock: Clock) -> None:
    me = await anyio.to_thread.run_sync(owner_id)
    pid, started, *place = me.split(":")
    dead = ":".join([pid, str(int(started) - 1), *place])
    mine, theirs, gone = [
        Leases(database, owner=owner, clock=clock) for owner in (me, "elsewhere", dead)
    ]
    held: list[bool] = []
    async with theirs.holding("work", 60) as first, mine.holding("work", 60) as second:
        held += [first, second]
        async with mine.holding("other work", 60) as third:
            held.append(third)
        clock.now += 61
        async with mine.holding("work", 60) as late, theirs.holding("work", 60) as lost:
            held += [late, lost]
    async with gone.holding("work", 60) as theirs_now, mine.holding("work", 60) as taken:
        held += [theirs_now, taken]
    async with theirs.holding("work", 60) as free:
        held.append(free)

    assert held == [True, False, True, True, False, True, True, True]


@native_alone("its walls are other ones")
async def test_a_server_whose_walls_could_not_be_tried_goes_on_and_tries_them_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_served(tmp_path, turns(), has_own_sandbox=True) as served:
        with monkeypatch.context() as hurried:
            hurried.setattr(fork_client, "START_SECONDS", 0)
            await until(lambda: "isolation could not be tried" in caplog.text)
        handle = (await served.call("rlm_context_add", text="some text"))["handle"]
        done = await served.call("rlm_exec", code="1", contexts=[handle])
    assert (done["output"], done["error"]) == ("1\n", None)
