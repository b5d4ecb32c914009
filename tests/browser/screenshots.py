"""Makes the screenshots of the documents: `python -m tests.browser.screenshots [DIRECTORY]`.

A real server, a scripted model, and Chromium; the pictures go to `docs/images`.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import anyio
from playwright.async_api import Browser, Page, async_playwright, expect

from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView, Reply
from tests.browser.tabs import Tab
from tests.browser.test_app import open_host
from tests.http_serving import ANN, Site, open_site
from tests.serving import cell

QUESTION = "Which word is hidden in the harbour's log, and what went wrong meanwhile?"
LINES = 3000
HIDDEN = 1931
TURNS = (
    "I look at the text first.\n\n" + cell("print(len(context))\nprint(context[:160])"),
    "One entry a line. I ask about each month, and about the line that names a word.\n\n"
    + cell(
        "lines = context.splitlines()\n"
        "months = ['\\n'.join(lines[i : i + 120]) for i in range(0, len(lines), 120)]\n"
        "trouble = llm_query_batch(['What went wrong here?\\n' + month for month in months])\n"
        "hidden = [line for line in lines if 'word' in line]\n"
        "word = llm_query('Which word? ' + hidden[0])\n"
        "print(len(trouble), word)"
    ),
    "FINAL(The word is kestrel. The crane stood still for nine days for want of a bearing.)",
)


def answer(request: ChatRequestView) -> Answer:
    """What the models say: the root its turns, the sub model after a while."""
    if request.model == "root":
        turn = sum(message["role"] == "assistant" for message in request.messages)
        return Reply(TURNS[min(turn, 2)], latency_seconds=0.5)
    seconds = 0.3 + (request.number * 37 % 90) / 100
    return Reply("Nothing of note beyond loose planks.", latency_seconds=seconds)


def log() -> str:
    """A text to ask about."""
    lines = [f"Day {n:04}: the harbour master counted {n * 7 % 99} planks." for n in range(LINES)]
    lines[HIDDEN] = f"Day {HIDDEN:04}: the word of the week is kestrel."
    return "\n".join(lines)


async def asked(site: Site) -> tuple[str, str]:
    """Store the text and ask; gives its handle and the run."""
    async with site.open_client() as client:
        added = await client.call("rlm_context_add", text=log(), name="harbour-log.txt")
        given = {"question": QUESTION, "contexts": [added["handle"]], "wait_seconds": 60}
        run = await client.call("rlm_query", **given)
        return added["handle"], run["run_id"]


async def opened(browser: Browser, url: str, **options: object) -> Page:
    """A page of 1360 by 860 pixels, if nothing else is said."""
    size: dict[str, object] = {"viewport": {"width": 1360, "height": 860}}
    context = await browser.new_context(**(size | options))  # type: ignore[arg-type]
    page = await context.new_page()
    await page.goto(f"{url}&token={ANN}")
    return page


async def shown(page: Page) -> None:
    """Wait until a run is there whole: its output is read when its turn comes into sight."""
    await expect(page.locator(".answer")).to_be_visible()
    await expect(page.locator(".output").first).to_contain_text("the harb")


async def take_app(site: Site, browser: Browser, run_id: str, out: Path) -> None:
    """Take the app as a host shows it, beside what an assistant says."""
    async with site.open_client() as client:
        for scheme, name in (("light", "app.png"), ("dark", "app-dark.png")):
            tab = Tab(await browser.new_page(viewport={"width": 760, "height": 900}))
            page = await open_host(tab, client, scheme)
            given = {"structuredContent": {"run_id": run_id}, "content": []}
            await page.evaluate("(p) => notify('ui/notifications/tool-result', p)", given)
            frame = page.frame_locator("#f")
            await expect(frame.locator(".answer")).to_be_visible()
            await page.locator("#f").screenshot(path=out / name)


async def take_file(site: Site, browser: Browser, run_id: str, out: Path) -> None:
    """Take a saved run, opened from the disk."""
    with tempfile.TemporaryDirectory() as directory:
        saved = anyio.Path(directory) / "run.html"
        async with site.open_http() as http:
            await saved.write_text((await http.get(f"/runs/{run_id}/export")).text)
        page = await browser.new_page(viewport={"width": 1100, "height": 860})
        await page.goto(Path(saved).as_uri())
        await shown(page)
        await page.screenshot(path=out / "file.png")


async def take(site: Site, browser: Browser, out: Path) -> None:
    """Take all pictures."""
    handle, run_id = await asked(site)
    run = f"{site.url}/#/run/{run_id}"
    page = await opened(browser, run)
    await shown(page)
    await page.screenshot(path=out / "page.png")
    await page.get_by_role("tab", name="Figures").click()
    await expect(page.locator(".usage")).to_be_visible()
    await page.locator("#tab-panel").screenshot(path=out / "page-figures.png")
    dark = await opened(browser, run, color_scheme="dark")
    await shown(dark)
    await dark.screenshot(path=out / "page-dark.png")
    phone = {"width": 390, "height": 844}
    small = await opened(browser, run, viewport=phone, is_mobile=True, has_touch=True)
    await shown(small)
    await small.screenshot(path=out / "page-phone.png")
    text = await opened(browser, f"{site.url}/#/text/{handle}")
    await text.get_by_role("searchbox").fill("kestrel")
    await text.keyboard.press("Enter")
    await text.locator(".matches a").click()
    await expect(text.locator("mark")).to_be_in_viewport()
    await text.screenshot(path=out / "page-text.png")
    await take_app(site, browser, run_id, out)
    await take_file(site, browser, run_id, out)


async def main(out: Path) -> None:
    """Serve, open a browser, and take the pictures."""
    await anyio.Path(out).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        async with async_playwright() as playwright, open_site(Path(directory), answer) as site:
            browser = await playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
            await take(site, browser, out)
            await browser.close()


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images"))
