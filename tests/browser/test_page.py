"""The page over a real server: what a person sees and does."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from playwright.async_api import expect

from rlm_mcp.testing.scripted_model import open_scripted_model
from tests.browser.tabs import OpenTab
from tests.commands import command, environment
from tests.http_serving import ANN, BOB, Site, open_site
from tests.serving import cell, turns

pytestmark = pytest.mark.usefixtures("one_sandbox_for_all")

ONE_CALL = turns(cell("notes = llm_query('what is here?')\nprint(notes)"), "FINAL_VAR(notes)")


async def asked(site: Site, question: str = "What is it?", token: str = ANN, **more: object) -> str:
    """Ask over MCP, as an assistant does, and give the run."""
    async with site.open_client(token) as client:
        given = {"text": "a short text", "wait_seconds": 0, **more}
        return (await client.call("rlm_query", question=question, **given))["run_id"]


async def ended(site: Site, run_id: str, token: str = ANN) -> None:
    async with site.open_client(token) as client:
        await client.ended(run_id)


async def test_a_finished_run_shows_its_answer_its_turns_and_its_calls(
    tmp_path: Path, open_tab: OpenTab
) -> None:
    async with open_site(tmp_path, ONE_CALL) as site, open_tab() as tab:
        run_id = await asked(site, "What do the papers say?")
        await ended(site, run_id)
        await tab.open(f"{site.url}/#/run/{run_id}", ANN)

        page = tab.page
        await expect(page.locator("h1")).to_have_text("What do the papers say?")
        await expect(page.locator(".run .status")).to_have_text("completed")
        await expect(page.locator(".answer .text")).to_have_text("what is here?")
        await expect(page.locator(".turn")).to_have_count(2)
        await page.locator(".batches .summary").click()
        await page.locator(".call").click()
        await expect(page.locator(".detail .plain").first).to_have_text("what is here?")
        await page.get_by_role("tab", name="Variables").click()
        await page.get_by_role("button", name="notes").click()
        await expect(page.locator(".value .plain")).to_have_text("what is here?")
        await page.get_by_role("tab", name="Figures").click()
        await expect(page.locator(".plots figure")).to_have_count(3)


async def test_a_run_id_that_is_not_there_has_a_plain_message(
    tmp_path: Path, open_tab: OpenTab
) -> None:
    async with open_site(tmp_path, ONE_CALL) as site, open_tab() as tab:
        run_id = f"run_{'0' * 32}"
        await tab.open(f"{site.url}/#/run/{run_id}", ANN)

        await expect(tab.page.get_by_role("alert")).to_contain_text(run_id)


async def test_a_run_whose_text_was_deleted_still_shows_its_answer_in_page_and_file(
    tmp_path: Path, open_tab: OpenTab
) -> None:
    saved = anyio.Path(tmp_path / "saved.html")
    async with open_site(tmp_path, ONE_CALL) as site, open_tab() as tab:
        async with site.open_client() as client:
            handle = (await client.call("rlm_context_add", text="a text of its own"))["handle"]
            run_id = await asked(site, contexts=[handle], text="")
            await client.ended(run_id)
            await client.call("rlm_context_delete", handle=handle)
        await tab.open(f"{site.url}/#/run/{run_id}", ANN)

        await expect(tab.page.locator(".notice")).to_contain_text("were deleted")
        await expect(tab.page.locator(".answer .text")).to_have_text("what is here?")
        for name in ("Variables", "Figures", "Turns"):
            await tab.page.get_by_role("tab", name=name).click()
        await expect(tab.page.locator(".turn")).to_have_count(2)
        async with site.open_http() as http:
            await saved.write_text((await http.get(f"/runs/{run_id}/export")).text)
        await tab.page.goto(Path(saved).as_uri())
        await expect(tab.page.locator(".notice")).to_contain_text("were deleted")
        await expect(tab.page.locator(".answer .text")).to_have_text("what is here?")


async def test_a_file_without_texts_does_not_say_that_the_model_saw_no_more(
    tmp_path: Path, open_tab: OpenTab
) -> None:
    note = "the model saw what is shown here"
    script = turns(cell("print('x' * 20_000)"), "FINAL(done)")
    async with open_scripted_model(script) as model, open_tab() as tab:
        env = environment(tmp_path, model.base_url)
        await command(env, "query", "What is it?", "--text", "a short text", "-q")
        run_id = (await command(env, "runs", "list")).stdout.split("\t")[0]
        for name, options in (("whole.html", ()), ("bare.html", ("--no-texts",))):
            saved = tmp_path / name
            done = await command(env, "runs", "export", run_id, str(saved), "--html", *options)
            assert done.exit_code == 0
            await tab.page.goto(saved.as_uri())
            await expect(tab.page.locator(".turn")).to_have_count(2)
            await expect(tab.page.get_by_text(note)).to_have_count(0 if options else 1)
        await expect(tab.page.locator(".turn .output").first).to_have_text("(left out)")


async def test_a_wrong_token_is_refused_in_plain_words_and_the_right_one_opens(
    tmp_path: Path, open_tab: OpenTab
) -> None:
    async with open_site(tmp_path, ONE_CALL) as site, open_tab() as tab:
        await tab.page.goto(site.url)
        await tab.page.get_by_label("Token").fill("not-a-token")
        await tab.page.keyboard.press("Enter")
        await expect(tab.page.get_by_role("alert")).to_have_text(
            "The server does not know this token."
        )
        await tab.page.get_by_label("Token").fill(ANN)
        await tab.page.keyboard.press("Enter")

        await expect(tab.page.get_by_role("heading", name="No runs yet")).to_be_visible()


async def test_two_users_see_nothing_of_each_other(tmp_path: Path, open_tab: OpenTab) -> None:
    async with (
        open_site(tmp_path, ONE_CALL) as site,
        open_tab() as anns,
        open_tab() as bobs,
    ):
        run_id = await asked(site, "A question of Ann's")
        await ended(site, run_id)
        await anns.open(f"{site.url}/#/run/{run_id}", ANN)
        await expect(anns.page.locator("h1")).to_have_text("A question of Ann's")

        await bobs.open(f"{site.url}/#/run/{run_id}", BOB)
        await expect(bobs.page.get_by_role("alert")).to_contain_text(run_id)
        assert "A question of Ann's" not in await bobs.page.inner_text("body")
        await expect(bobs.page.locator(".rail .list").first).to_have_text("None yet.")


async def test_a_text_is_searched_and_the_match_is_marked_in_sight(
    tmp_path: Path, open_tab: OpenTab
) -> None:
    lines = [f"Day {n:04}: nothing of note 🦀." for n in range(3000)]
    lines[2000] = "Day 2000: the Kestrel came in."
    async with open_site(tmp_path, ONE_CALL) as site, open_tab() as tab:
        async with site.open_client() as client:
            added = await client.call("rlm_context_add", text="\n".join(lines), name="log.txt")
        await tab.open(f"{site.url}/#/text/{added['handle']}", ANN)
        await tab.page.get_by_role("searchbox").fill("kestrel")
        await tab.page.keyboard.press("Enter")
        await tab.page.locator(".matches a").click()

        await expect(tab.page.locator("mark")).to_have_text("Kestrel")
        await expect(tab.page.locator("mark")).to_be_in_viewport()
        start = "\n".join(lines).index("Kestrel")  # in code points, of which a crab is one
        assert tab.page.url.endswith(f"#/text/{added['handle']}/0/{start}/{start + 7}")


async def test_what_an_answer_cites_leads_to_its_place_in_the_text(
    tmp_path: Path, open_tab: OpenTab
) -> None:
    script = turns(cell("cite('counted nine ships')\nprint(context[:50])\nFINAL('nine')"))
    text = "The harbour master counted nine ships."
    async with open_site(tmp_path, script) as site, open_tab() as tab:
        run_id = await asked(site, text=text)
        await ended(site, run_id)
        await tab.open(f"{site.url}/#/run/{run_id}", ANN)
        await tab.page.locator(".citations a", has_text="counted nine ships").click()

        await expect(tab.page.locator("mark")).to_have_text("counted nine ships")
        async with site.open_client() as client:
            run = await client.call("rlm_run_wait", run_id=run_id)
    assert run["citations"][0]["quote"] == "counted nine ships"
