from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp_types import CallToolResult

from rlm_mcp.service.runs import runs
from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView, Reply, by_model, unauthorized
from tests.serving import KEY, Served, cell, open_served, text_of, turns

pytestmark = pytest.mark.usefixtures("one_sandbox_for_all")

LOOK = cell("found = context.find('needle')\nprint(len(context), found)")
ANSWER = cell("FINAL(context[found : found + 6])")


async def stored(served: Served, text: str = "hay " * 1000 + "needle" + " hay" * 1000) -> str:
    return (await served.call("rlm_context_add", text=text))["handle"]


@pytest.fixture
async def served(tmp_path: Path) -> AsyncGenerator[Served]:
    async with open_served(tmp_path, turns(LOOK, ANSWER)) as served:
        yield served


async def test_a_question_is_answered_from_the_stored_text(served: Served) -> None:
    handle = await stored(served)

    run = await served.call("rlm_query", question="What is hidden?", contexts=[handle])

    assert (run["status"], run["answer"], run["error"], run["next"]) == (
        "completed",
        "needle",
        None,
        None,
    )
    assert (run["iterations"], run["sub_calls"]) == (2, 0)
    assert run["input_tokens"] > 0
    assert re.fullmatch("run_[0-9a-f]{32}", run["run_id"])


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_progress_is_told_at_once_and_at_each_step(
    tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "REPORT_SECONDS", 0)  # the model is quick
    async with open_served(tmp_path, turns(LOOK, ANSWER), mode=mode) as served:
        handle = await stored(served)
        run = await served.call("rlm_query", question="What is hidden?", contexts=[handle])

        values = [value for value, _ in served.progress]
        messages = [message for _, message in served.progress]
        assert len(messages) >= 3
        assert all(earlier < later for earlier, later in pairwise(values))
        assert messages[0].startswith(f"{run['run_id']} · turn ")
        assert re.fullmatch(r"turn 2 · 0/500 calls · [\d.]+ m?s", messages[-1])


async def test_a_run_can_be_asked_about_a_small_text_at_once(served: Served) -> None:
    run = await served.call("rlm_query", question="What is hidden?", text="hay needle hay")

    assert run["answer"] == "needle"


async def test_a_run_goes_on_while_nobody_waits(tmp_path: Path) -> None:
    gate = anyio.Event()

    def held(request: ChatRequestView) -> Answer:
        return Reply("FINAL(done)", gate=gate)

    async with open_served(tmp_path, held) as served:
        handle = await stored(served)
        begun = await served.call("rlm_query", question="?", contexts=[handle], wait_seconds=0)
        waited = await served.call("rlm_run_wait", run_id=begun["run_id"], wait_seconds=0.05)
        listed = await served.call("rlm_run_list", status="running")
        gate.set()
        ended = await served.ended(begun["run_id"])

    assert (begun["status"], begun["answer"]) == ("running", None)
    assert begun["next"] == (
        f'rlm_run_wait(run_id="{begun["run_id"]}", after_event={begun["last_event"]})'
    )
    assert waited["status"] == "running"
    assert [run["run_id"] for run in listed["runs"]] == [begun["run_id"]]
    assert (ended["status"], ended["answer"]) == ("completed", "done")


async def test_a_caller_that_gives_up_ends_only_its_waiting(tmp_path: Path) -> None:
    gate = anyio.Event()
    async with open_served(tmp_path, lambda _: Reply("FINAL(done)", gate=gate)) as served:
        handle = await stored(served)
        with anyio.fail_after(60):
            async with anyio.create_task_group() as caller:
                caller.start_soon(lambda: served.call("rlm_query", question="?", contexts=[handle]))
                await served.model.until(lambda: served.model.in_flight == 1)
                caller.cancel_scope.cancel()
        [run] = (await served.call("rlm_run_list"))["runs"]
        gate.set()
        ended = await served.ended(run["run_id"])

    assert run["status"] == "running"
    assert ended["answer"] == "done"


