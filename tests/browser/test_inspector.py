"""The app in a host that is not ours: the Apps tab of MCP Inspector, from npm, by both transports.

The Inspector puts a sandbox proxy of another origin around the app, as web hosts do.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from playwright.async_api import FrameLocator, Page, expect

from rlm_mcp.testing.scripted_model import ScriptedModel, open_scripted_model
from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView, Reply, Script
from tests.browser.tabs import OpenTab
from tests.interop.environments import node, node_modules
from tests.interop.servers import over_http, over_stdio
from tests.serving import cell

LAUNCHER = "node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js"
QUESTION = "What is in the text, as the Inspector asks?"
OpenServer = Callable[[Path, ScriptedModel], AbstractAsyncContextManager[dict[str, Any]]]


def gated(gate: anyio.Event) -> Script:
    def answer(request: ChatRequestView) -> Answer:
        if request.model == "sub":
            return Reply("planks", gate=gate)
        is_first = not any(message["role"] == "assistant" for message in request.messages)
        return cell("notes = llm_query('what is here?')") if is_first else "FINAL_VAR(notes)"

    return answer


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


@asynccontextmanager
async def open_inspector(directory: Path, server: dict[str, Any]) -> AsyncGenerator[str]:
    """Start the Inspector's page over one server; gives its address."""
    kind = "streamable-http" if "url" in server else "stdio"
    config = anyio.Path(directory / "servers.json")
    await config.write_text(json.dumps({"mcpServers": {"rlm": {"type": kind, **server}}}))
    executable = await anyio.to_thread.run_sync(node)
    modules = await anyio.to_thread.run_sync(node_modules)
    env = {
        "HOME": str(directory),
        "PATH": f"{executable.parent}:{os.environ['PATH']}",
        "CLIENT_PORT": str(free_port()),
        "MCP_SANDBOX_PORT": str(free_port()),
        "MCP_AUTO_OPEN_ENABLED": "false",
        "MCP_INSPECTOR_SECRET_STORE": "memory",
    }
    command = [str(executable), LAUNCHER, "--web", "--config", str(config)]
    async with await anyio.open_process(command, cwd=modules, env=env, stderr=None) as process:
        try:
            said = ""
            assert process.stdout is not None
            with anyio.fail_after(120):
                while not (found := re.search(r"up and running at:\s+(http://\S+)\s", said)):
                    said += (await process.stdout.receive()).decode()
            yield found[1]
        finally:
            process.terminate()


async def ask(page: Page, url: str) -> FrameLocator:
    """Ask in the Inspector's Apps tab, by a call that waits; gives the app's frame."""
    await page.goto(url)
    await page.get_by_label('Connect or disconnect "rlm"').click(force=True)
    await page.locator("label", has_text="Apps").click()
    await page.get_by_role("button", name="Ask a question over long texts").click()
    await page.get_by_role("textbox", name="question").fill(QUESTION)
    await page.get_by_role("textbox", name="text", exact=True).fill("a text of the Inspector")
    await page.get_by_label("wait_seconds").fill("120")
    await page.get_by_role("button", name="Open App").click()
    return page.frame_locator("iframe").frame_locator("iframe")


@pytest.mark.parametrize("open_server", [over_stdio, over_http])
async def test_a_run_is_live_in_the_inspector_while_its_call_still_waits(
    tmp_path: Path, open_tab: OpenTab, open_server: OpenServer
) -> None:
    gate = anyio.Event()
    async with (
        open_scripted_model(gated(gate)) as model,
        open_server(tmp_path, model) as server,
        open_inspector(tmp_path, server) as url,
        open_tab(is_ours=False) as tab,
    ):
        app = await ask(tab.page, url)
        await expect(app.locator("h1")).to_have_text(QUESTION)
        await expect(app.locator(".figures")).to_contain_text("1 under way")
        await expect(app.locator(".run .status")).to_have_text("running")
        gate.set()

        await expect(app.locator(".run .status")).to_have_text("completed")
        await expect(app.locator(".answer .text")).to_have_text("planks")
        await app.get_by_role("tab", name="Variables").click()
        await app.get_by_role("button", name="notes").click()
        await expect(app.locator(".value .plain")).to_have_text("planks")


async def test_a_run_is_cancelled_from_the_app_in_the_inspector(
    tmp_path: Path, open_tab: OpenTab
) -> None:
    async with (
        open_scripted_model(gated(anyio.Event())) as model,
        over_stdio(tmp_path, model) as server,
        open_inspector(tmp_path, server) as url,
        open_tab(is_ours=False) as tab,
    ):
        app = await ask(tab.page, url)
        await expect(app.locator(".figures")).to_contain_text("1 under way")
        await app.get_by_role("button", name="Cancel").click()

        await expect(app.locator(".run .status")).to_have_text("cancelled")
