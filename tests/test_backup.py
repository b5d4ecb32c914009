"""`rlm-mcp backup`, and logs as JSON lines."""

from __future__ import annotations

import json
import logging
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest

from rlm_mcp.cli.json_logs import JsonLines
from rlm_mcp.store import backup
from rlm_mcp.store.database import DATABASE_NAME, open_database
from rlm_mcp.store.runs.leases import RunLeases
from rlm_mcp.store.runs.runs import Runs
from rlm_mcp.testing.scripted_model import Answer, ChatRequestView, Reply
from rlm_mcp.text import byte_size
from tests.commands import command, environment, process, started
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


def test_a_backup_ends_however_often_others_write_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "_PAGES_A_STEP", 4)
    source, target = tmp_path / DATABASE_NAME, tmp_path / "copy"
    lefts: list[int] = []
    with closing(sqlite3.connect(source, isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("CREATE TABLE lines (text)")
        writer.executemany("INSERT INTO lines VALUES (?)", [("x" * 5000,)] * 40)

        def write(left: int, _total: int) -> None:
            lefts.append(left)
            if len(lefts) < 200:  # where it begins anew each time, it still ends one day
                writer.execute("INSERT INTO lines VALUES ('later')")

        backup.back_up(source, target, write)
    with closing(sqlite3.connect(target)) as copy:
        [(count, later)] = copy.execute("SELECT count(*), sum(text = 'later') FROM lines")

    assert lefts == sorted(lefts, reverse=True)
    assert (count, later) == (40, 0)  # as of one moment


@pytest.mark.skipif(sys.platform == "win32", reason="files have no such limit there")
def test_a_copy_that_cannot_be_written_is_not_the_databases_fault(tmp_path: Path) -> None:
    source, target = tmp_path / DATABASE_NAME, tmp_path / "copy"
    with closing(sqlite3.connect(source)) as db, db:
        db.execute("CREATE TABLE t AS SELECT zeroblob(4000000)")
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from rlm_mcp.errors import InvalidInputError\n"
        "from rlm_mcp.store.backup import back_up\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
        "try:\n"
        "    back_up(Path(sys.argv[1]), Path(sys.argv[2]), lambda left, total: None)\n"
        "except InvalidInputError as error:\n"
        "    print(error.message)\n"
    )
    command_line = [sys.executable, "-c", code, str(source), str(target)]
    said = subprocess.run(command_line, check=True, capture_output=True, text=True).stdout

    assert f"The copy {str(target)!r} cannot be written: " in said
    assert [path.name for path in tmp_path.iterdir()] == [DATABASE_NAME]


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


async def test_all_that_a_server_says_is_json_where_programs_read_its_log(tmp_path: Path) -> None:
    env = environment(tmp_path, RLM_MCP_LOG_FORMAT="json", RLM_MCP_NONSENSE="1")
    serve = started("serve", "--http", "--port", "0")
    async with await anyio.open_process(serve, env=env) as server:
        assert server.stderr is not None
        said = b""
        with anyio.fail_after(120):
            while b"no token is set" not in said:
                said += await server.stderr.receive()
        server.terminate()
        said += b"".join([part async for part in server.stderr])
    taken = await process(env, "serve", "--http", "--port", "1", "--host", "192.0.2.1")
    told = [json.loads(line) for line in said.decode().splitlines()]
    refused = [json.loads(line) for line in taken[2].splitlines()]

    assert "RLM_MCP_NONSENSE is not a setting" in told[0]["message"]
    assert (told[0]["level"], told[1]["level"]) == ("warning", "info")
    assert told[1]["message"].startswith("serving MCP at http://127.0.0.1:")
    assert refused[-1]["level"] == "error"
