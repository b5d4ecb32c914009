"""Agents of frameworks store a large file, ask, follow the run and read what is not there.

Their model is scripted, so what it is given shows what a model gets.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from rlm_mcp.testing.scripted_model import open_scripted_model
from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView, Reply, Script
from tests.interop import messages_api
from tests.interop.agent_model import END, AgentModel, open_agent_model, texts_of
from tests.interop.environments import python_with
from tests.interop.servers import over_http, over_stdio
from tests.interop.test_clients import CLIENTS, plain_environment
from tests.interop.test_plugin import claude, environment
from tests.serving import cell

MEGABYTES = 30
LOOK = cell("found = context.find('needle')\nprint(found)")
ANSWER = cell("FINAL(context[found : found + 6])")
# Frameworks that agree about a version of the SDK share an environment.
NEWER = (
    "openai-agents>=0.20,<0.25",
    "google-adk>=2.13,<3",
    "pydantic-ai-slim[mcp,openai]>=2.31,<3",
    "llama-index-tools-mcp>=0.6,<0.7",
    "llama-index-llms-openai-like>=0.8,<0.9",
)
OLDER = (
    "mcp-use>=1.7,<2",
    "langchain-mcp-adapters>=0.3.2,<0.4",
    "langchain>=1.5,<2",
    "langchain-openai>=1.7,<2",
)


@dataclass(frozen=True)
class Framework:
    """An agent of a framework: the file that runs it, what that needs, and how it connects."""

    file: str
    requirements: tuple[str, ...]
    transport: Any = over_stdio


FRAMEWORKS: Mapping[str, Framework] = {
    "OpenAI Agents SDK": Framework("agent_openai_agents.py", NEWER),
    "Google ADK": Framework("agent_google_adk.py", NEWER),
    "Pydantic AI": Framework("agent_pydantic_ai.py", NEWER),
    "LlamaIndex": Framework("agent_llama_index.py", NEWER, over_http),
    "mcp-use": Framework("agent_mcp_use.py", OLDER),
    "LangChain": Framework("agent_langchain.py", OLDER),
}


def held_by(gate: anyio.Event) -> Script:
    """A root model that finds the needle, and answers when the gate is open."""

    def script(request: ChatRequestView) -> Answer:
        turns = sum(message["role"] == "assistant" for message in request.messages)
        return Reply(ANSWER, gate=gate) if turns else LOOK

    return script


def opener(gate: anyio.Event) -> Callable[[], object]:
    """Give what opens a gate from another thread."""
    token = anyio.lowlevel.current_token()
    return lambda: anyio.from_thread.run_sync(gate.set, token=token)


async def large_file(directory: Path) -> Path:
    """A text of 30 MB with a needle in its middle."""
    file = directory / "big.txt"
    half = "hay " * (MEGABYTES * 125_000)
    await anyio.Path(file).write_text(f"{half}needle{half}")
    return file


def check(agent: AgentModel, said: str) -> None:
    """What the model was given, and that the agent came to its end."""
    stored, asked, *followed, refused = agent.results
    # Some hosts give the text, others the structure.
    assert re.search(r'30,000,006 characters|"chars": ?30000006', stored)
    assert "running" in asked
    assert "rlm_run_wait" in asked
    assert "needle" in followed[-1]
    assert "completed" in followed[-1]
    assert "There is no context 'ctx_0'" in refused
    assert END in said


@pytest.mark.parametrize("name", FRAMEWORKS)
async def test_an_agent_stores_asks_follows_and_is_told_what_is_wrong(
    tmp_path: Path, name: str
) -> None:
    framework = FRAMEWORKS[name]
    try:
        python = await anyio.to_thread.run_sync(python_with, *framework.requirements)
    except AssertionError as error:
        pytest.skip(f"not installable here: {str(error)[:300]}")
    gate = anyio.Event()
    file = await large_file(tmp_path)
    with open_agent_model(str(file), opener(gate)) as agent:
        async with (
            open_scripted_model(held_by(gate)) as model,
            framework.transport(tmp_path, model) as server,
        ):
            env = {"INTEROP_SERVER": json.dumps(server), "INTEROP_MODEL": agent.base_url}
            with anyio.fail_after(300):
                done = await anyio.run_process(
                    [str(python), str(CLIENTS / framework.file)],
                    env={**plain_environment(), **env},
                    check=False,
                    stderr=sys.stderr.fileno(),
                )
    assert done.returncode == 0, agent.results
    check(agent, done.stdout.decode())


SERVER = "mcp__rlm__"
PRINT = ("-p", "Begin.", "--strict-mcp-config", "--allowedTools", "mcp__rlm", "--mcp-config")


def assistant(agent: AgentModel) -> messages_api.Script:
    """Claude Code's model: it looks up the tools that are not loaded, then calls them."""

    def script(asked: dict[str, Any]) -> messages_api.Block:
        names = [tool["name"] for tool in asked.get("tools", ())]
        if "Read" not in names:
            return messages_api.text("{}")  # a title, or the like
        turn = agent.turn(results(asked))
        name = SERVER + turn.tool
        if not turn.tool:
            return messages_api.text(END)
        if name in names:
            return messages_api.tool_use(name, **turn.arguments)
        return messages_api.tool_use("ToolSearch", query=f"select:{name}")

    return script


def results(asked: dict[str, Any]) -> list[str]:
    """What this server's tools gave so far."""
    parts = [
        part
        for message in asked["messages"]
        if isinstance(message["content"], list)
        for part in message["content"]
    ]
    ours = {
        part["id"]
        for part in parts
        if part["type"] == "tool_use" and part["name"].startswith(SERVER)
    }
    return [
        texts_of(part["content"])
        for part in parts
        if part["type"] == "tool_result" and part["tool_use_id"] in ours
    ]


async def test_claude_code_stores_asks_follows_and_is_told_what_is_wrong(tmp_path: Path) -> None:
    command = await anyio.to_thread.run_sync(claude)
    gate = anyio.Event()
    agent = AgentModel(str(await large_file(tmp_path)), gate.set)
    async with (
        messages_api.open_messages_api(assistant(agent)) as api,
        open_scripted_model(held_by(gate)) as model,
        over_stdio(tmp_path, model) as server,
    ):
        # Without this a call waits an hour for its run.
        server["env"]["RLM_MCP_WAIT_SECONDS"] = "3"
        config = json.dumps({"mcpServers": {"rlm": {"type": "stdio", **server}}})
        with anyio.fail_after(300):
            done = await anyio.run_process(
                [command, *PRINT, config],
                env=environment(tmp_path, api.url),
                cwd=tmp_path,
                check=False,
                stderr=sys.stderr.fileno(),
            )
    assert done.returncode == 0, (done.stdout, agent.results)
    check(agent, done.stdout.decode())
