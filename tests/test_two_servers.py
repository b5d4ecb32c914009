"""Two server processes on one data directory, as two assistants on one machine start them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread

from rlm_mcp.store.database import DATABASE_NAME, open_database
from rlm_mcp.testing.scripted_model import ScriptedModel, open_scripted_model
from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView, Reply
from tests.serving import Served, cell, open_served, text_of
from tests.test_stdio import open_process
from tests.test_store_owners import running_child

RUNS = 20


def script(request: ChatRequestView) -> Answer:
    """Answers a question with its own number; one that is to be held gets no answer."""
    if request.model == "sub":
        return request.text.upper()
    asked = " ".join(str(message["content"]) for message in request.messages)
    if "held question" in asked:
        return Reply("never", gate=anyio.Event())
    number = asked.partition("quick question ")[2].split("?")[0]
    turn = sum(message["role"] == "assistant" for message in request.messages)
    ask = f"replies = llm_query_batch(['part {{n}} of {number}'.format(n=n) for n in range(3)])"
    return cell(ask) if turn == 0 else cell("FINAL(' '.join(replies))")


@asynccontextmanager
async def open_two(
    directory: Path, model: ScriptedModel, **environment: Any
) -> AsyncGenerator[tuple[Served, Served]]:
    """Two servers on one data directory; nothing may be on their stderr once they have ended."""
    logs = [directory / "one.log", directory / "two.log"]
    with ExitStack() as files:
        one, two = [files.enter_context(log.open("w")) for log in logs]
        async with (
            open_process(directory, model, errlog=one, **environment) as first,
            open_process(directory, model, errlog=two, **environment) as second,
        ):
            yield first, second
    told = [await anyio.Path(log).read_text() for log in logs]
    lines = [line for text in told for line in text.splitlines()]
    assert [line for line in lines if "isolation is" not in line] == []


async def test_twenty_runs_on_each_of_two_servers_all_end_right_waited_for_and_cancelled_by_both(
    tmp_path: Path,
) -> None:
    ended: dict[str, tuple[str, str | None]] = {}

    async def quick(asker: Served, waiter: Served, number: str, handle: str) -> None:
        run = await asker.call(
            "rlm_query", question=f"quick question {number}?", contexts=[handle], wait_seconds=0
        )
        state = await waiter.ended(run["run_id"])
        ended[number] = (state["status"], state["answer"])

    async def held(asker: Served, other: Served, number: str, handle: str) -> None:
        run = await asker.call(
            "rlm_query", question=f"held question {number}?", contexts=[handle], wait_seconds=0
        )
        if other is not asker:
            refused = await other.error("rlm_run_variables", run_id=run["run_id"], name="x")
            assert "Another server works on it" in refused["text"]
            listed = await other.raw("rlm_run_variables", run_id=run["run_id"])
            assert "Another server works on this run" in text_of(listed)
            assert dict(listed.structured_content or {})["note"] in text_of(listed)
        state = await other.call("rlm_run_cancel", run_id=run["run_id"])
        again = await asker.call("rlm_run_wait", run_id=run["run_id"], wait_seconds=0)
        assert (again["status"], again["last_event"]) == (state["status"], state["last_event"])
        ended[number] = (state["status"], state["answer"])

    async with (
        open_scripted_model(script) as model,
        open_two(tmp_path, model, RLM_MCP_MAX_CONCURRENT_RUNS="6") as servers,
        anyio.create_task_group() as group,
    ):
        handle = (await servers[0].call("rlm_context_add", text="shared text"))["handle"]
        for number in range(RUNS):
            kind = held if number % 4 == 0 else quick
            for name, asker, others in (("a", servers[0], servers), ("b", servers[1], servers)):
                other = others[(number // 2) % 2]
                group.start_soon(partial(kind, asker, other, f"{name}{number}", handle))

    cancelled = {number for number, (status, _) in ended.items() if status == "cancelled"}
    assert len(ended) == 2 * RUNS
    assert cancelled == {f"{name}{number}" for name in "ab" for number in range(0, RUNS, 4)}
    for number, (status, answer) in ended.items():
        if number not in cancelled:
            wanted = " ".join(f"PART {n} OF {number.upper()}" for n in range(3))
            assert (status, answer) == ("completed", wanted)
    async with open_database(tmp_path / "data" / DATABASE_NAME) as database:
        checked = await database.scan(lambda db: db.execute("PRAGMA integrity_check").fetchone())
    assert checked == ("ok",)


async def test_a_run_of_a_server_that_was_killed_is_cancelled_by_another(tmp_path: Path) -> None:
    async with open_served(tmp_path, "never asked") as served:
        await served.call("rlm_run_list")  # the server has its store, and has looked for the dead
        path = served.settings.data_dir / DATABASE_NAME
        states: list[str] = []

        def cancel() -> None:
            call = partial(served.call, "rlm_run_cancel", run_id="run_child")
            states.append(anyio.from_thread.run(call)["status"])

        def while_it_lives_and_after() -> None:
            with running_child(path) as (child, _):
                child.kill()
                child.wait()
                cancel()

        await anyio.to_thread.run_sync(while_it_lives_and_after)
        log = await served.call("rlm_run_trace", run_id="run_child", after_event=10)

    assert states == ["cancelled"]
    assert [event["type"] for event in log["events"]] == ["run_finished"]
