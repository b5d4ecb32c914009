"""The real programs of the presets answer as models, against a scripted API on loopback."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from rlm_mcp.engine.models.chat import ChatReply, ChatRequest
from rlm_mcp.engine.models.commands.command import CommandModel
from rlm_mcp.engine.models.commands.presets import Command, preset_command
from rlm_mcp.testing.scripted_model import open_scripted_model
from rlm_mcp.testing.scripted_native import NativeReply
from rlm_mcp.testing.scripted_replies import Fault, Reply
from tests.interop.environments import HOST_PACKAGES, node, node_modules, python_with

KEY = "sk-ant-canary-0000000000000000"
LLM = "llm==0.36"
MESSAGES = ({"role": "system", "content": "be brief"}, {"role": "user", "content": "what?"})


async def installed(find: Callable[[], Path]) -> str:
    """The directory of a program, as the first of PATH; skips where it cannot be installed."""
    try:
        directory = await anyio.to_thread.run_sync(find)
    except (AssertionError, OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"the program cannot be installed here: {str(error)[-300:]}")
    return f"{directory}:{os.environ['PATH']}"


async def programs_of_node() -> str:
    node_path = await installed(lambda: node().parent)
    found = await installed(lambda: node_modules(HOST_PACKAGES) / "node_modules" / ".bin")
    return f"{found.partition(':')[0]}:{node_path}"


async def answered(command: Command) -> ChatReply:
    model = CommandModel("it", command, anyio.CapacityLimiter(1))
    with anyio.fail_after(300):
        return await model.complete(ChatRequest(MESSAGES))


async def test_claude_answers_without_tools_of_its_own_and_tells_its_cost(tmp_path: Path) -> None:
    programs = await programs_of_node()
    async with open_scripted_model(lambda _: Reply("42", usage=(100, 7))) as server:
        environment = {
            "PATH": programs,
            "HOME": str(tmp_path),
            "ANTHROPIC_BASE_URL": server.base_url.removesuffix("/v1"),
            "ANTHROPIC_API_KEY": KEY,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        }
        reply = await answered(preset_command("claude", "", environment))
    assert (reply.text, reply.input_tokens, reply.output_tokens) == ("42", 100, 7)
    assert reply.told_usd is not None
    assert reply.told_usd > 0
    request = server.requests[-1]
    assert request.params["tools"] == []
    assert "be brief" in str(request.params["system"])
    assert "what?" in str(request.messages)


async def test_codex_answers_without_commands_and_search_and_tells_its_tokens(
    tmp_path: Path,
) -> None:
    programs = await programs_of_node()
    answer = NativeReply("42", usage=(100, 7), cached=60)
    async with open_scripted_model(lambda _: answer) as server:
        environment = {"PATH": programs, "HOME": str(tmp_path), "OPENAI_API_KEY": KEY}
        command = preset_command("codex", "gpt-5.1", environment)
        place = f'{{name="it", base_url="{server.base_url}", wire_api="responses", '
        place += 'env_key="OPENAI_API_KEY"}'
        at_loopback = ("-c", f"model_providers.it={place}", "-c", 'model_provider="it"')
        argv = (*command.argv[:2], *at_loopback, *command.argv[2:])
        reply = await answered(replace(command, argv=argv))
    assert (reply.text, reply.input_tokens, reply.output_tokens) == ("42", 160, 7)
    assert (reply.cached_input_tokens, reply.usage_estimated) == (60, False)
    [request] = server.requests
    assert request.model == "gpt-5.1"
    said = str(request.messages)
    assert "be brief" in said
    assert "what?" in said
    # What looks at pictures and asks its user is left: no command, no search, no other agent.
    tools = {tool.get("name") or tool["type"] for tool in request.params["tools"]}
    assert tools <= {"request_user_input", "view_image", "update_plan"}


GEMINI: Any = {
    "candidates": [
        {"content": {"role": "model", "parts": [{"text": "42"}]}, "finishReason": "STOP"}
    ],
    "usageMetadata": {
        "promptTokenCount": 100,
        "cachedContentTokenCount": 40,
        "candidatesTokenCount": 7,
        "thoughtsTokenCount": 3,
        "totalTokenCount": 110,
    },
}


async def test_gemini_answers_without_tools_in_a_directory_that_nobody_trusts(
    tmp_path: Path,
) -> None:
    programs = await programs_of_node()
    settings = tmp_path / ".gemini" / "settings.json"
    settings.parent.mkdir()
    settings.write_text(json.dumps({"security": {"auth": {"selectedType": "gemini-api-key"}}}))
    stream = Fault(
        body=f"data: {json.dumps(GEMINI)}\r\n\r\n", headers={"content-type": "text/event-stream"}
    )
    async with open_scripted_model("unused") as server:
        page = "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse"
        server.pages[page] = stream
        environment = {
            "PATH": programs,
            "HOME": str(tmp_path),
            "GEMINI_API_KEY": KEY,
            "GOOGLE_GEMINI_BASE_URL": server.base_url.removesuffix("/v1"),
        }
        reply = await answered(preset_command("gemini", "gemini-2.5-flash", environment))
    assert (reply.text, reply.input_tokens, reply.output_tokens) == ("42", 100, 10)
    assert (reply.cached_input_tokens, reply.usage_estimated) == (40, False)
    sent = next(body for path, body in server.asked if path == page)
    assert not any(tool.get("functionDeclarations") for tool in sent.get("tools", []))
    assert "be brief" in str(sent["contents"])
    assert "what?" in str(sent["contents"])


async def test_llm_answers_and_tells_its_tokens(tmp_path: Path) -> None:
    programs = await installed(lambda: python_with(LLM).parent)
    async with open_scripted_model(lambda _: Reply("42", usage=(1100, 7))) as server:
        models = tmp_path / "extra-openai-models.yaml"
        models.write_text(
            f"- model_id: it\n  model_name: its-name\n  api_base: {server.base_url}\n"
        )
        environment = {
            "PATH": programs,
            "HOME": str(tmp_path),
            "LLM_USER_PATH": str(tmp_path),
            "OPENAI_API_KEY": KEY,
        }
        reply = await answered(preset_command("llm", "it", environment))
    assert (reply.text, reply.input_tokens, reply.output_tokens) == ("42", 1100, 7)
    [request] = server.requests
    assert request.model == "its-name"
    assert [message["content"] for message in request.messages] == ["be brief", "what?"]
    assert "tools" not in request.params
