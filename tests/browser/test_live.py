"""Runs at work: followed, cancelled, resumed and asked on from the page, with gated replies."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from playwright.async_api import expect

from rlm_mcp.server.http.serving import Place
from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView, Reply, Script
from tests.browser.tabs import OpenTab
from tests.http_serving import ANN, Site, open_site
from tests.serving import cell, turns

pytestmark = pytest.mark.usefixtures("one_sandbox_for_all")

BATCH = cell("notes = llm_query_batch(['part 1', 'part 2', 'part 3'])\nprint(len(notes))")


def gated(gate: anyio.Event) -> Script:
    """A cell with three sub-calls, of which the last waits for the gate; then an answer."""

    def answer(request: ChatRequestView) -> Answer:
        if request.model == "root":
            turn = sum(message["role"] == "assistant" for message in request.messages)
            return BATCH if turn == 0 else "FINAL(all parts are read)"
        return Reply("read", gate=gate) if request.text == "part 3" else "read"

    return answer


async def stored(site: Site) -> str:
    async with site.open_client() as client:
        return (await client.call("rlm_context_add", text="a text", name="a text"))["handle"]


async def asked(site: Site, question: str = "What is it?") -> str:
    async with site.open_client() as client:
        run = await client.call("rlm_query", question=question, text="text", wait_seconds=0)
        return run["run_id"]


async def test_a_run_is_followed_from_its_first_event_to_its_end(
    tmp_path: Path, open_tab: OpenTab
) -> None:
    gate = anyio.Event()
    async with open_site(tmp_path, gated(gate)) as site, open_tab() as tab:
        run_id = await asked(site)
        await tab.open(f"{site.url}/#/run/{run_id}", ANN)
        page = tab.page
        await expect(page.locator(".batches")).to_contain_text("2 of 3 sub-calls")
        await expect(page.locator(".figures")).to_contain_text("1 under way")
        await expect(page.locator(".run .status")).to_have_text("running")
        gate.set()

        await expect(page.locator(".run .status")).to_have_text("completed")
        await expect(page.locator(".answer .text")).to_have_text("all parts are read")
        await expect(page.locator(".timeline footer")).to_contain_text("at once")


async def test_a_run_is_asked_cancelled_resumed_and_asked_on_by_buttons(
    tmp_path: Path, open_tab: OpenTab
) -> None:
    gate = anyio.Event()
    async with open_site(tmp_path, gated(gate)) as site, open_tab() as tab:
        await stored(site)
        await tab.open(f"{site.url}/#/ask", ANN)
        page = tab.page
        await expect(page.get_by_label("a text")).to_be_checked()
        await page.get_by_label("Question").fill("What is in it?")
        await page.keyboard.press("Control+Enter")
        await expect(page.locator(".batches")).to_contain_text("2 of 3 sub-calls")
        await page.get_by_role("button", name="Cancel").click()
        await expect(page.locator(".run .status")).to_have_text("cancelled")
        before = len(site.model.requests)
        gate.set()
        await page.get_by_role("button", name="Resume").click()
        await expect(page.locator(".run .status")).to_have_text("completed")
        assert len(site.model.requests) > before
        await page.get_by_role("button", name="Ask on").click()
        await page.get_by_label("Question").fill("And now?")
        await page.get_by_role("button", name="Ask", exact=True).click()

        await expect(page.locator("h1")).to_have_text("And now?")


async def test_a_run_that_used_up_its_turns_is_resumed_with_more(
    tmp_path: Path, open_tab: OpenTab
) -> None:
    looks = [cell(f"print({number})") for number in range(2)]
    async with open_site(tmp_path, turns(*looks, "No.", "FINAL(found)")) as site, open_tab() as tab:
        async with site.open_client() as client:
            run = await client.call(
                "rlm_query", question="?", text="x", budget={"max_iterations": 3}, wait_seconds=60
            )
        assert run["status"] == "exhausted"
        await tab.open(f"{site.url}/#/run/{run['run_id']}", ANN)
        page = tab.page
        await expect(page.locator(".run .status")).to_have_text("exhausted")
        await page.locator("summary", has_text="Resume").click()
        await expect(page.get_by_role("spinbutton", name="Turns")).to_have_value("6")
        await page.get_by_role("spinbutton", name="Turns").fill("3")
        await page.get_by_role("button", name="Resume").click()
        refused = page.locator(".notice", has_text="already used up: 3 turns")
        await expect(refused).not_to_contain_text("max_")
        await page.locator("summary", has_text="Resume").click()
        await page.get_by_role("spinbutton", name="Turns").fill("6")
        await page.get_by_role("button", name="Resume").click()

        await expect(page.locator(".run .status")).to_have_text("completed")


async def test_a_file_is_uploaded_with_a_progress_bar(tmp_path: Path, open_tab: OpenTab) -> None:
    path = anyio.Path(tmp_path / "big.txt")
    await path.write_text("x y z\n" * 500_000)
    async with open_site(tmp_path, turns("never")) as site, open_tab() as tab:
        await tab.open(f"{site.url}/#/ask", ANN)
        page = tab.page
        await expect(page.get_by_role("heading", name="Ask a question")).to_be_visible()
        session = await page.context.new_cdp_session(page)
        speed = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": 1_000_000}
        slow = {"offline": False, **speed}
        await session.send("Network.emulateNetworkConditions", slow)
        await page.set_input_files("input[type=file]", str(path))
        await expect(page.locator(".upload progress")).to_be_visible()
        await expect(page.locator(".upload small")).to_contain_text("of 3.0 MB")

        await expect(page.locator("h1")).to_have_text("big.txt")


async def test_an_upload_that_a_proxy_refuses_says_so(tmp_path: Path, open_tab: OpenTab) -> None:
    async with open_site(tmp_path, turns("never")) as site, open_tab() as tab:
        await tab.open(f"{site.url}/#/ask", ANN)
        page = tab.page
        await expect(page.get_by_role("heading", name="Ask a question")).to_be_visible()
        html = "<html><body>Request Entity Too Large</body></html>"
        await page.route(
            "**/contexts/*",
            lambda route: route.fulfill(status=413, content_type="text/html", body=html),
        )
        file = {"name": "big.txt", "mimeType": "text/plain", "buffer": b"a text"}
        await page.set_input_files("input[type=file]", [file])

        await expect(page.locator(".upload")).to_contain_text("The server refused it (HTTP 413).")


async def test_files_that_are_dropped_anywhere_are_stored(
    tmp_path: Path, open_tab: OpenTab
) -> None:
    async with open_site(tmp_path, turns("never")) as site, open_tab() as tab:
        await tab.open(f"{site.url}/#/ask", ANN)
        page = tab.page
        await expect(page.get_by_role("heading", name="Ask a question")).to_be_visible()
        await page.evaluate(
            """() => {
                const dataTransfer = new DataTransfer();
                for (const name of ["one.txt", "two.txt"]) {
                    dataTransfer.items.add(new File([`this is ${name}`], name));
                }
                for (const type of ["dragover", "drop"]) {
                    const given = { dataTransfer, bubbles: true, cancelable: true };
                    document.querySelector("main").dispatchEvent(new DragEvent(type, given));
                }
            }"""
        )
        for name in ("one.txt", "two.txt"):
            await expect(page.locator(".rail a", has_text=name)).to_be_visible()
        await expect(page.locator(".dropzone")).to_have_count(0)


async def test_a_hidden_tab_closes_its_stream_and_goes_on_after_the_last_line(
    tmp_path: Path, open_tab: OpenTab
) -> None:
    gate = anyio.Event()
    async with open_site(tmp_path, gated(gate)) as site, open_tab() as tab:
        run_id = await asked(site)
        await tab.open(f"{site.url}/#/run/{run_id}", ANN)
        await expect(tab.page.locator(".batches")).to_contain_text("2 of 3 sub-calls")
        async with tab.page.expect_event("requestfailed") as ended:
            await tab.hide(is_hidden=True)
        assert "/events" in (await ended.value).url
        gate.set()
        async with site.open_client() as client:
            await client.ended(run_id)
        assert await tab.page.locator(".answer").count() == 0
        await tab.hide(is_hidden=False)

        await expect(tab.page.locator(".run .status")).to_have_text("completed")
        await expect(tab.page.locator(".turn")).to_have_count(2)
        assert "after=0" not in [url for url in tab.requests if "/events?run" in url][-1]


async def test_a_server_that_went_away_is_found_again_and_nothing_is_shown_twice(
    tmp_path: Path, open_tab: OpenTab
) -> None:
    async with open_tab() as tab:
        async with open_site(tmp_path, gated(anyio.Event())) as site:
            run_id = await asked(site)
            await tab.open(f"{site.url}/#/run/{run_id}", ANN)
            await expect(tab.page.locator(".batches")).to_contain_text("2 of 3 sub-calls")
            port = int(site.url.rpartition(":")[2])
        await expect(tab.page.locator(".brand")).to_contain_text("no connection")
        async with open_site(tmp_path, gated(anyio.Event()), Place(port=port)):
            await expect(tab.page.locator(".brand")).not_to_contain_text("no connection")
            await expect(tab.page.locator(".run .status")).to_have_text("interrupted")
            await expect(tab.page.locator(".turn")).to_have_count(1)
