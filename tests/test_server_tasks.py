"""Runs as tasks, for clients that know tasks and for those that do not."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp.shared.exceptions import MCPError

from rlm_mcp.server.http.serving import Place, open_http_server
from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView, Reply, unauthorized
from tests.serving import open_served, settings_in, turns
from tests.tasking import KnowsTasks, ask, begin, settled

pytestmark = pytest.mark.usefixtures("one_sandbox_for_all")

open_tasking = partial(open_served, client={"extensions": [KnowsTasks()]})
ENVELOPE: dict[str, Any] = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {
        "extensions": {"io.modelcontextprotocol/tasks": {}}
    },
}


async def test_a_question_becomes_a_task_that_ends_with_the_tools_own_result(
    tmp_path: Path,
) -> None:
    gate = anyio.Event()

    def held(_: ChatRequestView) -> Answer:
        return Reply("FINAL(done)", gate=gate)

    async with open_tasking(tmp_path, held, keep_runs_days=2) as served:
        created = await begin(served, question="?", text="text")
        working = await ask(served, "tasks/get", taskId=created["taskId"])
        gate.set()
        ended = await settled(served, created["taskId"])
        listed = await served.call("rlm_run_list")
        told = await served.raw("rlm_run_cancel", run_id=created["taskId"])

    assert created.keys() == {
        *("resultType", "taskId", "status", "statusMessage", "createdAt", "lastUpdatedAt"),
        *("ttlMs", "pollIntervalMs"),
    }
    assert (created["status"], created["ttlMs"], created["pollIntervalMs"]) == (
        "working",
        2 * 86_400_000,
        1000,
    )
    assert "calls" in created["statusMessage"]
    assert working == {**created, "resultType": "complete", **changing(working)}
    assert ended == {**working, **changing(ended), "status": "completed", "result": ended["result"]}
    assert ended["result"]["structuredContent"]["answer"] == "done"
    assert ended["result"]["isError"] is False
    assert ended["result"]["content"] == [
        part.model_dump(by_alias=True, exclude_none=True) for part in told.content
    ]
    assert [run["run_id"] for run in listed["runs"]] == [created["taskId"]]
    assert datetime.fromisoformat(ended["lastUpdatedAt"]) >= datetime.fromisoformat(
        ended["createdAt"]
    )


def changing(task: dict[str, Any]) -> dict[str, Any]:
    """The fields that tell of progress."""
    return {name: task[name] for name in ("statusMessage", "lastUpdatedAt")}


@pytest.mark.parametrize(
    ("mode", "extensions"), [("auto", []), ("legacy", []), ("legacy", [KnowsTasks()])]
)
async def test_clients_without_tasks_get_the_answer_itself_and_no_methods(
    tmp_path: Path, mode: str, extensions: list[KnowsTasks]
) -> None:
    async with open_served(
        tmp_path, turns("FINAL(done)"), mode=mode, client={"extensions": extensions}
    ) as served:
        run = await served.call("rlm_query", question="?", text="text")
        with pytest.raises(MCPError) as refused:
            await ask(served, "tasks/get", taskId=run["run_id"])

    assert run["answer"] == "done"
    # The extension is missing from the request; for the older protocol, so is the method.
    assert refused.value.error.code == (-32021 if mode == "auto" else -32601)


async def test_what_needs_no_waiting_makes_no_task(tmp_path: Path) -> None:
    gate = anyio.Event()
    async with open_tasking(tmp_path, lambda _: Reply("FINAL(done)", gate=gate)) as served:
        begun = await begin(served, question="?", text="text", wait_seconds=0)
        refused = await begin(served, question="?", contexts=["ctx_0000000000000000"])
        listed = await begin(served, "rlm_run_list")
        gate.set()
        run_id = begun["structuredContent"]["run_id"]
        await settled(served, run_id)
        again = {"question": "?", "text": "text", "idempotency_key": "one"}
        first = await begin(served, **again)
        await settled(served, first["taskId"])
        repeated = await begin(served, **again)

    assert begun["structuredContent"]["status"] == "running"
    assert (refused["resultType"], refused["isError"]) == ("complete", True)
    assert "ctx_0000000000000000" in refused["content"][0]["text"]
    assert listed["structuredContent"]["runs"][0]["run_id"] == run_id
    assert repeated["structuredContent"]["answer"] == "done"


async def test_a_cancelled_task_stops_its_calls_and_is_cancelled(tmp_path: Path) -> None:
    never = anyio.Event()
    async with open_tasking(tmp_path, lambda _: Reply("FINAL(x)", gate=never)) as served:
        created = await begin(served, question="?", text="text")
        with anyio.fail_after(60):
            await served.model.until(lambda: served.model.in_flight == 1)
        acknowledged = await ask(served, "tasks/cancel", taskId=created["taskId"])
        with anyio.fail_after(60):
            await served.model.until(lambda: served.model.in_flight == 0)
        ended = await settled(served, created["taskId"])
        repeated = await ask(served, "tasks/cancel", taskId=created["taskId"])
        updated = await ask(served, "tasks/update", taskId=created["taskId"], inputResponses={})

    assert acknowledged == repeated == updated == {"resultType": "complete"}
    assert ended["status"] == "cancelled"
    assert ended.keys() & {"result", "error"} == set()


async def test_a_run_that_failed_is_a_result_and_one_that_lost_its_server_a_failure(
    tmp_path: Path,
) -> None:
    never = anyio.Event()
    async with open_tasking(tmp_path, lambda _: Reply("FINAL(x)", gate=never)) as served:
        lost = await begin(served, question="?", text="text")
    async with open_tasking(tmp_path, lambda _: unauthorized()) as served:
        created = await begin(served, question="?", text="text")
        failed = await settled(served, created["taskId"])
        found = await ask(served, "tasks/get", taskId=lost["taskId"])

    assert failed["status"] == "completed"
    assert failed["result"]["isError"] is True
    assert failed["result"]["structuredContent"]["status"] == "failed"
    assert failed["result"]["structuredContent"]["error"]["code"] == "model_authentication"
    assert (found["status"], found["error"]["code"]) == ("failed", -32603)
    assert found["ttlMs"] == 90 * 86_400_000
    assert found["error"]["data"]["code"] == "interrupted"
    assert found["error"]["data"]["fix"] in found["error"]["message"]
    assert "result" not in found


async def test_an_unknown_task_is_told_with_the_ids_that_are_near(tmp_path: Path) -> None:
    async with open_tasking(tmp_path, turns("FINAL(done)")) as served:
        created = await begin(served, question="?", text="text")
        await settled(served, created["taskId"])
        wrong = created["taskId"][:-1] + "_"
        for method in ("tasks/get", "tasks/cancel", "tasks/update"):
            with pytest.raises(MCPError) as refused:
                await ask(served, method, taskId=wrong, inputResponses={})
            assert refused.value.error.code == -32602
            assert created["taskId"] in refused.value.error.message
            assert refused.value.error.data["code"] == "not_found"


async def test_a_header_that_names_another_task_is_refused(tmp_path: Path) -> None:
    async with open_http(tmp_path) as post:
        statuses = {
            name: await post("tasks/get", {"taskId": "run_1"}, {"Mcp-Name": name} if name else {})
            for name in ("run_2", "=?base64?cnVuXzI=?=", "=?base64?cnVuXzE=?=", "run_1", "")
        }

    codes = {name: answer["error"]["code"] for name, answer in statuses.items()}
    assert codes == {
        "run_2": -32020,
        "=?base64?cnVuXzI=?=": -32020,
        # The header is right here, and the task unknown; a client may also leave it out.
        "=?base64?cnVuXzE=?=": -32602,
        "run_1": -32602,
        "": -32602,
    }


@asynccontextmanager
async def open_http(directory: Path) -> AsyncGenerator[Any]:
    """Serve over HTTP; gives a function that posts one request."""
    async with (
        open_http_server(settings_in(directory), Place(port=0)) as url,
        httpx2.AsyncClient(base_url=url) as client,
    ):

        async def post(method: str, params: dict[str, Any], headers: dict[str, str]) -> Any:
            body = {"jsonrpc": "2.0", "id": 1, "method": method}
            answer = await client.post(
                "/mcp",
                json={**body, "params": {**params, "_meta": ENVELOPE}},
                headers={
                    "Accept": "application/json, text/event-stream",
                    "MCP-Protocol-Version": "2026-07-28",
                    "Mcp-Method": method,
                    **headers,
                },
            )
            assert answer.status_code == 400, answer.text
            return answer.json()

        yield post
