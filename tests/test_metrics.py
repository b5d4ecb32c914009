"""`GET /metrics` over real HTTP: numbers of what was done, and nothing that is anybody's."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from tests.http_serving import ANN, BOB, TOKENS, Site, open_site
from tests.serving import cell, turns

pytestmark = pytest.mark.usefixtures("one_sandbox_for_all")

OWNER = "token-of-the-owner-5566"
CANARY = "canary-5e0f"
TEXT = f"hay {CANARY}-text " * 1000
LOOK = cell(f"found = llm_query('{CANARY}-prompt')\nprint(len(context))")
ANSWER = cell(f"FINAL('{CANARY}-answer')")


@pytest.fixture
async def site(tmp_path: Path) -> AsyncGenerator[Site]:
    async with open_site(tmp_path, turns(LOOK, ANSWER), http_token=OWNER) as site:
        yield site


async def ask(site: Site, token: str) -> dict[str, Any]:
    async with site.open_http(token) as http, site.open_client(token) as served:
        sent = await http.put(f"/contexts/{CANARY}-name", content=TEXT.encode())
        handle = sent.json()["handle"]
        run = await served.call("rlm_query", question=f"{CANARY}?", contexts=[handle])
    assert run["status"] == "completed", run
    return run


async def read(site: Site, token: str) -> str:
    async with site.open_http(token) as http:
        answer = await http.get("/metrics")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store"), answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return answer.text


def value(text: str, metric: str) -> float:
    found = re.search(rf"^{re.escape(metric)} (\S+)$", text, re.MULTILINE)
    assert found, f"{metric} in {text}"
    return float(found[1])


async def until_ended(site: Site, token: str, count: int) -> str:
    """The numbers, once that many runs have let go of their places: answers come before."""
    with anyio.fail_after(60):
        while True:
            text = await read(site, token)
            ended = re.search(r'^rlm_runs_ended_total\{status="completed"\} (\S+)', text, re.M)
            if ended and float(ended[1]) == count:
                return text
            await anyio.sleep(0.05)


async def test_metrics_count_what_was_done_for_everybody_and_for_a_caller_what_was_hers(
    site: Site,
) -> None:
    run = await ask(site, ANN)
    await ask(site, BOB)
    whole, hers = await until_ended(site, OWNER, 2), await until_ended(site, ANN, 1)

    for text, count in ((whole, 2), (hers, 1)):
        assert value(text, 'rlm_runs{status="completed"}') == count
        assert value(text, 'rlm_runs{status="running"}') == 0
        assert value(text, 'rlm_runs_ended_total{status="failed"}') == 0
        assert value(text, "rlm_turns_total") == run["iterations"] * count
        assert value(text, "rlm_model_calls_total") == 3 * count
        assert value(text, 'rlm_tokens_total{direction="input"}') == run["input_tokens"] * count
        assert value(text, 'rlm_tokens_total{direction="output"}') == run["output_tokens"] * count
        # Fewer are kept where memory or descriptors are short.
        assert 0 <= value(text, 'rlm_repls{state="kept"}') <= count
        assert value(text, 'rlm_queue{queue="runs",state="waiting"}') == 0
        lines = value(text, "rlm_event_lag_seconds_count")
        assert (
            lines >= run["last_event"] * count - 4
        )  # the first and the last are written otherwise
        assert value(text, 'rlm_event_lag_seconds_bucket{le="+Inf"}') == lines
    assert "process_cpu_seconds_total" in whole or sys.platform != "linux"
    assert "process_" not in hers


async def test_metrics_hold_no_text_no_handle_no_run_and_no_name(site: Site) -> None:
    run = await ask(site, ANN)
    text = await until_ended(site, OWNER, 1) + await until_ended(site, ANN, 1)

    for secret in (CANARY, run["run_id"], "run_", "ctx_", OWNER, "ann", *TOKENS.values()):
        assert secret not in text


async def test_a_cell_of_the_callers_in_an_old_run_counts_its_calls(site: Site) -> None:
    run = await ask(site, ANN)
    before = await until_ended(site, ANN, 1)
    async with site.open_client(ANN) as served:
        await served.call("rlm_exec", run_id=run["run_id"], code="llm_query('once more')")
    after = await read(site, ANN)

    calls = [value(text, "rlm_model_calls_total") for text in (before, after)]
    assert calls == [3, 4]


async def test_metrics_need_a_token(site: Site) -> None:
    async with site.open_http("") as http:
        refused = await http.get("/metrics")
    assert refused.status_code == 401


async def test_without_the_extra_the_answer_names_what_to_install(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)  # as if it were not installed
    monkeypatch.delitem(sys.modules, "rlm_mcp.server.http.prometheus", raising=False)
    async with httpx2.AsyncClient(headers={"authorization": f"Bearer {OWNER}"}) as http:
        answer = await http.get(f"{site.url}/metrics")

    assert answer.status_code == 501
    error = answer.json()["error"]
    assert (error["code"], error["retryable"]) == ("not_installed", False)
    assert "pip install 'rlm-mcp[metrics]'" in error["fix"]


async def test_the_library_is_loaded_by_the_first_who_asks_for_metrics() -> None:
    code = (
        "import sys, rlm_mcp.server.http.serving\nassert 'prometheus_client' not in sys.modules\n"
    )
    done = await anyio.run_process([sys.executable, "-c", code], check=False)

    assert done.returncode == 0, done.stderr.decode()