async def test_the_log_tells_what_was_done(served: Served) -> None:
    handle = await stored(served)
    run = await served.call("rlm_query", question="What is hidden?", contexts=[handle])

    first = await served.call("rlm_run_trace", run_id=run["run_id"], limit=3)
    rest = await served.call(
        "rlm_run_trace", run_id=run["run_id"], after_event=first["next_event"], limit=100
    )
    compact = await served.call("rlm_run_wait", run_id=run["run_id"], wait_seconds=0)

    events = first["events"] + rest["events"]
    assert [event["seq"] for event in events] == list(range(1, run["last_event"] + 1))
    types = [event["type"] for event in events]
    assert types[:4] == ["run_started", "iteration_start", "code_generated", "code_executed"]
    assert types[-2:] == ["final_answer", "run_finished"]
    assert events[0]["detail"]["contexts"] == [handle]
    assert events[0]["detail"]["isolation"]["level"] in {"full", "partial", "process"}
    assert "context.find" in events[2]["detail"]["code"]
    assert "8006 4000" in events[3]["detail"]["output"]
    assert rest["next_event"] is None
    assert compact["events"] == [
        {name: value for name, value in event.items() if name != "detail"} for event in events
    ]


async def test_a_reader_of_text_alone_sees_code_and_output(served: Served) -> None:
    run = await served.call("rlm_query", question="What is hidden?", text="hay needle hay")

    trace = text_of(await served.raw("rlm_run_trace", run_id=run["run_id"], limit=100))

    assert "found = context.find('needle')" in trace
    assert "\n14 4\n" in trace
    assert trace.endswith("[the end so far]")


async def test_a_single_handle_serves_as_a_list_of_one(served: Served) -> None:
    handle = await stored(served)

    run = await served.call("rlm_query", question="What is hidden?", contexts=handle)

    assert run["answer"] == "needle"


async def test_sub_calls_are_made_and_told(tmp_path: Path) -> None:
    script = turns(
        cell("parts = llm_query_batch([f'part {n}' for n in range(5)])\nprint(parts)"),
        "FINAL_VAR(parts)",
        sub=lambda prompt: prompt.upper(),
    )
    async with open_served(tmp_path, script) as served:
        run = await served.call("rlm_query", question="?", text="text")
        trace = await served.call("rlm_run_trace", run_id=run["run_id"], limit=100)

    assert run["sub_calls"] == 5
    assert run["answer"] == '["PART 0", "PART 1", "PART 2", "PART 3", "PART 4"]'
    finished = [event for event in trace["events"] if event["type"] == "sub_calls_finished"]
    replies = [call["reply"] for event in finished for call in event["detail"]["items"]]
    assert sorted(replies) == [f"PART {n}" for n in range(5)]


async def test_variables_can_be_listed_and_read(tmp_path: Path) -> None:
    script = turns(
        cell("words = ['a', 'ä'] * 3000\nnote = 'x' * 9000"), "FINAL(done)", "FINAL(done)"
    )
    async with open_served(tmp_path, script) as served:
        run = await served.call("rlm_query", question="?", text="text")
        listed = await served.call("rlm_run_variables", run_id=run["run_id"])
        note = await served.call(
            "rlm_run_variables", run_id=run["run_id"], name="note", start=8990, limit=100
        )
        words = await served.call("rlm_run_variables", run_id=run["run_id"], name="words")
        final = await served.call("rlm_run_variables", run_id=run["run_id"], name="FINAL")
        error = await served.error("rlm_run_variables", run_id=run["run_id"], name="nothing")

    kinds = {(v["name"], v["type"], v["size"]) for v in listed["variables"]}
    assert kinds == {("words", "list", 6000), ("note", "str", 9000), ("FINAL", "str", 4)}
    assert (note["text"], note["end"], note["next_start"]) == ("x" * 10, 9000, None)
    assert words["text"].startswith('["a", "ä", ')
    assert words["next_start"] == 4000
    assert final["text"] == "done"
    assert "nothing" in error["text"]
    assert "note" in error["text"]


