"""What a root model writes, told to whoever looks on while it writes, and to nobody else."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import anyio
import anyio.from_thread
import anyio.to_thread

from rlm_mcp.service.runs.root_text import RootPiece, RootText, watch_text
from rlm_mcp.testing.scripted_model import Reply, open_scripted_model
from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView
from tests.commands import environment
from tests.http_serving import open_site
from tests.serving import cell, turns
from tests.test_terminal import on_a_terminal

SAID = "I know it by now. " * 20 + "\n\nFINAL(forty two)"


async def test_a_page_that_asks_gets_the_text_of_a_turn_before_the_log_has_it(
    tmp_path: Path,
) -> None:
    opened, halfway = anyio.Event(), anyio.Event()

    def script(request: ChatRequestView) -> Answer:
        if any(message["role"] == "assistant" for message in request.messages):
            return Reply(SAID, halfway=halfway)
        return Reply(cell("print(1)"), gate=opened)

    async with open_site(tmp_path, script) as site, site.open_client() as client:
        run = await client.call("rlm_query", question="What?", text="text", wait_seconds=0)
        pieces: list[RootPiece] = []
        types: list[str] = []
        with anyio.fail_after(90):
            await site.model.until(lambda: site.model.in_flight == 1)  # before anybody watches
            query = f"/events?run={run['run_id']}&text=1"
            async with site.open_http() as http, http.stream("GET", query) as answer:
                kind = ""
                async for line in answer.aiter_lines():
                    if line.startswith("event: "):
                        kind = line.removeprefix("event: ")
                    if not line.startswith("data: "):
                        continue
                    data = json.loads(line.removeprefix("data: "))
                    if kind == "lines":
                        opened.set()  # somebody watches
                        types += [one["type"] for one in data]
                    if kind == "text":
                        pieces.append(RootPiece(**data))
                        assert types.count("code_generated") == 1  # that of the turn before
                        halfway.set()
                    if "run_finished" in types:
                        break
        streamed = [request.streamed for request in site.model.requests]

    assert streamed == [False, True]
    assert (pieces[0].turn, pieces[0].at) == (2, 0)
    assert pieces[0].text
    assert SAID.startswith(pieces[0].text)


async def test_a_run_that_nobody_watches_is_not_streamed(tmp_path: Path) -> None:
    script = turns(cell("print(1)"), "FINAL(done)")
    async with open_site(tmp_path, script) as site, site.open_client() as client:
        run = await client.call("rlm_query", question="What?", text="text", wait_seconds=40)
        streamed = [request.streamed for request in site.model.requests]

    assert run["status"] == "completed"
    assert streamed == [False, False]


async def test_what_is_written_comes_in_pieces_and_begins_anew_where_the_model_does() -> None:
    texts: dict[str, RootText] = {}
    with watch_text(texts, "run_1") as watch, watch_text(texts, "run_1") as late:
        text = texts["run_1"]
        text.begin(3)
        assert watch.take() is None
        await text.add("one ")
        await text.add("two")
        assert watch.take() == RootPiece(3, 0, "one two")
        await text.add(" three")
        assert watch.take() == RootPiece(3, 7, " three")
        assert watch.take() is None
        await text.add("")  # the connection broke
        await text.add("uno due tre")
        assert watch.take() == RootPiece(3, 0, "uno due tre")
        text.begin(4)
        assert watch.take() is None
        await text.add("next")
        assert watch.take() == RootPiece(4, 0, "next")
        assert late.take() == RootPiece(4, 0, "next")
    assert texts == {}


async def test_a_watcher_waits_for_pieces_and_sleeps_through_what_it_has() -> None:
    texts: dict[str, RootText] = {}
    with watch_text(texts, "run_1") as watch, anyio.fail_after(60):
        text = texts["run_1"]
        text.begin(1)
        await text.add("before")
        await watch.wait()
        assert watch.take() == RootPiece(1, 0, "before")
        async with anyio.create_task_group() as group:
            group.start_soon(watch.wait)
            await anyio.wait_all_tasks_blocked()
            text.begin(2)
            await text.add("after")
        assert watch.take() == RootPiece(2, 0, "after")


async def test_a_verbose_query_on_a_terminal_shows_what_the_model_writes(tmp_path: Path) -> None:
    halfway = anyio.Event()
    prose = "The first half says a lot.\x1b]0;title\x07 " * 8

    def script(request: ChatRequestView) -> Answer:
        turn = sum(message["role"] == "assistant" for message in request.messages)
        if turn < 2:
            return cell(f"print({turn})")
        return Reply(f"{prose}\n\nFINAL(done)", halfway=halfway)

    async with open_scripted_model(script) as model:
        given = environment(tmp_path, model.base_url)
        asked = ("query", "What?", "--text", "text", "--verbose")

        def note(written: bytes) -> None:
            if b"The first half says a lot." in written:
                anyio.from_thread.run_sync(halfway.set)

        with anyio.fail_after(120):
            shown = await anyio.to_thread.run_sync(
                partial(on_a_terminal, given, *asked, note=note), abandon_on_cancel=True
            )

    assert model.requests[2].streamed
    assert "The first half says a lot." in shown
    assert "\x1b]0;title" not in shown
