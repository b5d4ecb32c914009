"""Keys, headers and what commands get of the environment: in no log, error, event, page or file."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from rlm_mcp.engine.models.tables import ModelTable
from rlm_mcp.testing.scripted_model import Fault, open_scripted_model
from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView
from tests.http_serving import open_site
from tests.serving import KEY, cell

pytestmark = pytest.mark.usefixtures("one_sandbox_for_all")

TABLE_KEY = "canary-of-a-table-77c1"
HEADER = "canary-of-a-header-09ab"
VARIABLE = "canary-of-the-environment-3e5d"
SECRETS = (KEY, TABLE_KEY, HEADER, VARIABLE)
CODE = """
for name in ("default", "headed", "anthropic", "responses", "program"):
    try:
        print(llm_query("say it", model=name))
    except Exception as error:
        print("failed:", error)
"""
# A program that fails, and says what it got.
PROGRAM = "import os, sys; name = 'KEY_OF_A_PROGRAM'; sys.exit(f'{name}={os.environ[name]}')"


def script(request: ChatRequestView) -> Answer:
    """The root's code asks everybody; all others answer with what they were sent, as an error."""
    if request.model == "root":
        turn = sum(message["role"] == "assistant" for message in request.messages)
        return cell(CODE) if turn == 0 else "FINAL(done)"
    sent = json.dumps(dict(request.headers))
    return Fault(401, {"error": {"message": f"These headers are wrong: {sent}"}})


async def test_no_secret_of_a_model_is_in_what_a_run_leaves_and_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("KEY_OF_THE_TABLE", TABLE_KEY)
    monkeypatch.setenv("KEY_OF_A_PROGRAM", VARIABLE)
    caplog.set_level(logging.DEBUG)
    async with open_scripted_model(script) as other:
        headed: dict[str, Any] = {"base_url": other.base_url, "api_key_env": "KEY_OF_THE_TABLE"}
        headed |= {"headers": {"X-Own": HEADER}}
        natives = {
            kind: ModelTable.model_validate({**headed, "provider": kind})
            for kind in ("anthropic", "responses")
        }
        models = {
            **natives,
            "headed": ModelTable.model_validate(headed),
            "program": ModelTable(provider="command", command=(sys.executable, "-c", PROGRAM)),
            "default": ModelTable(),
        }
        async with open_site(tmp_path, script, models=models) as site:
            async with site.open_client() as client:
                asked = {"text": "some text", "wait_seconds": 40}
                run = await client.call("rlm_query", question="What?", **asked)
                failed = await client.raw(
                    "rlm_query", question="And?", root_model="headed", **asked
                )
                shown = [
                    run,
                    failed.model_dump(mode="json"),
                    await client.call("rlm_run_trace", run_id=run["run_id"], limit=50),
                    await client.call("rlm_run_variables", run_id=run["run_id"]),
                    await client.call("rlm_status"),
                ]
            pages = await pages_of(site, run["run_id"])
    stored = b"".join(path.read_bytes() for path in (tmp_path / "data").glob("*.sqlite*"))

    assert run["answer"] == "done"
    said = json.dumps(shown)
    assert said.count("These headers are wrong") >= 4  # what was refused is told
    assert "KEY_OF_A_PROGRAM=" in said  # and what the program said
    assert stored
    places = {
        "results": said,
        "pages": pages,
        "log": caplog.text,
        "store": stored.decode("utf-8", "replace"),
    }
    found = {
        place: [secret for secret in SECRETS if secret in text] for place, text in places.items()
    }
    assert found == {place: [] for place in places}


async def pages_of(site: Any, run_id: str) -> str:
    """What the page's stream and each saved form of a run hold."""
    texts: list[str] = []
    with anyio.fail_after(90):
        async with site.open_http() as http:
            address = f"/runs/{run_id}/export?format="
            texts += [(await http.get(address + form)).text for form in ("html", "json", "trace")]
            async with http.stream("GET", f"/events?run={run_id}&text=1") as answer:
                async for line in answer.aiter_lines():
                    texts.append(line)
                    if "run_finished" in line:
                        break
    return "\n".join(texts)