async def test_variables_can_be_read_while_the_run_works(tmp_path: Path) -> None:
    gate = anyio.Event()

    def script(request: ChatRequestView) -> Answer:
        is_first = not any(message["role"] == "assistant" for message in request.messages)
        return cell("count = 41") if is_first else Reply("FINAL(done)", gate=gate)

    async with open_served(tmp_path, script) as served:
        run = await served.call("rlm_query", question="?", text="text", wait_seconds=0)
        with anyio.fail_after(60):
            await served.model.until(lambda: served.model.received == 2)
        count = await served.call("rlm_run_variables", run_id=run["run_id"], name="count")
        gate.set()
        await served.ended(run["run_id"])

    assert (count["text"], count["type"]) == ("41", "int")


async def test_after_a_restart_contexts_runs_and_variables_are_there(tmp_path: Path) -> None:
    async with open_served(tmp_path, turns(LOOK, ANSWER)) as before:
        handle = await stored(before)
        run = await before.call("rlm_query", question="What is hidden?", contexts=[handle])
    async with open_served(tmp_path, turns("never asked")) as after:
        contexts = await after.call("rlm_context_list")
        read = await after.call("rlm_run_wait", run_id=run["run_id"])
        found = await after.call("rlm_run_variables", run_id=run["run_id"], name="found")

    assert [context["handle"] for context in contexts["contexts"]] == [handle]
    assert {**read, "events": None} == {**run, "events": None}
    assert found["text"] == "4000"


async def test_a_server_that_stops_leaves_its_runs_interrupted(tmp_path: Path) -> None:
    gate = anyio.Event()
    async with open_served(tmp_path, lambda _: Reply("FINAL(x)", gate=gate)) as before:
        run = await before.call("rlm_query", question="?", text="text", wait_seconds=0)
        with anyio.fail_after(60):
            await before.model.until(lambda: before.model.in_flight == 1)
    async with open_served(tmp_path, turns("never asked")) as after:
        read = await after.call("rlm_run_wait", run_id=run["run_id"])

    assert read["status"] == "interrupted"
    assert read["error"]["code"] == "interrupted"


async def test_a_cancelled_run_spends_no_more(tmp_path: Path) -> None:
    gate = anyio.Event()

    def script(request: ChatRequestView) -> Answer:
        if request.model == "sub":
            return Reply("late", gate=gate)
        return cell("kept = 1\nreplies = llm_query_batch(['?'] * 500)")

    async with open_served(tmp_path, script, max_concurrent_calls=8) as served:
        run = await served.call("rlm_query", question="?", text="text", wait_seconds=0)
        with anyio.fail_after(60):
            await served.model.until(lambda: served.model.in_flight == 8)
        started = anyio.current_time()
        cancelled = await served.call("rlm_run_cancel", run_id=run["run_id"])
        seconds = anyio.current_time() - started
        asked = served.model.received
        with anyio.fail_after(60):
            await served.model.until(lambda: served.model.in_flight == 0)
        gate.set()
        again = await served.call("rlm_run_cancel", run_id=run["run_id"])

    assert cancelled["status"] == again["status"] == "cancelled"
    assert seconds < 6  # promised are two, on a machine that is not busy
    assert served.model.hung_up == 8
    assert served.model.received == asked == 9


def id_of(result: CallToolResult) -> str:
    assert result.structured_content is not None
    return str(result.structured_content["run_id"])


async def test_the_same_question_at_work_is_the_same_run_unless_another_key_is_given(
    tmp_path: Path,
) -> None:
    gate = anyio.Event()
    async with open_served(tmp_path, lambda _: Reply("FINAL(done)", gate=gate)) as served:
        ask = partial(served.raw, "rlm_query", question="?", text="text", wait_seconds=0)
        first, again, other = await ask(), await ask(), await ask(idempotency_key="two")
        different = await ask(budget={"max_iterations": 7})
        gate.set()
        ids = [id_of(one) for one in (first, again, other, different)]
        for run_id in ids:
            await served.ended(run_id)
        later = await served.call("rlm_query", question="?", text="text")

    assert ids[0] == ids[1]
    assert len({*ids, later["run_id"]}) == 4
    assert "no second run was started" in text_of(again)
    assert "no second run was started" not in text_of(first)


