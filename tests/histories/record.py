"""Records runs as the code of today writes them: `python -m tests.histories.record VERSION`.

Every kind of run is performed by real servers over one database, with the scripted model behind
HTTP. The database is kept whole, compressed, and each run's rows are written out as JSON lines,
exactly as they are stored.
"""

from __future__ import annotations

import gzip
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from rlm_mcp.store.database import DATABASE_NAME
from rlm_mcp.testing.scripted_model import ScriptedModel
from rlm_mcp.testing.scripted_model import open_scripted_model as open_model
from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView, no_answer, unauthorized
from tests.histories.kinds import KINDS, PARTS, TEXT, kind_of, next_step, question, reply_to
from tests.histories.logs import DATABASE_FILE, HERE, TABLES
from tests.serving import KEY, Served, open_served

WHOLE = ("plain", "batches", "depth 2", "schema", "long text", "compacted", "small model")
PATIENCE_SECONDS = 60


class Recorder:
    """Performs runs over one database, and knows which rows belong to which history.

    Args:
        directory: where the servers keep their data.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.runs: dict[str, Sequence[str]] = {}
        self._held: set[str] = set()
        self._is_down = False

    @property
    def database(self) -> Path:
        """The file that all servers share."""
        return self.directory / "data" / DATABASE_NAME

    async def record(self) -> None:
        """Perform every kind of run."""
        async with open_served(self.directory, self._answer) as served:
            for kind in (*WHOLE, "exhausted"):
                await self._ask(served, kind)
            await self._fail(served)
            await self._cancel(served)
            await self._exec(served)
        await self._stop("stopped")
        await self._stop("resumed")
        async with open_served(self.directory, self._answer) as served:
            [run_id] = self.runs["resumed"]
            await served.call("rlm_run_resume", run_id=run_id, wait_seconds=PATIENCE_SECONDS)
        await self._kill()

    def _answer(self, request: ChatRequestView) -> Answer:
        if request.text in self._held:
            return no_answer()
        is_root = kind_of(request) is not None
        if self._is_down and is_root and next_step(request) > 0:
            return unauthorized()
        return reply_to(request)

    async def _ask(self, served: Served, kind: str, **arguments: Any) -> dict[str, Any]:
        given: dict[str, Any] = {"wait_seconds": PATIENCE_SECONDS, **KINDS[kind].arguments}
        if "continue_run" not in arguments:
            given["text"] = KINDS[kind].text
        given |= arguments
        run = await served.call("rlm_query", question=question(kind), **given)
        self.runs[kind] = [run["run_id"]]
        return run

    async def _fail(self, served: Served) -> None:
        self._is_down = True
        await self._ask(served, "failed")
        self._is_down = False

    async def _cancel(self, served: Served) -> None:
        run = await self._begin(served, "cancelled")
        await served.call("rlm_run_cancel", run_id=run["run_id"])
        self._held.clear()

    async def _stop(self, kind: str) -> None:
        """Leave a server while its run waits for one of forty sub-calls."""
        async with open_served(self.directory, self._answer) as served:
            await self._begin(served, kind)
        self._held.clear()

    async def _begin(self, served: Served, kind: str) -> dict[str, Any]:
        self._held.add(f"{kind} part {PARTS - 1}")
        run = await self._ask(served, kind, wait_seconds=0)
        await self._until_one_hangs(served.model)
        return run

    async def _exec(self, served: Served) -> None:
        added = await served.call("rlm_context_add", text=TEXT)
        code = "kept = 41\nprint(kept, llm_query('a call of the caller'))"
        done = await served.call("rlm_exec", contexts=[added["handle"]], code=code)
        await served.call("rlm_exec", run_id=done["run_id"], code="kept.no_such")
        run = await self._ask(served, "continued", continue_run=done["run_id"])
        self.runs |= {"exec": [done["run_id"]], "continued": [done["run_id"], run["run_id"]]}

    async def _kill(self) -> None:
        """Kill the process that works on a run; the run stays `running` in the database."""
        self._held.add(f"killed part {PARTS - 1}")
        async with open_model(self._answer) as model:
            await anyio.to_thread.run_sync(self._write_text)
            command = [sys.executable, "-m", "rlm_mcp", "query", question("killed"), "-q", "--file"]
            process = await anyio.open_process(
                [*command, str(self.directory / "text.txt")],
                env=_environment(self.directory, model),
                stdout=subprocess.DEVNULL,
            )
            await self._until_one_hangs(model)
            process.kill()
            await process.wait()
        self.runs["killed"] = await anyio.to_thread.run_sync(self._running)

    async def _until_one_hangs(self, model: ScriptedModel) -> None:
        """Wait until one of forty sub-calls hangs, and what ended first is in the log."""
        with anyio.fail_after(PATIENCE_SECONDS):
            await model.until(lambda: model.in_flight == 1)
            while "sub_calls_finished" not in await anyio.to_thread.run_sync(self._logged):  # noqa: ASYNC110  # as said below
                await anyio.sleep(0.01)  # nothing tells this process what another one writes
            await model.until(lambda: model.in_flight == 1)

    def _logged(self) -> list[str]:
        """The types of the events of the latest run."""
        sql = "SELECT type FROM events WHERE run = (SELECT max(id) FROM runs)"
        with closing(sqlite3.connect(self.database)) as db:
            return [row[0] for row in db.execute(sql)]

    def _write_text(self) -> None:
        (self.directory / "text.txt").write_text(KINDS["killed"].text)

    def _running(self) -> list[str]:
        with closing(sqlite3.connect(self.database)) as db:
            return [row[0] for row in db.execute("SELECT run_id FROM runs WHERE status='running'")]


def _environment(directory: Path, model: ScriptedModel) -> dict[str, str]:
    names = {"DATA_DIR": str(directory / "data"), "ALLOWED_PATHS": str(directory)}
    names |= {"BASE_URL": model.base_url, "API_KEY": KEY, "ROOT_MODEL": "root"}
    names |= {"SUB_MODEL": "sub", "MIN_ISOLATION": "process"}
    return {"HOME": str(directory)} | {f"RLM_MCP_{name}": value for name, value in names.items()}


def write_out(recorder: Recorder, target: Path) -> None:
    """Write the database and each history below `target`."""
    target.mkdir()
    with closing(sqlite3.connect(recorder.database)) as db:
        db.execute("PRAGMA journal_mode=DELETE")
        db.execute("VACUUM")
    whole = recorder.database.read_bytes()
    (target / DATABASE_FILE).write_bytes(gzip.compress(whole, mtime=0))
    with closing(sqlite3.connect(recorder.database)) as db:
        db.row_factory = sqlite3.Row
        for kind, run_ids in recorder.runs.items():
            lines = [json.dumps(line, ensure_ascii=False) for line in _rows(db, run_ids)]
            name = f"{kind.replace(' ', '_')}.jsonl"
            (target / name).write_text("\n".join(lines) + "\n")


def _rows(db: sqlite3.Connection, run_ids: Sequence[str]) -> Iterator[dict[str, Any]]:
    for run_id in run_ids:
        for table, condition in TABLES.items():
            sql = f"SELECT * FROM {table} WHERE {condition} ORDER BY id"
            for row in db.execute(sql, {"run_id": run_id}):
                yield {"table": table, "row": dict(row)}


def main(version: str) -> None:
    """Record everything below the directory of a version, which must not exist."""
    os.environ.pop("RLM_MCP_DATA_DIR", None)
    with tempfile.TemporaryDirectory() as directory:
        recorder = Recorder(Path(directory))
        anyio.run(recorder.record)
        write_out(recorder, HERE / version)


if __name__ == "__main__":
    main(sys.argv[1])
