"""The plugin in a real Claude Code, whose model is scripted: server, skill and hook."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from rlm_mcp.testing.scripted_model import open_scripted_model
from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView, Reply
from tests.interop.environments import HOST_PACKAGES, node_modules, python_with
from tests.interop.messages_api import Block, Script, open_messages_api, text, tool_use
from tests.serving import KEY, cell

ROOT = Path(__file__).parent.parent.parent
PLUGIN = ROOT / "packaging" / "claude-code"
PACKAGE = "@anthropic-ai/claude-code"
PREFIX = "mcp__plugin_rlm_rlm__"
QUESTION = "Where is the needle?"


def claude() -> str:
    try:
        modules = node_modules({PACKAGE: HOST_PACKAGES[PACKAGE]})
    except (AssertionError, OSError) as error:
        pytest.skip(f"not installable here: {str(error)[:200]}")
    command = modules / "node_modules" / ".bin" / "claude"
    if not command.exists():
        pytest.skip("the package has no command for this machine")
    return str(command)


def root_model(request: ChatRequestView) -> Answer:
    turns = sum(message["role"] == "assistant" for message in request.messages)
    look = cell("found = context.find('needle')\nprint(found)")
    return Reply(cell("FINAL(context[found : found + 6])") if turns else look)


def results(asked: dict[str, Any]) -> list[dict[str, Any]]:
    """What the tools gave so far."""
    contents = [one["content"] for one in asked["messages"] if isinstance(one["content"], list)]
    return [part for one in contents for part in one if part["type"] == "tool_result"]


def assistant(file: Path) -> Script:
    """What the assistant does: reads the file, then takes the proposal, then answers."""

    def script(asked: dict[str, Any]) -> Block:
        given = results(asked)
        if not any(tool["name"] == "Read" for tool in asked.get("tools", ())):
            return text("{}")  # a title, or the like
        if not given:
            return tool_use("Read", file_path=str(file))
        if len(given) == 1:
            return tool_use(f"{PREFIX}rlm_context_add", path=str(file))
        if len(given) == 2:
            handles = re.findall(r"ctx_[0-9a-f]{16}", json.dumps(given))
            return tool_use(f"{PREFIX}rlm_query", question=QUESTION, contexts=handles[:1])
        return text("The answer is the needle.")

    return script


def environment(home: Path, url: str) -> dict[str, str]:
    scripts = Path(sys.executable).parent  # has the command rlm-mcp
    return {
        "HOME": str(home),
        "PATH": f"{scripts}{os.pathsep}/usr/bin:/bin",
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": "sk-ant-nothing",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        "RLM_MCP_DATA_DIR": str(home / "data"),
        "RLM_MCP_ALLOWED_PATHS": str(home),
        "RLM_MCP_MIN_ISOLATION": "process",
    }


async def test_claude_code_is_proposed_the_server_uses_it_and_answers(tmp_path: Path) -> None:
    command = await anyio.to_thread.run_sync(claude)
    file = tmp_path / "big.log"
    await anyio.Path(file).write_text(("hay " * 20 + "\n") * 5_000 + "needle\n")
    work = tmp_path / "work"
    await anyio.Path(work).mkdir()

    async def run(*arguments: str, given: str = "") -> str:
        with anyio.fail_after(300):
            done = await anyio.run_process(
                [command, *arguments], input=given.encode(), env=env, cwd=work, check=False
            )
        assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
        return done.stdout.decode()

    async with (
        open_messages_api(assistant(file)) as api,
        open_scripted_model(root_model) as model,
    ):
        env = environment(tmp_path, api.url)
        options = {"root_model": "root", "base_url": model.base_url, "api_key": KEY}
        await run("plugin", "marketplace", "add", str(ROOT))
        await run("plugin", "install", "rlm@rlm-mcp")
        await run("plugin", "configure", "rlm@rlm-mcp", "--values-stdin", given=json.dumps(options))
        said = await run(
            "-p", QUESTION, "--allowedTools", f"Read,{PREFIX}rlm_context_add,{PREFIX}rlm_query",
            "--output-format", "json",
        )  # fmt: skip
    last = json.dumps(api.requests[-1])

    assert json.loads(said)["result"] == "The answer is the needle.", said
    assert f"{file} is larger than 200 kB" in last
    assert "needle" in json.dumps(results(api.requests[-1])[-1])
    assert "long-texts" in last


def test_the_tools_of_their_makers_find_nothing_wrong(tmp_path: Path) -> None:
    command = claude()
    env = environment(tmp_path, "http://127.0.0.1:9")
    skills = python_with("skills-ref==0.1.1").parent / "agentskills"
    for words in (
        (command, "plugin", "validate", "--strict", str(PLUGIN)),
        (command, "plugin", "validate", "--strict", str(ROOT)),
        (str(skills), "validate", str(PLUGIN / "skills" / "long-texts")),
    ):
        done = subprocess.run(
            words, env=env, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"{words}:\n{done.stdout}{done.stderr}"
