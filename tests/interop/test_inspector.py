"""The Inspector's command line finds nothing to say against the tools, and calls them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from rlm_mcp.testing.scripted_model import ScriptedModel, open_scripted_model
from tests.interop.environments import node, node_modules
from tests.interop.servers import over_http, over_stdio
from tests.serving import turns

LAUNCHER = "node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js"


async def inspect(*arguments: str) -> Any:
    """Run the Inspector without its pages; it must have nothing to say but the result."""
    executable = await anyio.to_thread.run_sync(node)
    modules = await anyio.to_thread.run_sync(node_modules)
    # It starts others, which must not find an older Node.
    env = {"HOME": os.environ["HOME"], "PATH": f"{executable.parent}:{os.environ['PATH']}"}
    command = [str(executable), LAUNCHER, "--cli", *arguments, "--format", "json", "-q"]
    with anyio.fail_after(120):
        done = await anyio.run_process(command, cwd=modules, env=env, check=False)
    said = done.stderr.decode()
    assert done.returncode == 0, said
    return json.loads(done.stdout)["result"]


async def where(directory: Path, model: ScriptedModel, era: str) -> list[str]:
    """How the server is started over stdio, as arguments."""
    async with over_stdio(directory, model) as server:
        settings = [
            part for name, value in server["env"].items() for part in ("-e", f"{name}={value}")
        ]
    return [server["command"], *server["args"], *settings, "--protocol-era", era]


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_the_schemas_of_tools_are_portable(tmp_path: Path, era: str) -> None:
    async with open_scripted_model("FINAL(done)") as model:
        server = await where(tmp_path, model, era)
        listed = await inspect(*server, "--method", "tools/list", "--strict")

    assert {tool["name"] for tool in listed["tools"]} >= {"rlm_query", "rlm_context_add"}


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_a_question_is_asked_over_http(tmp_path: Path, era: str) -> None:
    asked = json.dumps({"question": "What is it?", "text": "some text"})
    async with (
        open_scripted_model(turns("FINAL(done)")) as model,
        over_http(tmp_path, model) as server,
    ):
        called = await inspect(
            *("--server-url", server["url"], "--transport", "http", "--protocol-era", era),
            *("--header", f"Authorization: {server['headers']['Authorization']}"),
            *("--method", "tools/call", "--tool-name", "rlm_query", "--tool-args-json", asked),
        )

    assert called["structuredContent"]["answer"] == "done"
