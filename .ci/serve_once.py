"""Use the command given once: as hosts do, a query in both protocol eras, and by hand."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

import anyio
from mcp import Client
from mcp.client.stdio import StdioServerParameters

from rlm_mcp.scripted_model import ChatRequestView, open_scripted_model

TEXT = "Nothing happened.\n" * 1000 + "The keeper is called Ottilie.\n"


def reply(request: ChatRequestView) -> str:
    if any(message["role"] == "assistant" for message in request.messages):
        return "FINAL_VAR(name)"
    return "```repl\nname = context[context.find('called') :].split()[1].rstrip('.')\n```"


async def serve_once(command: list[str]) -> None:
    async with open_scripted_model(reply) as model:
        with tempfile.TemporaryDirectory() as directory:
            settings = {
                "HOME": directory,
                "RLM_MCP_DATA_DIR": f"{directory}/data",
                "RLM_MCP_BASE_URL": model.base_url,
                "RLM_MCP_ROOT_MODEL": "scripted",
            }
            env = {**os.environ, **settings}
            for mode in ("auto", "legacy"):
                with anyio.fail_after(120):
                    await ask_as_a_host(command, env, mode)
            if len(command) == 1:  # what starts a server alone takes no commands
                await ask_by_hand(command, env)


async def ask_as_a_host(command: list[str], env: dict[str, str], mode: str) -> None:
    started = StdioServerParameters(command=command[0], args=command[1:], env=env)
    async with Client(started, mode=mode) as client:
        tools = (await client.list_tools()).tools
        run = await client.call_tool("rlm_query", {"question": "Who keeps it?", "text": TEXT})
        answer = (run.structured_content or {}).get("answer")
        if len(tools) < 10 or not str(answer).startswith("Ottilie"):
            raise SystemExit(f"not serving: {run}")
        print(f"{mode}: {len(tools)} tools; {answer!r}")


async def ask_by_hand(command: list[str], env: dict[str, str]) -> None:
    for words, given, wanted in (
        (["--help"], "", "Commands:"),
        (["doctor"], "", "ok\troot model"),
        (["query", "Who keeps it?", "--file", "-", "--quiet"], TEXT, "Ottilie"),
    ):
        done = await anyio.run_process(
            [*command, *words], input=given.encode(), env=env, stderr=subprocess.STDOUT, check=False
        )
        if done.returncode or wanted not in done.stdout.decode():
            raise SystemExit(f"{words} ended with {done.returncode}: {done.stdout.decode()}")
        print(f"{words[0]}: well")


anyio.run(serve_once, sys.argv[1:])
