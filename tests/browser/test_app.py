"""The app in a host of ours: an opaque frame under the default policy of the specification."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, Route, expect

from rlm_mcp.server.app_view import read_run_view
from tests.browser.tabs import OpenTab, Tab
from tests.http_serving import Site, open_site
from tests.serving import Served, cell, turns

pytestmark = pytest.mark.usefixtures("one_sandbox_for_all")

# As the specification of 2026-01-26 gives it for a resource that declares nothing.
DEFAULT_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; media-src 'self' data:; object-src 'none'; connect-src 'none'"
)
SCRIPT = turns(cell("notes = llm_query('what is here?')\nprint(notes)"), "FINAL_VAR(notes)")
HOST = """<!doctype html><iframe id=f sandbox=allow-scripts src=http://app.test/app.html
  style="width:700px;height:600px"></iframe><script>
window.got = [];
window.modes = ["inline", "fullscreen"];
const post = (message) => f.contentWindow.postMessage({ jsonrpc: "2.0", ...message }, "*");
window.notify = (method, params) => post({ method, params });
window.teardown = () => post({ id: "bye", method: "ui/resource-teardown", params: {} });
addEventListener("message", async ({ data }) => {
  got.push(data.method ?? `reply ${data.id}`);
  const reply = (result) => post({ id: data.id, result });
  if (data.method === "ui/initialize") {
    const hostContext = { theme: "dark", displayMode: "inline", availableDisplayModes: modes };
    const hostCapabilities = { serverTools: {}, updateModelContext: {}, message: {} };
    reply({ protocolVersion: "2026-01-26", hostInfo: {}, hostCapabilities, hostContext });
  } else if (data.method === "tools/call") {
    reply(JSON.parse(await callTool(data.params.name, JSON.stringify(data.params.arguments))));
  } else if (data.method === "ui/request-display-mode") reply({ mode: data.params.mode });
  else if (data.id !== undefined && data.method) reply({});
});
</script>"""


async def open_host(tab: Tab, client: Served) -> Page:
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
        "http://host.test/", lambda route: route.fulfill(body=HOST, content_type="text/html")
    )
    await page.goto("http://host.test/")
    await page.wait_for_function("got.includes('ui/notifications/initialized')")
    return page


async def result_of(site: Site, client: Served, seconds: float) -> dict[str, Any]:
    asked = {"question": "What is in it?", "text": "a text", "wait_seconds": seconds}
    result = await client.raw("rlm_query", **asked)
    return result.model_dump(by_alias=True, exclude_none=True, mode="json")


async def test_a_run_is_shown_live_beside_the_result_of_a_query(
    tmp_path: Path, open_tab: OpenTab
) -> None:
    async with open_site(tmp_path, SCRIPT) as site, site.open_client() as client, open_tab() as tab:
        page = await open_host(tab, client)
        result = await result_of(site, client, 0)
        given = {"arguments": {"question": "What is in it?"}}
        await page.evaluate("(p) => notify('ui/notifications/tool-input', p)", given)
        await page.evaluate("(p) => notify('ui/notifications/tool-result', p)", result)
        frame = page.frame_locator("#f")

        await expect(frame.locator("h1")).to_have_text("What is in it?")
        await expect(frame.locator(".run .status")).to_have_text("completed")
        await expect(frame.locator(".answer .text")).to_have_text("what is here?")
        await frame.get_by_role("button", name="Larger").click()
        await expect(frame.locator(".turn")).to_have_count(2)
        await page.evaluate("teardown()")
        await page.wait_for_function("got.includes('reply bye')")
        assert "ui/notifications/size-changed" in await page.evaluate("got")


async def test_a_view_that_was_dropped_comes_back_from_the_result_alone(
    tmp_path: Path, open_tab: OpenTab
) -> None:
    async with open_site(tmp_path, SCRIPT) as site, site.open_client() as client, open_tab() as tab:
        result = await result_of(site, client, 30)
        page = await open_host(tab, client)
        await page.evaluate("(p) => notify('ui/notifications/tool-result', p)", result)

        await expect(page.frame_locator("#f").locator(".run .status")).to_have_text("completed")


async def test_the_result_that_names_no_run_is_shown_as_it_is(
    tmp_path: Path, open_tab: OpenTab
) -> None:
    async with open_site(tmp_path, SCRIPT) as site, site.open_client() as client, open_tab() as tab:
        page = await open_host(tab, client)
        refused = {"isError": True, "content": [{"type": "text", "text": "not_found: no text"}]}
        await page.evaluate("(p) => notify('ui/notifications/tool-result', p)", refused)

        await expect(page.frame_locator("#f").locator(".notice")).to_have_text("not_found: no text")
