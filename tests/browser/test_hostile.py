"""Hostile text, in every place where one can stand, does nothing: in the page and in a file."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from playwright.async_api import expect

from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView
from tests.browser.tabs import OpenTab
from tests.http_serving import ANN, open_site
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


def answer(request: ChatRequestView) -> Answer:
    if request.model == "sub":
        return ALL
    if any(message["role"] == "assistant" for message in request.messages):
        return "FINAL_VAR(evil)"
    code = f"evil = {ALL!r}\nprint(evil)\nreply = llm_query(evil)\nraised = dict(x=evil)"
    return f"{ALL}\n\n{cell(code)}"


async def test_hostile_text_runs_nowhere_and_calls_nobody(
    tmp_path: Path, open_tab: OpenTab
) -> None:
    saved = anyio.Path(tmp_path / "saved.html")
    async with open_site(tmp_path, answer) as site:
        async with site.open_client() as client, site.open_http() as http:
            name = STRINGS[0]
            handle = (await client.call("rlm_context_add", text=ALL, name=name))["handle"]
            asked = {"question": ALL, "contexts": [handle], "wait_seconds": 30}
            run_id = (await client.call("rlm_query", **asked))["run_id"]
            await saved.write_text((await http.get(f"/runs/{run_id}/export")).text)
        async with open_tab() as tab:
            page = tab.page
            await tab.open(f"{site.url}/#/run/{run_id}", ANN)
            await expect(page.locator(".answer .text")).to_contain_text(STRINGS[0])
            assert "␛202etxt.exe" in await page.inner_text(".answer .text")
            await page.locator(".batches .summary").click()
            await page.locator(".call").click()
            await expect(page.locator(".detail .plain").nth(1)).to_contain_text(STRINGS[1])
            await page.locator(".timeline canvas").hover(position={"x": 200, "y": 90})
            await page.get_by_role("tab", name="Variables").click()
            await page.get_by_role("button", name="evil").click()
            await expect(page.locator(".value .plain")).to_contain_text(STRINGS[2])
            await page.goto(f"{site.url}/#/text/{handle}")
            await expect(page.locator(".reading")).to_contain_text(STRINGS[3])
            assert await page.evaluate("window.owned") is None
            assert {url for url in tab.requests if not url.startswith((site.url, "data:"))} == set()
    async with open_tab() as file:
        await file.page.goto(Path(saved).as_uri())
        await expect(file.page.locator(".answer .text")).to_contain_text(STRINGS[0])
        await file.page.locator(".batches .summary").click()
        await file.page.locator(".call").click()
        await expect(file.page.locator(".detail .plain").nth(1)).to_contain_text(STRINGS[1])
        assert await file.page.evaluate("window.owned") is None
        assert {url for url in file.requests if not url.startswith(("file:", "data:"))} == set()
