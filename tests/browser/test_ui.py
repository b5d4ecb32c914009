"""`rlm-mcp ui` as a process, entered as a browser enters it; servers that die or work beside."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
from anyio.abc import Process
from playwright.async_api import expect

from rlm_mcp.testing.scripted_model import ScriptedModel, open_scripted_model
from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView, Reply, Script
from tests.browser.tabs import OpenTab
from tests.commands import command, environment, started
from tests.serving import cell, turns
from tests.test_stdio import open_process

SCRIPT = turns(cell("notes = llm_query('what is here?')\nprint(notes)"), "FINAL_VAR(notes)")


def gated(gate: anyio.Event) -> Script:
    """A first cell, then an answer that waits for the gate."""

    def answer(request: ChatRequestView) -> Answer:
        is_first = not any(message["role"] == "assistant" for message in request.messages)
        return cell("mark = 17\nprint(mark)") if is_first else Reply("FINAL(done)", gate=gate)

    return answer


@dataclass
class Opened:
    """A command at work, and what it has said so far."""

    process: Process
    said: str = ""

    async def hears(self, pattern: str) -> str:
        """Wait until its stderr has a line; gives the first group of the pattern."""
        assert self.process.stderr is not None
        with anyio.fail_after(120):
            while not (found := re.search(pattern, self.said)):
                self.said += (await self.process.stderr.receive()).decode()
        return found[1]


@asynccontextmanager
async def open_command(env: dict[str, str], *arguments: str) -> AsyncGenerator[Opened]:
    async with await anyio.open_process(started(*arguments), env=env) as process:
        try:
            yield Opened(process)
        finally:
            if process.returncode is None:
                process.kill()


@asynccontextmanager
async def asked(directory: Path) -> AsyncGenerator[tuple[dict[str, str], str]]:
    """The environment of a run that has ended, and its id."""
    await anyio.Path(directory / "text.txt").write_text("some text")
    async with open_scripted_model(SCRIPT) as model:
        env = environment(directory, model.base_url)
        path = str(directory / "text.txt")
        done = await command(env, "query", "What is it?", "--file", path, "--json")
        yield env, json.loads(done.stdout)["run_id"]


async def test_the_page_opens_by_its_file_and_the_address_keeps_no_token(
    tmp_path: Path, open_tab: OpenTab
) -> None:
    browser = anyio.Path(tmp_path / "browser")
    # It says on the command's own stderr which file it was given.
    await browser.write_text('#!/bin/sh\necho "opened $1 end" >&2\n')
    await browser.chmod(0o700)
    async with asked(tmp_path) as (env, run_id), open_tab() as tab:
        async with open_command(env | {"BROWSER": str(browser)}, "ui", run_id) as page:
            token = (await page.hears(r"token=([\w-]+)\s")).strip()
            await tab.page.goto(await page.hears(r"opened (file://\S+) end"))
            await expect(tab.page.locator("h1")).to_have_text("What is it?")
            await expect(tab.page.locator(".run .status")).to_have_text("completed")
            assert tab.page.url.endswith(f"/#/run/{run_id}")
            assert [url for url in tab.requests if token in url and "file:" not in url] == []
            assert await tab.page.evaluate("document.referrer") == ""
            page.process.send_signal(signal.SIGINT)
            with anyio.fail_after(60):
                assert await page.process.wait() == 0

        await expect(tab.page.locator(".brand")).to_contain_text("no connection")
        kept = env["RLM_MCP_DATA_DIR"]
        assert not [path async for path in anyio.Path(kept).glob("page-*")]


async def test_a_port_that_is_taken_is_said_with_a_next_step(tmp_path: Path) -> None:
    async with open_scripted_model(SCRIPT) as model:
        env = environment(tmp_path, model.base_url)
        async with open_command(env, "ui", "--no-open") as one:
            port = await one.hears(r"127\.0\.0\.1:(\d+)/")
            other = await command(env, "ui", "--no-open", "--port", port)

    assert other.exit_code == 2
    assert f"cannot listen on '127.0.0.1', port {port}" in other.stderr
    assert "--port" in other.stderr


async def test_a_run_of_another_process_is_live_and_its_variables_are_said_to_be_elsewhere(
    tmp_path: Path, open_tab: OpenTab
) -> None:
    gate = anyio.Event()
    async with (
        open_scripted_model(gated(gate)) as model,
        open_process(tmp_path, model) as assistant,
        open_command(page_environment(tmp_path, model), "ui", "--no-open") as page,
        open_tab() as tab,
    ):
        given = {"question": "What is it?", "text": "some text", "wait_seconds": 0}
        run_id = (await assistant.call("rlm_query", **given))["run_id"]
        await model.until(lambda: len(model.requests) == 2)
        address = await page.hears(r"the page is at (\S+)\s")
        await tab.page.goto(address.replace("/#", f"/#/run/{run_id}&"))
        await expect(tab.page.locator(".turn")).to_have_count(2)
        await tab.page.get_by_role("tab", name="Variables").click()
        await expect(tab.page.locator(".notice")).to_contain_text(
            "Another server works on this run"
        )
        gate.set()

        await expect(tab.page.locator(".run .status")).to_have_text("completed")
        await expect(tab.page.get_by_role("button", name="mark")).to_be_visible()
        await expect(tab.page.locator(".notice")).to_have_count(0)


def page_environment(directory: Path, model: ScriptedModel) -> dict[str, str]:
    """That of a command on the data directory of `open_process`."""
    return environment(directory, model.base_url) | {"RLM_MCP_DATA_DIR": str(directory / "data")}


async def test_a_server_that_was_killed_is_found_again_and_its_run_can_be_resumed(
    tmp_path: Path, open_tab: OpenTab
) -> None:
    gate = anyio.Event()
    async with open_scripted_model(gated(gate)) as model, open_tab() as tab:
        env = page_environment(tmp_path, model) | {"RLM_MCP_HTTP_TOKEN": "a-token-for-this-test-1"}
        page = tab.page
        async with open_command(env, "serve", "--http", "--port", "0") as server:
            url = await server.hears(r"serving MCP at (\S+)/mcp")
            await tab.open(f"{url}/#/ask", env["RLM_MCP_HTTP_TOKEN"])
            await page.set_input_files(
                "input[type=file]",
                {"name": "log.txt", "mimeType": "text/plain", "buffer": b"a text to ask about"},
            )
            await expect(page.locator("h1")).to_have_text("log.txt")
            await page.get_by_role("button", name="Ask a question").click()
            await page.get_by_label("Question").fill("What is in it?")
            await page.keyboard.press("Control+Enter")
            await expect(page.locator(".turn")).to_have_count(2)
            server.process.kill()
            await server.process.wait()
        await expect(page.locator(".brand")).to_contain_text("no connection")
        await expect(page.locator(".turn")).to_have_count(2)
        async with open_command(env, "serve", "--http", "--port", url.rpartition(":")[2]):
            await expect(page.locator(".brand")).not_to_contain_text("no connection")
            await expect(page.locator(".run .status")).to_have_text("interrupted")
            await expect(page.locator(".turn")).to_have_count(2)
            gate.set()
            await page.get_by_role("button", name="Resume").click()

            await expect(page.locator(".run .status")).to_have_text("completed")
            await expect(page.locator(".answer .text")).to_have_text("done")
