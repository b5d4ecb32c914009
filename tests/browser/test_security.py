"""What other pages, other users and the address bar get of the page: nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.browser.conftest import REBOUND
from tests.browser.tabs import OpenTab
from tests.http_serving import ANN, open_site
from tests.serving import turns

pytestmark = pytest.mark.usefixtures("one_sandbox_for_all")

ATTACK = """<!doctype html><title>attack</title><script>
window.tried = async (url) => {
  const tries = {
    simple: () => fetch(url + "/mcp", { method: "POST", mode: "no-cors", body: "{}" }),
    cors: () => fetch(url + "/mcp", { method: "POST", headers: { "x-a": "b" }, body: "{}" }),
    events: () => fetch(url + "/events"),
    page: () => fetch(url + "/"),
  };
  const seen = {};
  for (const [name, go] of Object.entries(tries)) {
    try { seen[name] = (await go()).type; } catch { seen[name] = "refused"; }
  }
  return seen;
};
</script>"""


EVIL = "http://127.0.0.1:9/evil"  # another port of the same host


async def test_a_token_stands_in_its_tab_alone_and_is_gone_from_the_address(
    tmp_path: Path, open_tab: OpenTab
) -> None:
    async with open_site(tmp_path, turns("never")) as site, open_tab() as tab:
        await tab.open(f"{site.url}/#/ask", ANN)
        await expect(tab.page.get_by_role("heading", name="Ask a question")).to_be_visible()
        kept = await tab.page.evaluate(
            "({...sessionStorage, local: localStorage.length, cookie: document.cookie})"
        )
        assert tab.page.url == f"{site.url}/#/ask"
        assert ANN in kept.values()
        assert (kept["local"], kept["cookie"]) == (0, "")
        assert await tab.page.context.cookies() == []
        assert await tab.page.evaluate("document.referrer") == ""
        assert [url for url in tab.requests if ANN in url] == []
        other = await tab.page.context.new_page()
        await other.goto(site.url)
        await expect(other.get_by_label("Token")).to_be_visible()


async def test_a_page_of_another_port_reads_nothing_and_may_not_frame_the_page(
    tmp_path: Path, open_tab: OpenTab
) -> None:
    async with open_site(tmp_path, turns("never")) as site, open_tab() as tab:
        await tab.open(site.url, ANN)
        await expect(tab.page.get_by_role("heading", name="No runs yet")).to_be_visible()
        evil = await tab.page.context.new_page()
        await evil.route(EVIL, lambda route: route.fulfill(body=ATTACK, content_type="text/html"))
        await evil.goto(EVIL)
        seen = await evil.evaluate("(url) => tried(url)", site.url)
        # What a page sends without asking may arrive and is refused there; nothing is read of it.
        assert seen.pop("simple") in ("opaque", "refused")
        assert set(seen.values()) == {"refused"}
        framed = await evil.evaluate(
            """async (url) => {
                const frame = document.createElement("iframe");
                frame.src = url;
                const loaded = new Promise((resolve) => { frame.onload = resolve; });
                document.body.append(frame);
                await loaded;
                return frame.contentDocument === null;
            }""",
            site.url,
        )
        assert framed
        inside = [frame for frame in evil.frames if frame is not evil.main_frame]
        assert not any([await frame.locator("#root").count() for frame in inside])


async def test_a_name_that_was_turned_to_this_machine_gets_neither_page_nor_calls(
    tmp_path: Path, open_tab: OpenTab
) -> None:
    async with open_site(tmp_path, turns("never")) as site, open_tab() as tab:
        port = site.url.rpartition(":")[2]
        answer = await tab.page.goto(f"http://{REBOUND}:{port}/")
        assert answer is not None
        called = await tab.page.evaluate(
            """async () => {
                const answer = await fetch("/mcp", { method: "POST", body: "{}" });
                return answer.status;
            }"""
        )

        assert (answer.status, called) == (421, 421)
        assert await tab.page.locator("#root").count() == 0
