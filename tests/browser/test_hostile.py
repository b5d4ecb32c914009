"""Hostile text, in every place where one can stand, does nothing: in page, file and app."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from playwright.async_api import FrameLocator, Page, expect

from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView, rejected
from tests.browser.tabs import OpenTab, Tab
from tests.browser.test_app import open_host, show
from tests.http_serving import ANN, Site, open_site
from tests.serving import cell

pytestmark = pytest.mark.usefixtures("one_sandbox_for_all")

STRINGS = (
    "<img src=x onerror=owned=1>",
    "<script>owned=1</script>",
    "</script><script>owned=1</script>",
    "<!--<script>",
    "--><svg onload=owned=1>",
    "<svg/onload=owned=1>",
    "<iframe srcdoc='<script>parent.owned=1</script>'>",
    "<a href=javascript:owned=1>x</a>",
    "javascript:owned=1",
    "[x](javascript:owned=1)",
    "<style>*{display:none}</style>",
    "</style><script>owned=1</script>",
    "<base href=//evil.example/>",
    "<meta http-equiv=refresh content='0;url=//evil.example'>",
    "<link rel=stylesheet href=//evil.example/x.css>",
    "<object data=//evil.example/x>",
    "<details open ontoggle=owned=1>",
    "<input autofocus onfocus=owned=1>",
    "<math><mtext></p><img src=x onerror=owned=1>",
    '" onmouseover=owned=1 x="',
    "' autofocus onfocus=owned=1 '",
    "${owned=1}",
    "{{owned=1}}",
    "\u001b[31mred\u001b[0m",
    "\u202etxt.exe",
    "\u2066a\u2069\u200b\ufeff",
    "\u2028owned=1\u2029",
    "__proto__",
    "&lt;img src=x onerror=owned=1&gt;",
    "%3Cscript%3Eowned=1%3C/script%3E",
)
ALL = "\n".join(STRINGS)


FIRST = cell(
    f"evil = {ALL!r}\nprint(evil)\nreply = llm_query(evil)\nraised = dict(x=evil)\n"
    "told = evil + '.'"
)
SECOND = cell(
    "inner = rlm_query(evil, evil)\ntry:\n    llm_query('fail ' + evil)\nfinally:\n    1 / 0"
)
THIRD = cell("raise ValueError(evil)")


def answer(request: ChatRequestView) -> Answer:
    """Hostile thoughts, code, replies and errors; one inner run; one failed sub-call."""
    turn = sum(message["role"] == "assistant" for message in request.messages)
    if request.model == "sub":
        if request.text.startswith("fail "):
            return rejected(400, ALL)
        return (
            f"{ALL}\n\n{cell('FINAL(context)')}"
            if turn == 0 and "REPL" in _system(request)
            else ALL
        )
    return [f"{ALL}\n\n{FIRST}", f"{ALL}\n\n{SECOND}", f"{ALL}\n\n{THIRD}", "FINAL_VAR(told)"][
        min(turn, 3)
    ]


def _system(request: ChatRequestView) -> str:
    return str(request.messages[0]["content"])


async def asked(site: Site) -> tuple[str, str]:
    """Store a hostile text under a hostile name, and ask; gives its handle and the run."""
    async with site.open_client() as client:
        handle = (await client.call("rlm_context_add", text=ALL, name=STRINGS[0]))["handle"]
        given = {"question": ALL, "contexts": [handle], "wait_seconds": 60}
        run = await client.call("rlm_query", **given, budget={"max_depth": 2})
        assert run["status"] == "completed", run
        return handle, run["run_id"]


async def look_everywhere(view: Page | FrameLocator) -> None:
    """Open all that a run has: each place must show the text, and do nothing else."""
    await expect(view.locator(".answer .text")).to_contain_text(STRINGS[0])
    assert "␛202etxt.exe" in await view.locator(".answer .text").inner_text()
    assert STRINGS[1] in await view.locator("h1").inner_text()
    await expect(view.locator(".turn .prose").first).to_contain_text(STRINGS[2])
    await expect(view.locator(".turn .code").first).to_contain_text("evil = ")
    await expect(view.locator(".output.error").last).to_contain_text(STRINGS[0])
    await view.locator(".batches .summary").first.click()
    await view.locator(".call").first.click()
    await expect(view.locator(".detail .plain").nth(1)).to_contain_text(STRINGS[1])
    await view.locator(".inner summary").first.click()
    await expect(view.locator(".inner .turn").first).to_contain_text(STRINGS[0])
    await view.locator(".timeline canvas").hover(position={"x": 200, "y": 90})
    await view.get_by_role("tab", name="Variables").click()
    await view.get_by_role("button", name="evil").click()
    await expect(view.locator(".value .plain")).to_contain_text(STRINGS[2])
    await view.get_by_role("tab", name="Figures").click()
    await expect(view.locator(".plots figure").first).to_be_visible()


def foreign(tab: Tab, *own: str) -> set[str]:
    """The requests that went elsewhere."""
    return {url for url in tab.requests if not url.startswith((*own, "data:"))}


async def test_hostile_text_runs_nowhere_and_calls_nobody_in_the_page(
    tmp_path: Path, open_tab: OpenTab
) -> None:
    async with open_site(tmp_path, answer) as site, open_tab() as tab:
        handle, run_id = await asked(site)
        page = tab.page
        await tab.open(f"{site.url}/#/run/{run_id}", ANN)
        await look_everywhere(page)
        await page.goto(f"{site.url}/#/text/{handle}")
        await expect(page.locator(".reading")).to_contain_text(STRINGS[3])
        await expect(page.locator(".rail")).to_contain_text(STRINGS[0])
        await page.goto(f"{site.url}/#/ask/{run_id}")
        await expect(page.get_by_label("Question")).to_be_visible()
        await page.goto(f"{site.url}/#/run/{STRINGS[0]}/{STRINGS[1]}")
        await expect(page.get_by_role("alert")).to_be_visible()
        assert await page.evaluate("window.owned") is None
        assert foreign(tab, site.url) == set()


async def test_hostile_text_runs_nowhere_and_calls_nobody_in_a_file(
    tmp_path: Path, open_tab: OpenTab
) -> None:
    saved = anyio.Path(tmp_path / "saved.html")
    async with open_site(tmp_path, answer) as site, site.open_http() as http:
        _, run_id = await asked(site)
        await saved.write_text((await http.get(f"/runs/{run_id}/export")).text)
    async with open_tab() as tab:
        await tab.page.goto(Path(saved).as_uri())
        await look_everywhere(tab.page)
        assert await tab.page.evaluate("window.owned") is None
        assert foreign(tab, "file:") == set()


async def test_hostile_text_runs_nowhere_and_calls_nobody_in_the_app(
    tmp_path: Path, open_tab: OpenTab
) -> None:
    async with open_site(tmp_path, answer) as site, site.open_client() as client, open_tab() as tab:
        _, run_id = await asked(site)
        page = await open_host(tab, client)
        refused = {"isError": True, "content": [{"type": "text", "text": ALL}]}
        await show(page, "tool-input", {"arguments": {"text": ALL}})
        await show(page, "tool-cancelled", {"reason": ALL})
        await show(page, "tool-result", refused)
        app = page.frame_locator("#f")
        await expect(app.locator(".notice")).to_contain_text(STRINGS[0])
        told = {"content": [], "structuredContent": {"run_id": run_id}}
        await show(page, "tool-result", told)
        await app.get_by_role("button", name="Larger").click()
        await look_everywhere(app)
        frames = [await frame.evaluate("window.owned") for frame in page.frames]
        assert frames == [None, None]
        assert foreign(tab, "http://host.test/", "http://app.test/") == set()
