"""`rlm-mcp backup`, and logs as JSON lines."""

from __future__ import annotations

import json
import logging
import stat
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from rlm_mcp.cli.json_logs import JsonLines
from rlm_mcp.store.database import DATABASE_NAME, open_database
from rlm_mcp.store.runs.leases import RunLeases
from rlm_mcp.store.runs.runs import Runs
from rlm_mcp.testing.scripted_model import Answer, ChatRequestView, Reply
from rlm_mcp.text import byte_size
from tests.commands import command, environment
from tests.serving import cell, open_served

TEXT = "The keeper of the lighthouse is called Ottilie.\n" * 50


async def test_a_backup_of_a_database_in_use_is_restored_and_its_runs_go_on(
    tmp_path: Path,
) -> None:
    gate = anyio.Event()

    def answer(request: ChatRequestView) -> Answer:
        turn = sum(message["role"] == "assistant" for message in request.messages)
        if turn == 0:
            return cell("kept = 42\nprint(kept)")
        return Reply(cell("FINAL(kept)"), gate=gate)

    copy = tmp_path / "copy.sqlite3"
    async with open_served(tmp_path, answer) as served:
        added = await served.call("rlm_context_add", text=TEXT)
        run = await served.call(
            "rlm_query", question="?", contexts=[added["handle"]], wait_seconds=0
        )
        await served.model.until(lambda: served.model.received == 2)
        done = await command(environment(tmp_path), "backup", str(copy))
        gate.set()
        await served.ended(run["run_id"])

    assert (done.exit_code, byte_size(copy.stat().st_size) in done.stdout) == (0, True)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600 or sys.platform == "win32"
    assert not copy.with_name(f"{copy.name}.part").exists()
    restored = tmp_path / "elsewhere" / "data"
    restored.mkdir(parents=True)
    copy.rename(restored / DATABASE_NAME)
    async with open_database(restored / DATABASE_NAME) as database:
        # As where the process that worked on the run is gone; here it is this one.
        owner = (await Runs(database, owner="other").get(run["run_id"])).owner
        await RunLeases(database, owner="other").interrupt_owner(owner)
    async with open_served(tmp_path / "elsewhere", answer) as served:
        piece = await served.call("rlm_context_read", handle=added["handle"], limit=50_000)
        resumed = await served.call("rlm_run_resume", run_id=run["run_id"], wait_seconds=30)

    assert piece["text"] == TEXT
    assert (resumed["status"], resumed["answer"]) == ("completed", "42")


async def test_a_backup_replaces_no_file_and_needs_a_database(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_text("precious")
    env = environment(tmp_path)
    refused = await command(env, "backup", str(there))
    lost = await command(env, "backup", str(tmp_path / "nowhere" / "copy"))
    nothing = await command(env, "backup", str(tmp_path / "copy"))

    assert "already exists" in refused.stderr
    assert there.read_text() == "precious"
    assert "does not exist" in lost.stderr
    assert "There is no database" in nothing.stderr
    assert not (tmp_path / "copy").exists()
    assert 0 not in {refused.exit_code, lost.exit_code, nothing.exit_code}


def test_a_log_line_is_one_json_object() -> None:
    error = ValueError("zu groß\nsecond line")
    record = logging.LogRecord(
        *("rlm_mcp.x", logging.ERROR, __file__, 1, "run %s\nfailed", ("run_1",)),
        exc_info=(ValueError, error, None),
    )
    [line] = JsonLines().format(record).splitlines()
    told: dict[str, Any] = json.loads(line)
    assert (told["level"], told["logger"], told["message"]) == (
        *("error", "rlm_mcp.x"),
        "run run_1\nfailed",
    )
    assert "ValueError: zu groß\nsecond line" in told["error"]
    assert told["time"].endswith("+00:00")


@pytest.mark.parametrize("form", ["json", "text"])
async def test_the_form_of_the_log_is_a_setting(tmp_path: Path, form: str) -> None:
    code = (
        "import logging\n"
        "from rlm_mcp.cli.commands.options import Launch\n"
        "logging.basicConfig(format='rlm-mcp: %(message)s')\n"
        "Launch().settings\n"
        "logging.getLogger('rlm_mcp').warning('notifying failed')\n"
    )
    env = environment(tmp_path, RLM_MCP_LOG_FORMAT=form)
    done = await anyio.run_process([sys.executable, "-c", code], env=env)
    line = done.stderr.decode().strip()
    assert (line == "rlm-mcp: notifying failed") is (form == "text")
    assert form == "text" or json.loads(line)["message"] == "notifying failed"
