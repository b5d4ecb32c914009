"""The page for the owner of this machine, beside a server over stdio, and where its token is."""

from __future__ import annotations

import json
import re
import stat
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx2
import pytest

from rlm_mcp.server.http.own_page import redirect_file
from rlm_mcp.server.http.page_beside import open_page_beside
from rlm_mcp.service.opening import open_service
from rlm_mcp.store.database import DATABASE_NAME
from rlm_mcp.testing.scripted_model import open_scripted_model
from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView, Reply
from tests.http_serving import ANN, open_site
from tests.serving import SHARED_SANDBOX, Served, cell, open_served, text_of, turns
from tests.test_stdio import open_process

SCRIPT = turns(cell("notes = llm_query('what is here?')\nprint(notes)"), "FINAL_VAR(notes)")
ASKED = {"question": "What is it?", "text": "a short text", "wait_seconds": 60}


@dataclass
class Beside:
    """A server over stdio with a page: its client, and how a browser enters the page."""

    served: Served
    url: str
    token: str
    file: Path
    log: Path


@asynccontextmanager
async def open_beside(directory: Path, script: Any = SCRIPT) -> AsyncGenerator[Beside]:
    """Start a server with `RLM_MCP_UI=1`, and wait until it has said where its page is."""
    path = directory / "stderr.log"
    async with open_scripted_model(script) as model:
        with path.open("w") as log:
            async with open_process(directory, model, errlog=log, RLM_MCP_UI="1") as served:
                await served.call("rlm_run_list")
                url, file = await anyio.to_thread.run_sync(_said, path.read_text())
                [token] = re.findall(r"token=([\w-]{43,})", file.read_text())[:1]
                yield Beside(served, url, token, file, path)


def _said(log: str) -> tuple[str, Path]:
    [(url, file)] = re.findall(
        r"the page is at (\S+)/; open this file in a browser to sign in: file://(\S+)", log
    )
    return url, Path(file)


async def test_a_server_over_stdio_offers_the_page_and_results_name_its_address(
    tmp_path: Path,
) -> None:
    async with open_beside(tmp_path) as beside:
        result = await beside.served.raw("rlm_query", **ASKED)
        run = dict(result.structured_content or {})
        async with httpx2.AsyncClient(base_url=beside.url, timeout=60) as http:
            page = await http.get("/")
            closed = await http.get(f"/runs/{run['run_id']}/export?format=json")
            http.headers["authorization"] = f"Bearer {beside.token}"
            opened = await http.get(f"/runs/{run['run_id']}/export?format=json")

    assert run["page_url"] == f"{beside.url}/#/run/{run['run_id']}"
    assert f"Page: {run['page_url']}" in text_of(result)
    assert (page.status_code, closed.status_code) == (200, 401)
    assert opened.json()["run"]["answer"] == "what is here?"
    assert not beside.file.exists()  # one look, after the end


async def test_the_page_beside_a_server_reaches_the_variables_of_its_run_at_work(
    tmp_path: Path,
) -> None:
    gate = anyio.Event()

    def answer(request: ChatRequestView) -> Answer:
        is_first = not any(message["role"] == "assistant" for message in request.messages)
        return cell("mark = 17") if is_first else Reply("FINAL(done)", gate=gate)

    async with open_beside(tmp_path, answer) as beside:
        run = await beside.served.call("rlm_query", **(ASKED | {"wait_seconds": 0}))
        await beside.served.model.until(lambda: len(beside.served.model.requests) == 2)
        listed = await called(beside, "rlm_run_variables", run_id=run["run_id"])
        gate.set()
        await beside.served.ended(run["run_id"])

    assert [one["name"] for one in listed["variables"]] == ["mark"]
    assert "note" not in listed


