"""The official conformance suite finds what it is expected to find, and no more and no less."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlm_mcp.testing.scripted_model import open_scripted_model
from tests.interop.conformance import expected_failures, failures, run_suite
from tests.interop.fixture_tools import open_fixture_server
from tests.interop.servers import over_http

TASKS = (
    "tasks-lifecycle",
    "tasks-capability-negotiation",
    "tasks-wire-fields",
    "tasks-request-state-removal",
    "tasks-request-headers",
    "tasks-dispatch-and-envelope",
    "tasks-mrtr-input",
    "tasks-mrtr-composition",
    "tasks-required-task-error",
)


@pytest.mark.parametrize("revision", ["2026-07-28", "2025-11-25"])
async def test_all_that_a_revision_requires_holds(tmp_path: Path, revision: str) -> None:
    async with (
        open_scripted_model("FINAL(done)") as model,
        over_http(tmp_path, model, token="") as server,
    ):
        results = await run_suite(server["url"], tmp_path, "--requirements", revision)

    # The scenarios of tasks need tools that the suite brings no server for; see below.
    found = {check: told for check, told in results.items() if not check.startswith("tasks-")}
    expected = expected_failures(revision)
    assert failures(found).keys() == expected.keys(), failures(found)
    assert len(found) - len(expected) > 25


async def test_tasks_are_what_their_extension_says(tmp_path: Path) -> None:
    results: dict[str, str] = {}
    async with open_fixture_server(tmp_path / "data") as url:
        for scenario in TASKS:
            results |= await run_suite(url, tmp_path / scenario, "--scenario", scenario)

    expected = expected_failures("tasks")
    assert failures(results).keys() == expected.keys(), failures(results)
    assert len(results) - len(expected) > 25
