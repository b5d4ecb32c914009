"""Use the command given once: as hosts do, in both protocol eras, by hand, and over HTTP."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile

import anyio
import httpx2
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from rlm_mcp.testing.scripted_model import open_scripted_model
from rlm_mcp.testing.scripted_replies import ChatRequestView

TOKEN = "a-token-of-the-http-server"
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
                with anyio.fail_after(120):
                    await ask_over_http(command, env)


async def ask_as_a_host(command: list[str], env: dict[str, str], mode: str) -> None:
    started = StdioServerParameters(command=command[0], args=command[1:], env=env)
    async with Client(started, mode=mode) as client:
        await ask(client, mode)


async def ask(client: Client, how: str) -> None:
    tools = (await client.list_tools()).tools
    run = await client.call_tool("rlm_query", {"question": "Who keeps it?", "text": TEXT})
    answer = (run.structured_content or {}).get("answer")
    if len(tools) < 10 or not str(answer).startswith("Ottilie"):
        raise SystemExit(f"not serving: {run}")
    print(f"{how}: {len(tools)} tools; {answer!r}")


async def ask_over_http(command: list[str], env: dict[str, str]) -> None:
    words = [*command, "serve", "--http", "--port", "0"]
    env = env | {"RLM_MCP_HTTP_TOKEN": TOKEN}
    async with await anyio.open_process(words, env=env, stdout=None) as server:
        assert server.stderr is not None
        said = ""
        while not (found := re.search(r"serving MCP at (http\S+/mcp);", said)):
            said += (await server.stderr.receive()).decode()
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx2.AsyncClient(timeout=60) as http:
            refused = (await http.get(found[1])).status_code
        async with (
            httpx2.AsyncClient(headers=headers, timeout=60) as http,
            Client(streamable_http_client(found[1], http_client=http)) as client,
        ):
            await ask(client, "http")
        server.terminate()
        if refused != 401 or await server.wait():
            raise SystemExit(f"without a token {refused}; ended with {server.returncode}: {said}")


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