async def called(beside: Beside, tool: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool as the page does it, in one request."""
    version = "2026-07-28"
    known = "io.modelcontextprotocol"
    meta = {
        f"{known}/protocolVersion": version,
        f"{known}/clientInfo": {"name": "test", "version": "1"},
        f"{known}/clientCapabilities": {},
    }
    headers = {
        "authorization": f"Bearer {beside.token}",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": version,
        "mcp-method": "tools/call",
        "mcp-name": tool,
    }
    params = {"name": tool, "arguments": arguments, "_meta": meta}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    async with httpx2.AsyncClient(base_url=beside.url, headers=headers, timeout=60) as http:
        answer = await http.post("/mcp", json=body)
    text = answer.text
    if answer.headers["content-type"].startswith("text/event-stream"):
        text = re.findall(r"^data: (.+)$", text, re.MULTILINE)[-1]
    return json.loads(text)["result"]["structuredContent"]


async def test_no_token_stands_in_a_result_a_log_a_trace_or_an_export(tmp_path: Path) -> None:
    async with open_beside(tmp_path) as beside:
        served = beside.served
        query = await served.raw("rlm_query", **ASKED)
        run_id = dict(query.structured_content or {})["run_id"]
        told = [query.model_dump_json()]
        tools = ("rlm_run_wait", "rlm_run_trace", "rlm_run_variables")
        told += [(await served.raw(tool, run_id=run_id)).model_dump_json() for tool in tools]
        told.append((await served.raw("rlm_status")).model_dump_json())
        headers = {"authorization": f"Bearer {beside.token}"}
        async with httpx2.AsyncClient(base_url=beside.url, headers=headers, timeout=60) as http:
            paths = [f"/runs/{run_id}/export?format={form}" for form in ("html", "json", "trace")]
            told += [(await http.get(path)).text for path in (*paths, "/")]
        token = beside.token
        kept = served.settings.data_dir.glob(f"{DATABASE_NAME}*")
        data = [path.read_bytes() for path in kept]

    assert len(told) == 9
    assert [text for text in told if token in text] == []
    assert token not in beside.log.read_text()  # one look
    assert data
    assert [each for each in data if token.encode() in each] == []


@pytest.mark.usefixtures("one_sandbox_for_all")
async def test_a_server_over_http_names_its_page_by_the_name_its_caller_used(
    tmp_path: Path,
) -> None:
    async with open_site(tmp_path, SCRIPT) as site:
        async with site.open_client() as client:
            run = await client.call("rlm_query", **ASKED)
            trace = await client.raw("rlm_run_trace", run_id=run["run_id"])
        async with site.open_http() as http:
            saved = await http.get(f"/runs/{run['run_id']}/export")

    assert run["page_url"] == f"{site.url}/#/run/{run['run_id']}"
    assert ANN not in json.dumps(run) + trace.model_dump_json() + saved.text


@pytest.mark.usefixtures("one_sandbox_for_all")
async def test_a_server_without_a_page_names_none(tmp_path: Path) -> None:
    async with open_served(tmp_path, SCRIPT) as served:
        result = await served.raw("rlm_query", **ASKED)

    assert "page_url" not in dict(result.structured_content or {})
    assert "Page:" not in text_of(result)


@pytest.mark.usefixtures("one_sandbox_for_all")
async def test_a_page_that_cannot_be_served_is_logged_and_takes_nothing_from_the_server(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = tmp_path / "nowhere"
    async with open_served(tmp_path / "served", SCRIPT) as served:
        settings = served.settings
    async with (
        open_service(settings, shared=SHARED_SANDBOX.get()) as service,
        open_page_beside(settings.model_copy(update={"data_dir": nowhere}), service, never) as url,
    ):
        assert url == ""

    assert "the page cannot be served" in caplog.text


def never(url: str, file: Path) -> None:
    raise AssertionError(url, file)


@pytest.mark.skipif(sys.platform != "linux", reason="only there it is sure that a process is dead")
def test_the_file_that_opens_a_page_is_its_owners_alone_and_that_of_a_killed_process_goes(
    tmp_path: Path,
) -> None:
    killed = tmp_path / "page-killed"
    killed.mkdir()
    with redirect_file('http://127.0.0.1:1/#token=<&">', tmp_path) as path:
        parts = (path.parent / "owner").read_text().split(":")
        modes = [stat.S_IMODE(each.stat().st_mode) for each in (path, path.parent)]
        assert modes == [0o600, 0o700]
        assert "token=&lt;&amp;&quot;&gt;" in path.read_text()
    (killed / "owner").write_text(":".join(["1", "1", *parts[2:]]))
    with redirect_file("http://127.0.0.1:1/", tmp_path) as other:
        assert other.exists()
        assert not killed.exists()

    assert list(tmp_path.iterdir()) == []


def test_a_file_left_over_that_cannot_be_read_keeps_no_page_from_opening(tmp_path: Path) -> None:
    (tmp_path / "page-unreadable" / "owner").mkdir(parents=True)

    with redirect_file("http://127.0.0.1:1/", tmp_path) as file:
        assert file.exists()
