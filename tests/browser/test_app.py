"""The app in a host of ours: an opaque frame under the default policy of the specification."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from playwright.async_api import Page, Route, expect

from rlm_mcp.server.app_view import read_run_view
from rlm_mcp.testing.scripted_model import open_scripted_model
from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView, Reply, Script
from tests.browser.tabs import OpenTab, Tab
from tests.http_serving import open_site
from tests.serving import Served, cell, turns
from tests.test_app_view import WITH_APPS
from tests.test_stdio import open_process

pytestmark = pytest.mark.usefixtures("one_sandbox_for_all")

# As the specification of 2026-01-26 gives it for a resource that declares nothing.
DEFAULT_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; media-src 'self' data:; object-src 'none'; connect-src 'none'"
)
OpenClient = Callable[[Path, Script], AbstractAsyncContextManager[Served]]
SCRIPT = turns(cell("notes = llm_query('what is here?')\nprint(notes)"), "FINAL_VAR(notes)")
HOST = """<!doctype html><iframe id=f sandbox=allow-scripts src=http://app.test/app.html
  style="width:700px;height:600px"></iframe><script>
window.got = [];
window.theme = "SCHEME";
window.modes = ["inline", "fullscreen"];
const post = (message) => f.contentWindow.postMessage({ jsonrpc: "2.0", ...message }, "*");
window.notify = (method, params) => post({ method, params });
window.teardown = () => post({ id: "bye", method: "ui/resource-teardown", params: {} });
addEventListener("message", async ({ data }) => {
  got.push(data.method ?? `reply ${data.id}`);
  const reply = (result) => post({ id: data.id, result });
  if (data.method === "ui/initialize") {
    const hostContext = { theme, displayMode: "inline", availableDisplayModes: modes };
    const hostCapabilities = { serverTools: {}, updateModelContext: {}, message: {} };
    reply({ protocolVersion: "2026-01-26", hostInfo: {}, hostCapabilities, hostContext });
  } else if (data.method === "tools/call" && window.refuses) {
    post({ id: data.id, error: { code: -32000, message: "Apps may not call tools here." } });
  } else if (data.method === "tools/call") {
    reply(JSON.parse(await callTool(data.params.name, JSON.stringify(data.params.arguments))));
  } else if (data.method === "ui/request-display-mode") reply({ mode: data.params.mode });
  else if (data.method === "ui/notifications/size-changed") {
    f.style.height = `${data.params.height}px`;
  }
  else if (data.id !== undefined && data.method) reply({});
});
</script>"""


async def open_host(tab: Tab, client: Served, scheme: str = "dark") -> Page:
    """Open the host, whose tools are called by a real client."""
    view = str((await read_run_view()).content)
    page = tab.page

    async def call_tool(name: str, arguments: str) -> str:
        result = await client.raw(name, **json.loads(arguments))
        return result.model_dump_json(by_alias=True, exclude_none=True)

    async def give(route: Route) -> None:
        headers = {"content-security-policy": DEFAULT_POLICY, "content-type": "text/html"}
        await route.fulfill(body=view, headers=headers)

    await page.expose_function("callTool", call_tool)
    await page.route("http://app.test/*", give)
    await page.route(
        "http://host.test/",
        lambda route: route.fulfill(body=HOST.replace("SCHEME", scheme), content_type="text/html"),
    )
    await page.goto("http://host.test/")
    await page.wait_for_function("got.includes('ui/notifications/initialized')")
    return page


@asynccontextmanager
async def over_http(directory: Path, script: Script) -> AsyncGenerator[Served]:
    async with open_site(directory, script) as site, site.open_client() as client:
        yield client


@asynccontextmanager
async def over_stdio(directory: Path, script: Script) -> AsyncGenerator[Served]:
    async with (
        open_scripted_model(script) as model,
        open_process(directory, model, client=WITH_APPS) as client,
    ):
        yield client


async def show(page: Page, method: str, params: Any) -> None:
    """Tell the app something, as hosts do."""
    await page.evaluate("([m, p]) => notify(`ui/notifications/${m}`, p)", [method, params])


async def result_of(client: Served, seconds: float, **more: Any) -> dict[str, Any]:
    """What rlm_query gives, as a host passes it on."""
    asked = {"question": "What is in it?", "text": "a text", "wait_seconds": seconds, **more}
    result = await client.raw("rlm_query", **asked)
    return result.model_dump(by_alias=True, exclude_none=True, mode="json")


@pytest.mark.parametrize("open_client", [over_http, over_stdio])
async def test_a_run_is_shown_live_beside_the_result_of_a_query(
    tmp_path: Path, open_tab: OpenTab, open_client: OpenClient
) -> None:
    async with open_client(tmp_path, SCRIPT) as client, open_tab() as tab:
        page = await open_host(tab, client)
        await show(page, "tool-input", {"arguments": {"question": "What is in it?"}})
        await show(page, "tool-result", await result_of(client, 0))
        frame = page.frame_locator("#f")

        await expect(frame.locator("h1")).to_have_text("What is in it?")
        await expect(frame.locator(".run .status")).to_have_text("completed")
        await expect(frame.locator(".answer .text")).to_have_text("what is here?")
        await frame.get_by_role("button", name="Larger").click()
        await expect(frame.locator(".turn")).to_have_count(2)
        await page.evaluate("teardown()")
        await page.wait_for_function("got.includes('reply bye')")
        assert "ui/notifications/size-changed" in await page.evaluate("got")


@pytest.mark.parametrize("open_client", [over_http, over_stdio])
async def test_equal_questions_over_other_texts_are_each_shown_while_their_calls_wait(
    tmp_path: Path, open_tab: OpenTab, open_client: OpenClient
) -> None:
    gate = anyio.Event()

    def answer(request: ChatRequestView) -> Answer:
        # A text as small as these stands in the first message.
        text = "one" if "text one" in str(request.messages) else "two"
        return Reply(f"FINAL(the answer over {text})", gate=gate)

    async with (
        open_client(tmp_path, answer) as client,
        open_tab() as one,
        open_tab() as other,
        anyio.create_task_group() as tasks,
    ):
        pages = [await open_host(tab, client) for tab in (one, other)]
        for page, text in zip(pages, ("text one", "text two"), strict=True):
            tasks.start_soon(partial(result_of, client, 60, text=text))
            given = {"question": "What is in it?", "text": text, "wait_seconds": 60}
            await show(page, "tool-input", {"arguments": given})
        frames = [page.frame_locator("#f") for page in pages]
        for frame in frames:
            await expect(frame.locator(".run .status")).to_have_text("running")
        gate.set()

        for frame, text in zip(frames, ("one", "two"), strict=True):
            answer_text = frame.locator(".answer .text")
            await expect(answer_text).to_have_text(f"the answer over {text}")


async def test_a_run_is_cancelled_from_the_app(tmp_path: Path, open_tab: OpenTab) -> None:
    def answer(request: ChatRequestView) -> Answer:
        return Reply("never", gate=anyio.Event())

    async with over_http(tmp_path, answer) as client, open_tab() as tab:
        page = await open_host(tab, client)
        await show(page, "tool-result", await result_of(client, 0))
        frame = page.frame_locator("#f")
        await frame.get_by_role("button", name="Cancel").click()

        await expect(frame.locator(".run .status")).to_have_text("cancelled")
        await page.wait_for_function("got.includes('ui/update-model-context')")


async def test_a_view_that_was_dropped_comes_back_from_the_result_alone(
    tmp_path: Path, open_tab: OpenTab
) -> None:
    async with over_http(tmp_path, SCRIPT) as client, open_tab() as tab:
        page = await open_host(tab, client)
        await show(page, "tool-result", await result_of(client, 30))

        await expect(page.frame_locator("#f").locator(".run .status")).to_have_text("completed")


async def test_a_host_that_refuses_calls_of_apps_sees_what_the_result_held(
    tmp_path: Path, open_tab: OpenTab
) -> None:
    async with over_http(tmp_path, SCRIPT) as client, open_tab() as tab:
        page = await open_host(tab, client)
        await page.evaluate("window.refuses = true")
        await show(page, "tool-input", {"arguments": {"question": "What is in it?"}})
        await show(page, "tool-result", await result_of(client, 30))
        frame = page.frame_locator("#f")

        await expect(frame.get_by_role("alert")).to_contain_text("Apps may not call tools here.")
        await expect(frame.locator("h1")).to_have_text("What is in it?")
        await expect(frame.locator(".status")).to_have_text("completed")
        await expect(frame.locator(".answer .text")).to_have_text("what is here?")


async def test_a_run_that_is_not_there_has_a_plain_message(
    tmp_path: Path, open_tab: OpenTab
) -> None:
    async with over_http(tmp_path, SCRIPT) as client, open_tab() as tab:
        page = await open_host(tab, client)
        run_id = f"run_{'0' * 32}"
        await show(page, "tool-input", {"arguments": {"run_id": run_id}})

        await expect(page.frame_locator("#f").get_by_role("alert")).to_contain_text(run_id)


async def test_the_result_that_names_no_run_is_shown_as_it_is(
    tmp_path: Path, open_tab: OpenTab
) -> None:
    async with over_http(tmp_path, SCRIPT) as client, open_tab() as tab:
        page = await open_host(tab, client)
        refused = {"isError": True, "content": [{"type": "text", "text": "not_found: no text"}]}
        await show(page, "tool-result", refused)

        await expect(page.frame_locator("#f").locator(".notice")).to_have_text("not_found: no text")
