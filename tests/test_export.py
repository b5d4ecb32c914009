"""Runs saved as files, and the page opened, from the command line."""

from __future__ import annotations

import json
import re
import stat
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import httpx2
import pytest

from rlm_mcp.testing.scripted_model import open_scripted_model
from rlm_mcp.testing.scripted_replies import Script
from tests.commands import command, environment, measured, started
from tests.serving import cell, turns

SCRIPT = turns(cell("print(context)\nnotes = llm_query('say ' + context)"), "FINAL(done)")


@asynccontextmanager
async def asked(
    directory: Path, script: Script = SCRIPT
) -> AsyncGenerator[tuple[dict[str, str], str]]:
    """The environment of a run that has ended, and its id."""
    (directory / "text.txt").write_text("a secret of the text")
    async with open_scripted_model(script) as model:
        env = environment(directory, model.base_url)
        path = str(directory / "text.txt")
        done = await command(env, "query", "What is it?", "--file", path, "--json")
        yield env, json.loads(done.stdout)["run_id"]


async def test_a_run_is_saved_as_a_page_json_and_a_trace(tmp_path: Path) -> None:
    async with asked(tmp_path) as (env, run_id):
        page, data = tmp_path / "run.html", tmp_path / "run.json"
        saved = await command(env, "runs", "export", run_id, "--html", str(page))
        await command(env, "runs", "export", run_id, "--json", str(data))
        trace = await command(env, "runs", "export", run_id, "--trace", "-")

    assert saved.stdout.strip() == str(page)
    assert 'data-as="file"' in page.read_text()
    assert "a secret of the text" in data.read_text()
    assert json.loads(data.read_text())["run"]["run_id"] == run_id
    entries = json.loads(trace.stdout)["traceEvents"]
    rows = {one["tid"]: one["args"]["name"] for one in entries if one["name"] == "thread_name"}
    spans = [(rows[one["tid"]], one["cat"], one["name"]) for one in entries if one["ph"] == "X"]
    assert sorted(spans) == [
        ("code", "code", "code"),
        ("model", "model", "turn 1"),
        ("model", "model", "turn 2"),
        ("sub-calls 1", "sub-call", "llm_query"),
    ]
    assert all(one["ts"] >= 0 and one["dur"] > 0 for one in entries if one["ph"] == "X")


async def test_a_run_is_saved_without_what_came_from_texts(tmp_path: Path) -> None:
    async with asked(tmp_path) as (env, run_id):
        saved = await command(env, "runs", "export", run_id, "--json", "--no-texts", "-")

    data = json.loads(saved.stdout)
    assert "secret" not in saved.stdout
    assert data["left_out"].startswith("Left out of this file: prompts, replies")
    assert data["run"]["question"] == "What is it?"
    assert any("llm_query" in event["detail"].get("code", "") for event in data["events"])


async def test_a_trace_without_texts_holds_no_prompt_and_says_so(tmp_path: Path) -> None:
    async with asked(tmp_path) as (env, run_id):
        whole = await command(env, "runs", "export", run_id, "--trace", "-")
        saved = await command(env, "runs", "export", run_id, "--trace", "--no-texts", "-")

    assert "a secret of the text" in whole.stdout
    assert "otherData" not in json.loads(whole.stdout)
    assert "secret" not in saved.stdout
    trace = json.loads(saved.stdout)
    assert trace["otherData"]["left_out"].startswith("Left out of this file: prompts, replies")
    spans = [
        [one["name"], one["ts"], one.get("dur")] for one in trace["traceEvents"] if "ts" in one
    ]
    others = json.loads(whole.stdout)["traceEvents"]
    assert spans == [[one["name"], one["ts"], one.get("dur")] for one in others if "ts" in one]
    assert "sub-call" in {one.get("cat") for one in trace["traceEvents"]}


async def test_a_run_saved_without_texts_quotes_none_of_them_as_a_citation(tmp_path: Path) -> None:
    script = turns(cell("cite('a secret of the text')\nprint(context)\nFINAL('nine')"))
    async with asked(tmp_path, script) as (env, run_id):
        whole = await command(env, "runs", "export", run_id, "--json", "-")
        saved = await command(env, "runs", "export", run_id, "--json", "--no-texts", "-")

    assert json.loads(whole.stdout)["run"]["citations"][0]["verified"]
    assert "citations" not in json.loads(saved.stdout)["run"]
    # The code is what the model wrote, and stays.
    assert saved.stdout.count("a secret of the text") == saved.stdout.count("cite(")


async def test_what_cannot_be_saved_is_said_in_a_line(tmp_path: Path) -> None:
    async with asked(tmp_path) as (env, run_id):
        nowhere = await command(env, "runs", "export", run_id, "--json", str(tmp_path / "a" / "b"))
        absent = await command(env, "runs", "export", f"run_{'0' * 32}", "-")

    assert nowhere.exit_code == 2
    assert "cannot be written: No such file or directory" in nowhere.stderr
    assert absent.exit_code == 2


@asynccontextmanager
async def page_open(env: dict[str, str], *options: str) -> AsyncGenerator[str]:
    """`rlm-mcp ui` at work; gives the address that it prints."""
    async with await anyio.open_process(started("ui", *options), env=measured() | env) as process:
        try:
            assert process.stderr is not None
            said = ""
            with anyio.fail_after(60):
                while not (found := re.search(r"the page is at (\S+)", said)):
                    said += (await process.stderr.receive()).decode()
            yield found[1]
        finally:
            process.terminate()


async def test_the_page_is_served_with_a_token_of_its_own_and_sees_runs_of_others(
    tmp_path: Path,
) -> None:
    async with asked(tmp_path) as (env, run_id), page_open(env, run_id, "--no-open") as address:
        url, _, fragment = address.partition("/#")
        place, _, token = fragment.partition("&token=")
        async with httpx2.AsyncClient(base_url=url, timeout=30) as http:
            page = await http.get("/")
            closed = await http.get(f"/runs/{run_id}/export?format=json")
            http.headers["authorization"] = f"Bearer {token}"
            opened = await http.get(f"/runs/{run_id}/export?format=json")

    assert place == f"/run/{run_id}"
    assert len(token) >= 43
    assert (page.status_code, closed.status_code) == (200, 401)
    assert opened.json()["run"]["answer"] == "done"


@pytest.mark.skipif(sys.platform == "win32", reason="files have no mode there")
async def test_a_browser_is_opened_by_a_file_of_this_user_so_that_no_process_shows_the_token(
    tmp_path: Path,
) -> None:
    seen = tmp_path / "seen"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$@" > {seen}.part\nmv {seen}.part {seen}\n')
    browser.chmod(0o700)
    async with asked(tmp_path) as (env, _), page_open(env | {"BROWSER": str(browser)}) as address:
        token = address.partition("token=")[2]
        with anyio.fail_after(60):
            while not seen.exists():  # noqa: ASYNC110  # another process writes it
                await anyio.sleep(0.05)
        opened = anyio.Path(seen.read_text().strip().removeprefix("file://"))
        assert token not in seen.read_text()
        assert token in await opened.read_text()
        modes = [stat.S_IMODE((await path.stat()).st_mode) for path in (opened, opened.parent)]
        assert modes == [0o600, 0o700]

    assert not await opened.exists()