async def test_a_run_in_which_nothing_happens_is_heard_of_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "HEARTBEAT_SECONDS", 0.05)
    gate = anyio.Event()
    async with open_served(tmp_path, lambda _: Reply("FINAL(done)", gate=gate)) as served:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                group.start_soon(partial(served.call, "rlm_query", question="?", text="text"))
                await served.until_told(8)
                gate.set()

    values = [value for value, _ in served.progress]
    assert all(earlier < later for earlier, later in pairwise(values))
    assert len({message.rpartition(" · ")[0] for _, message in served.progress[2:7]}) == 1


async def test_the_same_idempotency_key_is_the_same_run(served: Served) -> None:
    handle = await stored(served)

    runs = [
        await served.call(
            "rlm_query", question="What is hidden?", contexts=[handle], idempotency_key="one"
        )
        for _ in range(2)
    ]

    assert runs[0]["run_id"] == runs[1]["run_id"]
    assert served.model.received == 2


async def test_a_run_goes_on_from_the_variables_of_another(tmp_path: Path) -> None:
    replies = iter(
        [
            cell(
                "total = {'a': [1, 2.5, None]}\nname = 'Ada \"quoted\"\\n'\nhelp_me = len\nFINAL(1)"
            ),
            cell("FINAL([total, name, len(context)])"),
        ]
    )
    async with open_served(tmp_path, lambda _: next(replies)) as served:
        first = await served.call("rlm_query", question="first?", text="some text")
        second = await served.call("rlm_query", question="more?", continue_run=first["run_id"])

    assert second["data"] == [{"a": [1, 2.5, None]}, 'Ada "quoted"\n', 9]


async def test_a_long_answer_is_given_in_pieces(tmp_path: Path) -> None:
    async with open_served(tmp_path, turns(cell("FINAL('0123456789' * 5000)"))) as served:
        run = await served.call("rlm_query", question="?", text="text")
        call = re.fullmatch(
            r'rlm_run_variables\(run_id="(\w+)", name="FINAL", start=(\d+)\)', run["next"]
        )
        assert call is not None
        rest = await served.call(
            "rlm_run_variables", run_id=call[1], name="FINAL", start=int(call[2]), limit=50_000
        )

    assert run["answer_chars"] == 50_000
    assert (run["answer"][: int(call[2])] + rest["text"]) == "0123456789" * 5000


async def test_an_answer_fits_the_schema_that_was_asked_for(tmp_path: Path) -> None:
    schema = {
        "type": "object",
        "properties": {"count": {"type": "integer"}},
        "required": ["count"],
    }
    script = turns(cell("FINAL({'count': 'three'})"), cell("FINAL({'count': 3})"))
    async with open_served(tmp_path, script) as served:
        run = await served.call("rlm_query", question="?", text="text", answer_schema=schema)

    assert (run["status"], run["data"]) == ("completed", {"count": 3})


async def refused(served: Served, tool: str, **arguments: Any) -> dict[str, Any]:
    """Make a call that is refused, and check that no run and no model call came of it."""
    error = await served.error(tool, **arguments)
    runs = await served.call("rlm_run_list")
    assert runs["runs"] == []
    assert served.model.received == 0
    return error


async def test_a_budget_below_zero_is_refused(served: Served) -> None:
    error = await refused(
        served, "rlm_query", question="?", text="x", budget={"max_tokens": 1 << 64}
    )
    assert (error["code"], "max_tokens" in error["message"]) == ("invalid_input", True)

    error = await refused(served, "rlm_query", question="?", text="x", budget={"max_usd": -1})

    assert "budget.max_usd=-1" in error["text"]
    assert "greater than 0" in error["text"]


