"""Everybody can use the page: axe finds nothing in either scheme, and keys are enough."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from playwright.async_api import expect

from tests.browser.tabs import OpenTab, Tab
from tests.browser.test_app import open_host, show
from tests.http_serving import ANN, BOB, open_site
from tests.serving import cell, turns

pytestmark = pytest.mark.usefixtures("one_sandbox_for_all")

NOWHERE = f"run_{'0' * 32}"
AXE = Path(__file__).parents[2] / "web" / "node_modules" / "axe-core" / "axe.min.js"
LOOK = """async () => {
    const runOnly = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"];
    const { violations } = await axe.run(document, { runOnly });
    return violations.map(({ id, nodes }) => `${id}: ${nodes[0].html}`);
}"""
SCRIPT = turns(
    cell("notes = llm_query_batch(['a', 'b'])\nprint(notes)"), cell("1 / 0"), "FINAL_VAR(notes)"
)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_no_violation_in_any_view(
    tmp_path: Path, open_tab: OpenTab, scheme: str
) -> None:
    if not AXE.exists():  # one look
        pytest.skip("axe-core is not installed: npm ci in web/")
    async with (
        open_site(tmp_path, SCRIPT) as site,
        # axe is put into the page, which its policy would not allow.
        open_tab(color_scheme=scheme, bypass_csp=True) as tab,
    ):
        async with site.open_client() as client:
            handle = (await client.call("rlm_context_add", text="a text", name="log"))["handle"]
            asked = {"question": "What?", "contexts": [handle], "wait_seconds": 30}
            run_id = (await client.call("rlm_query", **asked))["run_id"]
        page = tab.page
        await page.goto(site.url)
        await page.add_script_tag(path=AXE)
        found = {"login": await violations(tab)}
        await tab.open(f"{site.url}/?empty#/run/{NOWHERE}", BOB)
        await expect(page.get_by_role("alert")).to_be_visible()
        await page.add_script_tag(path=AXE)
        found["a message"] = await violations(tab)
        await page.goto(f"{site.url}/?empty#")
        await expect(page.get_by_role("heading", name="No runs yet")).to_be_visible()
        await page.add_script_tag(path=AXE)
        found["welcome"] = await violations(tab)
        await tab.open(f"{site.url}/?#/run/{run_id}", ANN)
        await expect(page.locator(".run .status")).to_have_text("completed")
        await page.add_script_tag(path=AXE)
        await page.locator(".batches .summary").click()
        await page.locator(".call").first.click()
        await expect(page.locator(".detail")).to_be_visible()
        found["turns"] = await violations(tab)
        await page.set_viewport_size({"width": 390, "height": 844})
        found["turns on a phone"] = await violations(tab)
        await page.set_viewport_size({"width": 1360, "height": 900})
        await page.get_by_role("tab", name="Variables").click()
        await page.get_by_role("button", name="notes").click()
        await expect(page.locator(".value")).to_be_visible()
        found["variables"] = await violations(tab)
        await page.get_by_role("tab", name="Figures").click()
        found["figures"] = await violations(tab)
        await page.get_by_role("button", name="Ask a question").click()
        await page.locator("summary", has_text="Limits").click()
        found["ask"] = await violations(tab)
        await page.locator(".rail a", has_text="log").click()
        await page.get_by_role("searchbox").fill("text")
        await page.keyboard.press("Enter")
        await expect(page.locator(".matches a")).to_be_visible()
        found["text"] = await violations(tab)

    assert {view: problems for view, problems in found.items() if problems} == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_no_violation_in_a_file_or_in_the_app(
    tmp_path: Path, open_tab: OpenTab, scheme: str
) -> None:
    if not AXE.exists():  # one look
        pytest.skip("axe-core is not installed: npm ci in web/")
    saved = anyio.Path(tmp_path / "saved.html")
    options = {"color_scheme": scheme, "bypass_csp": True}
    async with (
        open_site(tmp_path, SCRIPT) as site,
        site.open_client() as client,
        site.open_http() as http,
        open_tab(**options) as file,
        open_tab(**options) as host,
    ):
        asked = {"question": "What?", "text": "a text", "wait_seconds": 30}
        result = await client.raw("rlm_query", **asked)
        run_id = dict(result.structured_content or {})["run_id"]
        await saved.write_text((await http.get(f"/runs/{run_id}/export")).text)
        await file.page.goto(Path(saved).as_uri())
        await expect(file.page.locator(".answer")).to_be_visible()
        await file.page.add_script_tag(path=AXE)
        page = await open_host(host, client, scheme)
        await show(page, "tool-result", result.model_dump(by_alias=True, mode="json"))
        await expect(page.frame_locator("#f").locator(".answer")).to_be_visible()
        [_, app] = page.frames
        await app.add_script_tag(path=AXE)
        # The app has no ground of its own: axe is to see that of a host in the same colours.
        await app.evaluate("document.documentElement.style.background = 'var(--paper)'")

        assert await app.evaluate(LOOK) == []
        assert await violations(file) == []


async def violations(tab: Tab) -> list[str]:
    """What axe finds against WCAG 2.1 AA: the rule, and the first element."""
    return await tab.page.evaluate(LOOK)


async def test_keys_alone_lead_from_the_rail_to_the_reply_of_a_call(
    tmp_path: Path, open_tab: OpenTab
) -> None:
    async with open_site(tmp_path, SCRIPT) as site, open_tab() as tab:
        async with site.open_client() as client:
            asked = {"question": "What?", "text": "abc", "wait_seconds": 30}
            await client.call("rlm_query", **asked)
        await tab.open(f"{site.url}/#/ask", ANN)
        page = tab.page
        await expect(page.locator(".rail .list a").first).to_be_visible()
        await press_until(tab, "Tab", ".rail .list a:focus")
        await page.keyboard.press("Enter")
        await expect(page.locator(".run .status")).to_have_text("completed")
        await press_until(tab, "Tab", ".timeline canvas:focus")
        await page.keyboard.press("ArrowRight")
        await page.keyboard.press("ArrowRight")

        await expect(page.locator(".detail")).to_contain_text("Reply")
        await page.keyboard.press("+")
        await expect(page.get_by_role("button", name="Whole run")).to_be_visible()
        await page.keyboard.press("0")
        await expect(page.get_by_role("button", name="Whole run")).to_have_count(0)


async def press_until(tab: Tab, key: str, selector: str) -> None:
    page = tab.page
    with anyio.fail_after(60):
        while not await page.locator(selector).count():
            await page.keyboard.press(key)
