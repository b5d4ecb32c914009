"""A server that is killed again and again while it works, and what must be there each time."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import signal
import sqlite3
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from rlm_mcp.store.database import DATABASE_NAME
from rlm_mcp.testing.scripted_model import ScriptedModel
from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView, Reply
from tests.serving import Served, cell
from tests.test_stdio import open_process

PARTS = 24
RUNS_AT_ONCE = 3
LATENCY_SECONDS = 0.03
TURNS = (
    "parts = [f'{marker} part {{n}}' for n in range({parts})]\nprint(len(parts))",
    "replies = llm_query_batch(parts)\nprint(replies[:3])",
    "total = sum(map(int, replies))\nprint(total)",
    "FINAL(f'{marker} {{total}}')",
)


def answer_of(marker: str) -> str:
    """What a run must answer, however often its server was killed."""
    return f"{marker} {sum(range(PARTS))}"


def script(request: ChatRequestView) -> Answer:
    """Counts the parts of a run, each of which is a sub-call that gives its own number."""
    if request.model == "sub":
        return Reply(request.text.rpartition(" ")[2], latency_seconds=LATENCY_SECONDS)
    marker = re.findall(r"marker-\d+", str(request.messages))[0]
    turn = int(re.findall(r"Turn (\d+) of", str(request.messages[-1]["content"]))[-1])
    code = TURNS[turn - 1].format(marker=marker, parts=PARTS)
    return Reply(cell(code), latency_seconds=LATENCY_SECONDS)


@dataclass
class Known:
    """What a server has acknowledged, over all its lives."""

    directory: Path
    model: ScriptedModel
    texts: dict[str, str] = field(default_factory=dict[str, str])
    runs: dict[str, str] = field(default_factory=dict[str, str])
    ended: set[str] = field(default_factory=set[str])
    events: dict[tuple[str, int], str] = field(default_factory=dict[tuple[str, int], str])
    in_flight: int = 0
    kills: int = 0
    is_kill_noted: bool = True
    markers: int = 0

    @property
    def database(self) -> Path:
        """The file that outlives the servers."""
        return self.directory / "data" / DATABASE_NAME

    def asked_again(self) -> int:
        """How often a sub-call was paid for more than once."""
        prompts = Counter(r.text for r in self.model.requests if r.model == "sub")
        return sum(count - 1 for count in prompts.values())

    def note_kill(self) -> None:
        """Add what was in flight: asked for, and not kept in the store. Blocks.

        Once the next server is there: by then the model has read what the dead one sent it.
        """
        if self.is_kill_noted:
            return
        asked = {r.text for r in self.model.requests if r.model == "sub"}
        with closing(sqlite3.connect(self.database, timeout=30)) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            [stored] = db.execute("SELECT count(*) FROM replies").fetchone()
        self.in_flight += len(asked) - stored
        self.is_kill_noted = True

    def check_texts(self) -> None:
        """Every text that was stored is there, byte for byte. Blocks."""
        if not self.texts and not Path(self.database).exists():
            return  # a server answers before it has made its database
        with closing(sqlite3.connect(self.database, timeout=30)) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            for handle, digest in self.texts.items():
                sql = "SELECT text_id, sha256 FROM contexts WHERE handle = ?"
                text, told = db.execute(sql, [handle]).fetchone()
                chunks = db.execute(
                    "SELECT data FROM chunks WHERE text_id = ? ORDER BY start_byte", [text]
                )
                found = hashlib.sha256(b"".join(row[0] for row in chunks)).hexdigest()
                assert (found, told) == (digest, digest), handle


async def work_and_die(known: Known, chance: random.Random, longest: float = 1.5) -> None:
    """Check what earlier servers left, work on under load, and be killed at a random moment.

    Args:
        known: what was acknowledged so far.
        chance: for the moment.
        longest: until then, in seconds; a busy machine needs more until it acknowledges anything.
    """
    async with open_to_be_killed(known) as (served, kill):
        await take_up(known, served)
        async with anyio.create_task_group() as load:
            load.start_soon(_upload, known, served)
            for _ in range(RUNS_AT_ONCE):
                load.start_soon(_ask, known, served)
            await anyio.sleep(chance.uniform(0, longest))
            kill()
            load.cancel_scope.cancel()
    known.kills += 1
    known.is_kill_noted = False


async def take_up(known: Known, served: Served) -> None:
    """Find every run that was working interrupted, with all its events, and let it go on."""
    await served.call("rlm_run_list")  # answered once the store is open
    await anyio.to_thread.run_sync(known.note_kill)
    await anyio.to_thread.run_sync(known.check_texts)
    for run_id, marker in known.runs.items():
        state = await served.call("rlm_run_wait", run_id=run_id, wait_seconds=0)
        if state["status"] == "completed":
            known.ended.add(run_id)
            assert state["answer"] == answer_of(marker)
        else:
            assert run_id not in known.ended
            assert state["status"] == "interrupted", state
        await _compare(known, served, run_id)
    for run_id in known.runs.keys() - known.ended:
        resumed = await served.call("rlm_run_resume", run_id=run_id, wait_seconds=0)
        assert resumed["status"] in {"running", "completed"}


async def _compare(known: Known, served: Served, run_id: str) -> None:
    """No event that was told is gone or another; those that are here are told now."""
    seen = dict[int, str]()
    after = 0
    while True:
        page = await served.call("rlm_run_trace", run_id=run_id, after_event=after, limit=100)
        seen |= {event["seq"]: _digest(event) for event in page["events"]}
        if page["next_event"] is None:
            break
        after = page["next_event"]
    assert sorted(seen) == list(range(1, len(seen) + 1))
    for (owner, seq), digest in known.events.items():
        if owner == run_id:
            assert seen[seq] == digest, (run_id, seq)
    known.events |= {(run_id, seq): digest for seq, digest in seen.items()}


async def _upload(known: Known, served: Served) -> None:
    while True:
        text = random.randbytes(40_000).hex()
        added = await served.call("rlm_context_add", text=text)
        known.texts[added["handle"]] = hashlib.sha256(text.encode()).hexdigest()


async def _ask(known: Known, served: Served) -> None:
    while True:
        known.markers += 1
        marker = f"marker-{known.markers:04}"
        run = await served.call(
            "rlm_query", question=f"How many of {marker}?", text="some text", wait_seconds=0
        )
        known.runs[run["run_id"]] = marker
        after = 0
        while run["status"] == "running":
            run = await served.call(
                "rlm_run_wait", run_id=run["run_id"], after_event=after, wait_seconds=0.05
            )
            page = await served.call("rlm_run_trace", run_id=run["run_id"], after_event=after)
            told = {(run["run_id"], event["seq"]): _digest(event) for event in page["events"]}
            known.events |= told
            after = max([after, *(seq for _, seq in told)])
        assert run["answer"] == answer_of(marker)
        known.ended.add(run["run_id"])


def _digest(event: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(event, sort_keys=True).encode()).hexdigest()


@asynccontextmanager
async def open_to_be_killed(known: Known, **environment: Any) -> AsyncGenerator[tuple[Served, Any]]:
    """Serve over stdio until it is killed; what its client then raises is expected."""
    is_killed = False
    before = await anyio.to_thread.run_sync(children_of_this_process)

    def kill() -> None:
        nonlocal is_killed
        is_killed = True
        [pid] = pids
        os.kill(pid, signal.SIGKILL)

    try:
        async with open_process(known.directory, known.model, **environment) as served:
            pids = await anyio.to_thread.run_sync(children_of_this_process) - before
            yield served, kill
    except Exception:
        if not is_killed:
            raise


def children_of_this_process() -> set[int]:
    """Processes that this one has started and that are not yet waited for."""
    found = set[int]()
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):
            found |= set(map(int, (task / "children").read_text().split()))
    return found