async def test_a_limit_in_usd_without_prices_is_refused(served: Served) -> None:
    error = await refused(served, "rlm_query", question="?", text="x", budget={"max_usd": 1})

    assert error["code"] == "configuration"
    assert "cost_per_input_token" in error["text"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"question": "  ", "text": "x"}, "question is empty"),
        ({"question": "?"}, "no text to ask about"),
        ({"question": "q" * 10_000_000, "text": "x"}, "10,000,000 characters"),
        ({"question": "?", "contexts": ["ctx_0123456789abcdef"]}, "ctx_0123456789abcdef"),
        ({"question": "?", "text": "x", "options": {"temprature": 1}}, "'temperature'"),
        ({"question": "?", "text": "x", "options": {"temp": 1}}, "'temperature'"),
        ({"question": "?", "text": "x", "options": {"max_usd": 1}}, "part of `budget`"),
        ({"question": "?", "text": "x", "options": {"temperature": 9}}, "temperature=9"),
        ({"question": "?", "text": "x", "budget": {"max_calls": 1}}, "there are max_usd, max_tok"),
        ({"question": "?", "continue_run": "run_none"}, "run_none"),
        ({"question": "?", "text": "x", "wait_seconds": -1}, "wait_seconds=-1"),
    ],
)
async def test_a_question_that_cannot_be_asked_is_refused(
    served: Served, arguments: dict[str, Any], named: str
) -> None:
    error = await refused(served, "rlm_query", **arguments)

    assert named in error["text"]
    assert len(error["text"]) < 2000


async def test_an_unknown_run_is_answered_with_the_nearest(served: Served) -> None:
    run = await served.call("rlm_query", question="What is hidden?", text="a needle")
    wrong = run["run_id"][:-1] + ("0" if run["run_id"][-1] != "0" else "1")

    for tool in ("rlm_run_wait", "rlm_run_cancel", "rlm_run_trace", "rlm_run_variables"):
        error = await served.error(tool, run_id=wrong)
        assert error["code"] == "not_found"
        assert wrong in error["text"]
        assert run["run_id"] in error["text"]
        assert "rlm_run_list" in error["text"]


async def test_without_a_model_the_error_says_what_to_set(tmp_path: Path) -> None:
    async with open_served(tmp_path, turns("never"), root_model=None) as served:
        error = await refused(served, "rlm_query", question="?", text="x")
        status = await served.call("rlm_status")

    assert "RLM_MCP_ROOT_MODEL" in error["text"]
    assert status["model"]["configured"] is False
    assert status["model"]["reachable"] is None


async def test_an_endpoint_that_refuses_ends_the_run_with_its_address(tmp_path: Path) -> None:
    async with open_served(tmp_path, turns("x"), base_url="http://127.0.0.1:9/v1") as served:
        run = await served.call("rlm_query", question="?", text="x", wait_seconds=60)
        status = await served.call("rlm_status")

    assert run["status"] == "failed"
    assert run["error"]["code"] == "model_unreachable"
    assert "127.0.0.1:9" in run["error"]["message"]
    assert "RLM_MCP_BASE_URL" in run["error"]["fix"]
    assert status["model"]["reachable"] is False


async def test_a_key_that_is_rejected_ends_the_run_without_showing_it(tmp_path: Path) -> None:
    script = by_model(root=[unauthorized(KEY)])
    async with open_served(tmp_path, script) as served:
        result = await served.raw("rlm_query", question="?", text="x")

    assert result.structured_content is not None
    assert result.structured_content["error"]["code"] == "model_authentication"
    assert "RLM_MCP_API_KEY" in result.structured_content["error"]["fix"]
    assert KEY not in str(result.structured_content) + text_of(result)


async def test_the_status_names_model_sandbox_and_store(served: Served) -> None:
    handle = await stored(served)
    await served.call("rlm_query", question="What is hidden?", contexts=[handle])

    status = await served.call("rlm_status")

    models = status["model"].pop("models")
    assert [(one["name"], one["input_price"]) for one in models] == [("root", None), ("sub", None)]
    assert status["model"] == {
        "configured": True,
        "base_url": served.model.base_url,
        "root_model": "root",
        "sub_model": "sub",
        "reachable": True,
        "error": None,
    }
    assert status["store"]["contexts"] == status["store"]["runs"] == 1
    assert status["store"]["bytes"] > 0
    assert Path(status["store"]["text_cache"]["path"]).name == "texts"
    assert "cluster" not in status
    assert status["sandbox"]["isolation"] in {"full", "partial", "process"}
    assert status["limits"]["max_sub_calls"] == 500
    assert KEY not in str(status)


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"type": "objekt"}, "objekt"),
        ({"$ref": "http://127.0.0.1:9/schema.json"}, "http://127.0.0.1:9/schema.json"),
        ({"$ref": "#"}, "without end"),
        ({"pattern": "a{99999999999}"}, "too large"),
        ({"pattern": "(" * 3000 + ")" * 3000}, "recursion"),
    ],
)
async def test_an_answer_schema_that_cannot_be_used_is_refused(
    served: Served, schema: dict[str, Any], named: str
) -> None:
    error = await refused(served, "rlm_query", question="?", text="x", answer_schema=schema)

    assert error["code"] == "invalid_input"
    assert named in error["text"]


