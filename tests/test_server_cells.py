"""`rlm_exec`: code of the caller's own, and REPLs that outlive their runs."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from rlm_mcp.service import repls
from rlm_mcp.store.database import DATABASE_NAME
from rlm_mcp.store.runs import runs
from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView, Reply
from tests.serving import Served, cell, open_served, text_of, turns

pytestmark = pytest.mark.usefixtures("one_sandbox_for_all")


@pytest.fixture
async def served(tmp_path: Path) -> AsyncGenerator[Served]:
    script = turns(
        cell("found = object()\nmine = [1, 2]\nFINAL('done')"), sub=lambda text: text[::-1]
    )
    async with open_served(tmp_path, script) as served:
        yield served


def hold(path: Path) -> sqlite3.Connection:
    """Keep a file from being written to, until the connection is closed."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    return connection


async def handle_of(served: Served, text: str = "one two three") -> str:
    return (await served.call("rlm_context_add", text=text))["handle"]


async def test_code_runs_over_a_context_and_goes_on_with_its_variables(served: Served) -> None:
    first = await served.call(
        "rlm_exec", code="words = context.split()\nlen(words)", contexts=[await handle_of(served)]
    )
    second = await served.call("rlm_exec", code="print(words[-1])", run_id=first["run_id"])
    run = await served.call("rlm_run_wait", run_id=first["run_id"])
    trace = await served.call("rlm_run_trace", run_id=first["run_id"], limit=50)
    listed = text_of(await served.raw("rlm_run_list"))

    assert listed.endswith("Code of the caller")
    assert (first["output"], first["error"], first["truncated"]) == ("3\n", None, False)
    assert [variable["name"] for variable in first["variables"]] == ["words"]
    assert (second["output"], second["note"]) == ("three\n", None)
    assert (run["status"], run["iterations"]) == ("completed", 0)
    assert served.model.received == 0
    code = [e["detail"]["code"] for e in trace["events"] if e["type"] == "code_generated"]
    assert code == ["words = context.split()\nlen(words)", "print(words[-1])"]


async def test_code_may_ask_the_sub_model(served: Served) -> None:
    done = await served.call(
        "rlm_exec",
        code="print(llm_query_batch(['abc', 'def']))",
        contexts=[await handle_of(served)],
    )
    run = await served.call("rlm_run_wait", run_id=done["run_id"])

    assert done["output"] == "['cba', 'fed']\n"
    assert run["sub_calls"] == 2
    assert {request.model for request in served.model.requests} == {"sub"}


async def test_without_a_model_code_runs_and_a_call_says_what_to_set(tmp_path: Path) -> None:
    async with open_served(tmp_path, turns("never"), root_model=None, sub_model=None) as served:
        done = await served.call(
            "rlm_exec", code="llm_query('hello')", contexts=[await handle_of(served)]
        )

    assert "RLM_MCP_SUB_MODEL" in done["error"]


async def test_an_error_is_told_with_its_line_and_what_was_assigned_stays(served: Served) -> None:
    done = await served.call(
        "rlm_exec", code="kept = 1\nkept / 0", contexts=[await handle_of(served)]
    )
    after = await served.call("rlm_exec", code="FINAL(kept)", run_id=done["run_id"])

    assert done["error"].rstrip().endswith("ZeroDivisionError: division by zero")
    assert "kept / 0" in done["error"]
    assert after["answer"] == "1"


async def test_code_runs_in_the_repl_of_a_run_that_has_ended(served: Served) -> None:
    run = await served.call("rlm_query", question="?", text="some text")

    done = await served.call(
        "rlm_exec", code="mine.append(3)\nprint(type(found), mine)", run_id=run["run_id"]
    )
    mine = await served.call("rlm_run_variables", run_id=run["run_id"], name="mine")

    assert done["output"] == "<class 'object'> [1, 2, 3]\n"
    assert mine["text"] == "[1, 2, 3]"


async def test_a_further_question_gets_a_process_of_its_own_with_the_variables(
    tmp_path: Path,
) -> None:
    patching = "import string\nstring.digits = 'patched'\nfound = object\nFINAL(string.digits)"
    looking = "import string\nFINAL([found.__name__, string.digits])"
    replies = iter([cell(patching), cell(looking)])
    async with open_served(tmp_path, lambda _: next(replies)) as served:
        first = await served.call("rlm_query", question="first?", text="some text")
        second = await served.call("rlm_query", question="more?", continue_run=first["run_id"])
        same = await served.call("rlm_exec", code="string.digits", run_id=first["run_id"])

    assert (first["answer"], second["data"]) == ("patched", ["object", "0123456789"])
    assert "note" not in first
    assert second["note"].startswith(
        f"It continued in a new process, with the saved variables of {first['run_id']}"
    )
    assert (same["output"], same["note"]) == ("'patched'\n", None)


async def test_a_further_question_gets_more_of_a_callers_variables_than_each_cell_saves(
    tmp_path: Path,
) -> None:
    code = "table = {number: str(number) for number in range(100_000)}"
    async with open_served(tmp_path, turns(cell("FINAL(table[99_999])"))) as served:
        run = await served.call("rlm_exec", code=code, contexts=[await handle_of(served)])
        more = await served.call("rlm_query", question="more?", continue_run=run["run_id"])

    assert (more["status"], more["answer"]) == ("completed", "99999")


async def test_when_the_repl_is_gone_saved_variables_serve_and_it_is_said(
    tmp_path: Path, served: Served
) -> None:
    run = await served.call("rlm_query", question="?", text="some text")
    async with open_served(tmp_path, turns("never")) as restarted:
        done = await restarted.call(
            "rlm_exec", code="print(mine, 'found' in dir())", run_id=run["run_id"]
        )

    assert done["output"] == "[1, 2] True\n"
    assert "REPL had ended" in done["note"]


