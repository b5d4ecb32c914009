"""The page's files, its stream, and runs saved as files; tests/browser looks at them."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import pytest

from rlm_mcp.server.http.timeouts import Patience
from rlm_mcp.server.view.bundle import SCRIPT, STYLE, open_bundle
from tests.http_serving import BOB, Site, open_site
from tests.serving import cell, turns

pytestmark = pytest.mark.usefixtures("one_sandbox_for_all")

FILES = ("/", "/page/run.js", "/page/run.css", "/page/LICENSES.txt")
HOSTILE = "</script><script>owned = 1</script><!-- \u2028 \U0001f980"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncGenerator[Site]:
    script = turns(cell("notes = llm_query('a prompt of ours')\nprint(notes)"), "FINAL_VAR(notes)")
    async with open_site(tmp_path, script) as site:
        yield site


async def finished(site: Site, question: str = "What is it?") -> str:
    async with site.open_client() as client:
        run = await client.call("rlm_query", question=question, text="text", wait_seconds=30)
    assert run["status"] == "completed"
    return run["run_id"]


async def events_of(site: Site, query: str, count: int) -> list[tuple[str, Any]]:
    """The first messages of the page's stream."""
    found: list[tuple[str, Any]] = []
    with anyio.fail_after(60):
        async with site.open_http() as http, http.stream("GET", f"/events{query}") as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            async for line in answer.aiter_lines():
                if line.startswith("event: "):
                    found.append((line.removeprefix("event: "), None))
                if line.startswith("data: "):
                    found[-1] = (found[-1][0], json.loads(line.removeprefix("data: ")))
                    if len(found) == count:
                        break
    return found


async def test_the_bundle_is_light_and_can_stand_inside_a_page() -> None:
    bundle = await open_bundle()
    size = sum(len(gzip.compress(bundle[name].text.encode(), 9)) for name in (SCRIPT, STYLE))

    assert size < 75_000
    assert not re.search(r"</(script|style)|<!--|<script", bundle[SCRIPT].text + bundle[STYLE].text)


async def test_the_page_is_given_to_everybody_with_nothing_inline_and_nothing_from_elsewhere(
    site: Site,
) -> None:
    async with site.open_http(token="") as http:
        for path in FILES:
            answer = await http.get(path)
            assert answer.status_code == 200, path
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "trusted-types 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            again = await http.get(path, headers={"if-none-match": answer.headers["etag"]})
            assert again.status_code == 304
        missing = await http.get("/page/..%2Fsettings.py")

    assert missing.status_code == 404


async def test_the_stream_says_the_lines_of_a_run_without_its_long_texts(site: Site) -> None:
    run_id = await finished(site)
    [(kind, lines)] = await events_of(site, f"?run={run_id}", 1)

    assert kind == "lines"
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    assert lines[0]["detail"]["question"] == "What is it?"
    assert lines[-1]["type"] == "run_finished"
    assert all(set(line["detail"]) & {"change", "reasoning"} == set() for line in lines)
    [(_, rest)] = await events_of(site, f"?run={run_id}&after={len(lines) - 1}", 1)
    assert [line["seq"] for line in rest] == [len(lines)]


async def test_the_stream_says_that_something_was_stored(site: Site) -> None:
    async def store() -> None:
        async with site.open_http() as http:
            await http.put("/contexts/a", content=b"text")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(store)
        [(kind, _)] = await events_of(site, "", 1)
        assert kind == "changed"


async def test_the_stream_refuses_runs_that_are_not_the_callers(site: Site) -> None:
    run_id = await finished(site)
    async with site.open_http(BOB) as http:
        refused = await http.get(f"/events?run={run_id}")
        odd = await http.get(f"/events?run={run_id}&after=x")

    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "not_found")
    assert odd.status_code == 400


async def test_a_server_stops_at_once_while_a_page_is_open(tmp_path: Path) -> None:
    async with open_site(tmp_path, turns("FINAL(done)")) as site:
        http = await AsyncExitStack().enter_async_context(site.open_http())
        answer = await http.send(http.build_request("GET", "/events"), stream=True)
        await anext(answer.aiter_lines())
        began = anyio.current_time()
    took = anyio.current_time() - began
    await answer.aclose()
    await http.aclose()

    assert took < Patience().answers


async def test_a_saved_run_is_one_file_whose_data_cannot_end_its_element(site: Site) -> None:
    run_id = await finished(site, f"What? {HOSTILE}")
    async with site.open_http() as http:
        answer = await http.get(f"/runs/{run_id}/export")

    html = answer.text
    assert answer.headers["content-disposition"] == f'attachment; filename="{run_id}.html"'
    assert html.count("</script>") == 2
    assert "connect-src" not in html.partition("<style>")[0]
    assert "default-src 'none'; script-src 'sha256-" in html
    data = json.loads(html.partition('id="data">')[2].partition("</script>")[0])
    assert data["run"]["question"].startswith("What? </script>")
    assert data["left_out"] is None
    assert data["values"]["FINAL"]["text"] == "a prompt of ours"


async def test_a_run_is_saved_as_json_and_as_a_trace(site: Site) -> None:
    run_id = await finished(site)
    async with site.open_http() as http:
        data = (await http.get(f"/runs/{run_id}/export?format=json")).json()
        trace = (await http.get(f"/runs/{run_id}/export?format=trace")).json()
        odd = await http.get(f"/runs/{run_id}/export?format=pdf")
        absent = await http.get(f"/runs/run_{'0' * 32}/export")

    assert data["events"][0]["type"] == "run_started"
    assert {entry["cat"] for entry in trace["traceEvents"] if entry["ph"] == "X"} >= {"model"}
    assert (odd.status_code, absent.status_code) == (400, 404)
