"""The real `claude` program answers as a model, against a scripted API on loopback."""

from __future__ import annotations

import os
from pathlib import Path

import anyio
import anyio.to_thread

from rlm_mcp.engine.models.chat import ChatRequest
from rlm_mcp.engine.models.commands.command import CommandModel
from rlm_mcp.engine.models.commands.presets import preset_command
from rlm_mcp.testing.scripted_model import open_scripted_model
from rlm_mcp.testing.scripted_replies import Reply
from tests.interop.environments import HOST_PACKAGES, node, node_modules

KEY = "sk-ant-canary-0000000000000000"
MESSAGES = ({"role": "system", "content": "be brief"}, {"role": "user", "content": "what?"})


async def test_claude_answers_without_tools_of_its_own_and_tells_its_cost(tmp_path: Path) -> None:
    executable = await anyio.to_thread.run_sync(node)
    modules = await anyio.to_thread.run_sync(node_modules, HOST_PACKAGES)
    programs = f"{modules / 'node_modules' / '.bin'}:{executable.parent}"
    async with open_scripted_model(lambda _: Reply("42", usage=(100, 7))) as server:
        environment = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "ANTHROPIC_BASE_URL": server.base_url.removesuffix("/v1"),
            "ANTHROPIC_API_KEY": KEY,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        }
        command = preset_command("claude", "", environment)
        model = CommandModel("command:claude", command, anyio.CapacityLimiter(1))
        with anyio.fail_after(300):
            reply = await model.complete(ChatRequest(MESSAGES))
    assert (reply.text, reply.input_tokens, reply.output_tokens) == ("42", 100, 7)
    assert reply.told_usd is not None
    assert reply.told_usd > 0
    request = server.requests[-1]
    assert request.params["tools"] == []
    assert "be brief" in str(request.params["system"])
    assert "what?" in str(request.messages)