async def test_only_so_many_repls_are_kept(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repls, "KEPT_REPLS", 2)
    handle = await handle_of(served)
    runs = [
        (await served.call("rlm_exec", code=f"x = {n}", contexts=[handle]))["run_id"]
        for n in range(3)
    ]

    notes = [
        (await served.call("rlm_exec", code="x", run_id=run))["note"] for run in reversed(runs)
    ]

    assert notes[:2] == [None, None]
    assert "REPL had ended" in notes[2]


async def test_code_that_runs_over_its_time_is_stopped(served: Served) -> None:
    kept = await served.call("rlm_exec", code="kept = 1", contexts=[await handle_of(served)])
    done = await served.call(
        "rlm_exec", code="while True: pass", run_id=kept["run_id"], timeout_seconds=0.5
    )

    assert "TimeoutError" in done["error"]
    assert [variable["name"] for variable in done["variables"]] == ["kept"]


async def test_a_caller_that_gives_up_leaves_a_run_that_has_ended(served: Served) -> None:
    handle = await handle_of(served)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as caller:
            code = "while True: pass"
            caller.start_soon(partial(served.call, "rlm_exec", code=code, contexts=[handle]))
            while not (await served.call("rlm_run_list"))["runs"]:
                await anyio.lowlevel.checkpoint()
            caller.cancel_scope.cancel()
        while True:
            [run] = (await served.call("rlm_run_list"))["runs"]
            if run["status"] != "running":
                break
    stored = await served.call("rlm_run_wait", run_id=run["run_id"], wait_seconds=0)
    assert (run["status"], stored["error"]["code"]) == ("cancelled", "cancelled")


async def test_code_whose_run_cannot_be_recorded_says_so_and_holds_nothing(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "CALLER_PATIENCE_SECONDS", 0.2)
    handle = await handle_of(served)
    other = await anyio.to_thread.run_sync(hold, served.settings.data_dir / DATABASE_NAME)
    try:
        with anyio.fail_after(60):
            error = await served.error("rlm_exec", code="1", contexts=[handle])
    finally:
        await anyio.to_thread.run_sync(other.close)

    assert error["code"] == "store_busy"
    assert (await served.call("rlm_run_list"))["runs"] == []


async def test_a_cell_that_is_cancelled_asks_no_model_any_more(tmp_path: Path) -> None:
    gate, asked = anyio.Event(), anyio.Event()

    def answer(request: ChatRequestView) -> Answer:
        del request
        asked.set()
        return Reply("reply", gate=gate if len(served.model.requests) == 1 else None)

    done: list[dict[str, Any]] = []
    async with open_served(tmp_path, answer) as served:
        handle = await handle_of(served)

        async def execute() -> None:
            code = "n = 1\nfor number in range(50): llm_query(f'part {number}')"
            done.append(await served.call("rlm_exec", code=code, contexts=[handle]))

        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                group.start_soon(execute)
                await asked.wait()
                [run] = (await served.call("rlm_run_list"))["runs"]
                await served.call("rlm_run_cancel", run_id=run["run_id"])
        gate.set()
        [ended] = (await served.call("rlm_run_list"))["runs"]
        again = await served.call("rlm_exec", code="FINAL('here')", run_id=ended["run_id"])

    assert (ended["status"], again["answer"]) == ("cancelled", "here")
    assert done[0]["run_id"] == ended["run_id"]
    assert "The run was cancelled." in done[0]["error"]
    assert len(served.model.requests) == 1


async def test_cells_of_one_run_take_turns(served: Served) -> None:
    begun = await served.call("rlm_exec", code="n = 0", contexts=[await handle_of(served)])
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(
                lambda: served.call("rlm_exec", code="n = n + 1", run_id=begun["run_id"])
            )
    done = await served.call("rlm_exec", code="FINAL(n)", run_id=begun["run_id"])

    assert done["answer"] == "5"


async def test_much_output_is_cut_and_said(served: Served) -> None:
    result = await served.raw(
        "rlm_exec", code="print('x' * 50_000, 'end')", contexts=[await handle_of(served)]
    )

    assert result.structured_content is not None
    assert result.structured_content["truncated"] is True
    assert result.structured_content["output"].rstrip().endswith("end")
    assert len(text_of(result)) <= 20_000


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"code": " ", "run_id": "run_x"}, "code is empty"),
        ({"code": "1"}, "Neither `run_id` nor `contexts`"),
        (
            {"code": "1", "run_id": "run_x", "contexts": ["ctx_x"]},
            "not both",
        ),
        ({"code": "1", "run_id": "run_x"}, "run_x"),
        ({"code": "1", "contexts": ["ctx_x"]}, "ctx_x"),
        ({"code": "1" * 200_000, "run_id": "run_x"}, "200,000 characters"),
        ({"code": "1", "run_id": "run_x", "timeout_seconds": -1}, "timeout_seconds=-1"),
    ],
)
async def test_what_cannot_be_run_is_refused(
    served: Served, arguments: dict[str, object], named: str
) -> None:
    error = await served.error("rlm_exec", **arguments)

    assert named in error["text"]
    assert (await served.call("rlm_run_list"))["runs"] == []


async def test_a_run_at_work_lends_its_repl_to_nobody(tmp_path: Path) -> None:
    gate = anyio.Event()
    async with open_served(tmp_path, lambda _: Reply("FINAL(x)", gate=gate)) as served:
        run = await served.call("rlm_query", question="?", text="text", wait_seconds=0)
        error = await served.error("rlm_exec", code="1", run_id=run["run_id"])
        gate.set()
        await served.ended(run["run_id"])

    assert "rlm_run_wait" in error["text"]
