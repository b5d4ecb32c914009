"""The MCP App as a client sees it: declared, read, and followed event by event."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.client import advertise
from mcp.server.apps import APP_MIME_TYPE, EXTENSION_ID
from mcp_types import TextResourceContents

from rlm_mcp.server.tool import RUN_VIEW
from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView, Reply
from tests.serving import Served, cell, open_served, turns

pytestmark = pytest.mark.usefixtures("one_sandbox_for_all")

WITH_APPS = {"extensions": [advertise(EXTENSION_ID, {"mimeTypes": [APP_MIME_TYPE]})]}
LINES = "rlm_run_lines"


async def tools_of(served: Served) -> dict[str, Any]:
    return {tool.name: tool.meta for tool in (await served.client.list_tools()).tools}


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_tool_of_the_app_is_listed_to_those_alone_who_can_show_one(
    tmp_path: Path, mode: str
) -> None:
    async with open_served(tmp_path / "a", turns("never"), mode=mode) as served:
        without = await tools_of(served)
    async with open_served(tmp_path / "b", turns("never"), mode=mode, client=WITH_APPS) as served:
        with_apps = await tools_of(served)

    assert LINES not in without
    assert with_apps[LINES] == {"ui": {"visibility": ["app"]}}
    assert set(with_apps) == {*without, LINES}
    views: dict[str, object] = {name: dict(meta or {}).get("ui") for name, meta in without.items()}
    shown = {name for name, view in views.items() if view == {"resourceUri": RUN_VIEW}}
    assert shown == {"rlm_query", "rlm_run_resume", "rlm_run_trace"}


async def test_the_view_is_one_document_that_wants_no_network(tmp_path: Path) -> None:
    async with open_served(tmp_path, turns("never"), client=WITH_APPS) as served:
        [content] = (await served.client.read_resource(RUN_VIEW)).contents

    assert isinstance(content, TextResourceContents)
    assert content.mime_type == APP_MIME_TYPE
    assert content.meta == {"ui": {"prefersBorder": True, "csp": {}}}
    assert 'data-as="app"' in content.text
    assert "<link" not in content.text
    assert " src=" not in content.text.partition("<script>")[0]


async def test_lines_come_with_the_next_event_and_say_when_there_are_no_more(
    tmp_path: Path,
) -> None:
    gate = anyio.Event()

    def answer(request: ChatRequestView) -> Answer:
        return Reply("FINAL(done)", gate=gate)

    async with open_served(tmp_path, answer, client=WITH_APPS) as served:
        asked = {"question": "What is it?", "text": "abc", "wait_seconds": 0}
        run_id = (await served.call("rlm_query", **asked))["run_id"]
        await served.model.until(lambda: bool(served.model.requests))
        page = await served.call(LINES, run_id=run_id)
        after = page["lines"][-1]["seq"]
        silent = await served.call(LINES, run_id=run_id, after_event=after, wait_seconds=0)
        gate.set()
        seen: list[str] = []
        while not page["ended"]:
            page = await served.call(LINES, run_id=run_id, after_event=after, wait_seconds=10)
            after = page["lines"][-1]["seq"]
            seen += [line["type"] for line in page["lines"]]

    assert (silent["lines"], silent["ended"]) == ([], False)
    assert seen[-1] == "run_finished"


async def test_the_run_of_a_call_that_waits_is_found_by_all_its_arguments(tmp_path: Path) -> None:
    gate = anyio.Event()
    all_the_same = {"question": "What is it?", "options": {"temperature": 0.5}}
    calls: list[dict[str, Any]] = [
        {**all_the_same, "text": "abc", "budget": {"max_iterations": 7}},
        {**all_the_same, "text": "abc", "budget": {"max_iterations": 8}},
        {**all_the_same, "text": "abd", "budget": {"max_iterations": 7}},
        {**all_the_same, "text": "abc", "sub_model": "sub"},
        {**all_the_same, "text": "abc", "answer_schema": {"type": "string"}},
        {**all_the_same, "text": "abc", "idempotency_key": "another"},
    ]

    def answer(request: ChatRequestView) -> Answer:
        return Reply('FINAL("done")', gate=gate)

    async with open_served(tmp_path, answer, client=WITH_APPS, max_concurrent_runs=2) as served:
        begun = [(await served.call("rlm_query", **call, wait_seconds=0)) for call in calls]
        runs = [run["run_id"] for run in begun]
        # As hosts give the arguments: with what was left out, with the wait, with lists as text.
        given = [{**call, "wait_seconds": 60, "contexts": "[]", "root_model": ""} for call in calls]
        found = [await served.call(LINES, question_of=one, wait_seconds=10) for one in given]
        other = {"question": "What is it?", "text": "never stored", "wait_seconds": 60}
        nothing = await served.call(LINES, question_of=other, wait_seconds=0)
        texts = len((await served.call("rlm_context_list"))["contexts"])
        gate.set()
        for run_id in runs:
            await served.ended(run_id)

    assert len(set(runs)) == len(calls)
    assert [page["run_id"] for page in found] == runs
    assert all(page["lines"][0]["type"] == "run_started" for page in found)
    assert nothing == {"run_id": None, "lines": [], "ended": False}
    assert texts == 2


async def test_a_view_waits_for_a_run_that_has_not_begun(tmp_path: Path) -> None:
    asked = {"question": "What is it?", "text": "abc"}
    gate = anyio.Event()
    found: list[str] = []

    def answer(request: ChatRequestView) -> Answer:
        return Reply("FINAL(done)", gate=gate)

    async with (
        open_served(tmp_path, answer, client=WITH_APPS) as served,
        anyio.create_task_group() as tasks,
    ):

        async def look() -> None:
            found.append((await served.call(LINES, question_of=asked))["run_id"])
            gate.set()

        tasks.start_soon(look)
        run = await served.call("rlm_query", **asked, wait_seconds=60)
        assert (run["status"], found) == ("completed", [run["run_id"]])


@pytest.mark.parametrize("given", [{"question": ""}, {"questions": "?"}, {"question": 7}, {}])
async def test_arguments_that_rlm_query_refuses_find_no_run(
    tmp_path: Path, given: dict[str, Any]
) -> None:
    async with open_served(tmp_path, "FINAL(done)", client=WITH_APPS) as served:
        error = await served.error(LINES, question_of=given)

    assert error["code"] == "invalid_input"
    assert error["fix"]


async def test_lines_of_a_run_that_is_not_there_are_refused_with_a_next_step(
    tmp_path: Path,
) -> None:
    async with open_served(tmp_path, turns(cell("1"), "FINAL(x)"), client=WITH_APPS) as served:
        error = await served.error(LINES, run_id=f"run_{'0' * 32}")

    assert error["code"] == "not_found"
    assert "rlm_run_list" in error["fix"]
