"""Clients that are not ours do a day's work: store, ask, follow, read, and get something wrong."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from rlm_mcp.testing.scripted_model import open_scripted_model
from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView, Reply
from tests.interop.environments import node, node_modules, python_with
from tests.interop.servers import over_http, over_stdio
from tests.serving import cell
from tests.surface import surface

CLIENTS = Path(__file__).parent / "clients"
LOOK = cell("found = context.find('needle')\nprint(found)")
ANSWER = cell("FINAL(context[found : found + 6])")
TEXT = "hay " * 1000 + "needle" + " hay" * 1000


def script(request: ChatRequestView) -> Answer:
    """A root model that finds the needle; asked to wait for ever, it does."""
    turns = sum(message["role"] == "assistant" for message in request.messages)
    gate = anyio.Event() if "Wait for ever." in request.text else None
    return Reply(ANSWER if turns else LOOK, gate=gate)


def python_client(name: str, *requirements: str) -> Callable[[], list[str]]:
    return lambda: [str(python_with(*requirements)), str(CLIENTS / name)]


def node_client(name: str) -> Callable[[], list[str]]:
    def command() -> list[str]:
        modules = node_modules()
        for file in ("work.mjs", name):
            shutil.copy(CLIENTS / file, modules)
        return [str(node()), str(modules / name)]

    return command


COMMANDS = {
    "previous SDK": python_client("previous_sdk.py", "mcp>=1.20,<2"),
    "fastmcp with tasks": python_client("run_as_task.py", "fastmcp[tasks]>=4,<5"),
    "TypeScript 1.x": node_client("typescript_v1.mjs"),
    "TypeScript 2.x": node_client("typescript_v2.mjs"),
}


@pytest.mark.parametrize("transport", [over_stdio, over_http])
@pytest.mark.parametrize("client", COMMANDS)
async def test_a_client_that_is_not_ours_does_a_days_work(
    tmp_path: Path, client: str, transport: Any
) -> None:
    async with open_scripted_model(script) as model, transport(tmp_path, model) as server:
        told = await run(client, server)

    tools = {tool["name"] for tool in (await surface())["tools"]}
    hidden = {"rlm_run_lines"}  # listed to hosts that show apps alone
    hidden |= set() if transport is over_http else {"rlm_context_upload_url"}
    assert set(told["tools"]) == tools - hidden
    assert (told["answer"], told["resource"]) == ("needle", "completed")
    assert any(uri.startswith("rlm://runs/run_") for uri in told["listed"])
    assert any(uri.startswith("rlm://contexts/ctx_") for uri in told["listed"])
    assert "rlm_query" in told["prompt"]
    assert told["refused"][0] is True
    assert "not_found: There is no context 'ctx_0'" in told["refused"][1]
    if client == "fastmcp with tasks":
        assert told["task"] == [True, True, "needle", "cancelled"]
        assert told["iterations"] == 2
    else:
        assert len(told["progress"]) >= 2
        assert told["progress"][0].startswith("run_")


async def run(client: str, server: dict[str, Any]) -> dict[str, Any]:
    """Run a client against a server, and give what it printed."""
    command = await anyio.to_thread.run_sync(COMMANDS[client])
    env = {"INTEROP_SERVER": json.dumps(server), "INTEROP_TEXT": TEXT}
    with anyio.fail_after(120):
        done = await anyio.run_process(
            command, env={**plain_environment(), **env}, check=False, stderr=sys.stderr.fileno()
        )
    assert done.returncode == 0
    return json.loads(done.stdout)


def plain_environment() -> dict[str, str]:
    """What a program needs to start; nothing that a test runner adds."""
    return {name: os.environ[name] for name in ("PATH", "HOME")}
