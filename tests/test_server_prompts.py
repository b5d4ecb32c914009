"""The prompts name what there is, and say what was asked."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from mcp.shared.exceptions import MCPError
from mcp_types import TextContent

from tests.serving import Served, open_served, turns


async def told(served: Served, name: str, **arguments: str) -> str:
    [message] = (await served.client.get_prompt(name, arguments)).messages
    assert isinstance(message.content, TextContent)
    assert message.role == "user"
    return message.content.text


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_prompts_name_only_tools_and_arguments_that_exist(tmp_path: Path, mode: str) -> None:
    async with open_served(tmp_path, turns("never"), mode=mode) as served:
        tools = {tool.name: tool for tool in (await served.client.list_tools()).tools}
        prompts = (await served.client.list_prompts()).prompts
        ask = await told(served, "ask_file", path='/data/a "b".txt', question="Who {is} it?")
        playbook = await told(served, "playbook")
        with pytest.raises(MCPError) as refused:
            await told(served, "ask_file", path="/data/a.txt")

    listed = {prompt.name: [one.name for one in prompt.arguments or []] for prompt in prompts}
    assert listed == {"ask_file": ["path", "question"], "playbook": []}
    for text in (ask, playbook):
        named = set(re.findall(r"\brlm_\w+", text))
        assert named
        assert named <= tools.keys()
        for tool, arguments in re.findall(r"\b(rlm_\w+)\((.*?)\)", text):
            given = set(re.findall(r"\b(\w+)=", arguments))
            assert given <= tools[tool].input_schema["properties"].keys()
        assert len(text) < 3000
    assert "rlm_context_add(path='/data/a \"b\".txt')" in ask
    assert "Question: Who {is} it?" in ask
    assert "question" in refused.value.error.message
    assert all(len(inspect.cleandoc(prompt.description or "")) < 100 for prompt in prompts)


async def test_prompts_propose_no_limit_that_needs_prices_and_the_refusal_names_one_that_does_not(
    tmp_path: Path,
) -> None:
    async with open_served(tmp_path, turns("never")) as served:
        playbook = await told(served, "playbook")
        asking = await told(served, "ask_file", path="/a.txt", question="?")
        refused = await served.error("rlm_query", question="?", text="x", budget={"max_usd": 1})

    assert "max_usd" not in playbook + asking
    assert "max_tokens" in refused["fix"]