async def test_a_key_that_belongs_to_another_question_is_refused(served: Served) -> None:
    run = await served.call("rlm_query", question="one?", text="a needle", idempotency_key="k")

    error = await served.error("rlm_query", question="two?", text="a needle", idempotency_key="k")

    assert run["run_id"] in error["text"]
    assert "'one?'" in error["text"]


async def test_what_code_makes_of_its_names_costs_no_answer(tmp_path: Path) -> None:
    names = "globals()['\\ud800x'] = kept = 1\nglobals()['class'] = (n for n in ())"
    odd = cell(f"{names}\nFINAL('the answer')")
    async with open_served(tmp_path, turns(odd)) as served:
        run = await served.call("rlm_query", question="?", text="text")
    async with open_served(tmp_path, turns(cell("FINAL(kept)"))) as restarted:
        more = await restarted.call("rlm_query", question="more?", continue_run=run["run_id"])
        text = (
            await restarted.client.call_tool("rlm_run_wait", {"run_id": more["run_id"]})
        ).content
        trace = await restarted.call("rlm_run_trace", run_id=more["run_id"], limit=50)

    assert (run["status"], run["answer"]) == ("completed", "the answer")
    assert more["answer"] == "1"
    origin = f"It continued in a new process, with the saved variables of {run['run_id']}, except "
    assert more["note"].startswith(f"{origin}class")
    assert origin in str(text)
    assert any("class" in e["preview"] for e in trace["events"] if e["type"] == "warning")


async def test_many_variables_are_listed_in_pages(tmp_path: Path) -> None:
    script = turns(cell("for n in range(450): globals()[f'v{n}'] = n\nFINAL('x')"))
    async with open_served(tmp_path, script) as served:
        run = await served.call("rlm_query", question="?", text="text")
        names: list[str] = []
        start: int | None = 0
        while start is not None:
            page = await served.call("rlm_run_variables", run_id=run["run_id"], start=start)
            assert len(page["variables"]) <= 200
            names += [variable["name"] for variable in page["variables"]]
            start = page["next_start"]

    assert {f"v{n}" for n in range(450)} < set(names)


async def test_events_are_followed_without_a_gap(tmp_path: Path) -> None:
    gate = anyio.Event()
    look = [cell(f"print({n})") for n in range(12)]

    def script(request: ChatRequestView) -> Answer:
        turn = sum(message["role"] == "assistant" for message in request.messages)
        return look[turn] if turn < len(look) else Reply("FINAL(x)", gate=gate)

    async with open_served(tmp_path, script) as served:
        begun = await served.call("rlm_query", question="?", text="text", wait_seconds=0)
        with anyio.fail_after(60):
            await served.model.until(lambda: served.model.received > len(look))
        first = await served.call("rlm_run_wait", run_id=begun["run_id"], wait_seconds=0)
        gate.set()
        await served.ended(begun["run_id"])

    assert len(first["events"]) == 20
    assert first["next"].endswith("after_event=20)")


async def test_a_large_result_is_bounded_and_says_where_the_rest_is(tmp_path: Path) -> None:
    big = cell("FINAL([{'n': n, 'text': 'x' * 50} for n in range(20_000)])")
    async with open_served(tmp_path, turns(big)) as served:
        result = await served.raw("rlm_query", question="?", text="text")

    assert result.structured_content is not None
    assert len(str(result.structured_content)) < 100_000
    assert "FINAL" in result.structured_content["next"]


async def test_a_long_value_is_not_quoted_whole_in_an_error(served: Served) -> None:
    result = await served.raw(
        "rlm_query", question="?", text="x", options={"temperature": "9" * 1_000_000}
    )

    assert result.is_error
    assert len(result.model_dump_json()) < 10_000
