"""Kills a batch at random moments: `python bench/batch.py [--questions 1000] [--kills 5]`.

After the last kill it is started once more, and must end with one result for each question. What
is on record is not paid for again: paid twice are the calls in flight at a kill, whose replies were
not on record yet, and these are no more than questions are worked on at once.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import anyio
from anyio.abc import Process

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rlm_mcp.testing.scripted_model import ScriptedModel, open_scripted_model
from tests.commands import environment, started
from tests.test_batch import answer, arguments, read_results, write_batch

CALLS_A_QUESTION = 2
LAST_SECONDS = 1800


@dataclass
class Work:
    """A batch in a directory, and what it has cost."""

    directory: Path
    model: ScriptedModel
    at_once: int
    lost: int = 0

    async def kill(self, number: int, least: int) -> None:
        """Work until the model has been asked so often, and die."""
        process = await self._start("ended")
        with anyio.fail_after(LAST_SECONDS):
            await self.model.until(lambda: self.model.received >= least)
        process.kill()
        await process.wait()
        lost = self.model.received - self.on_record() - self.lost
        self.lost += lost
        print(f"{number}. killed after {self.model.received} calls, {lost} lost", file=sys.stderr)
        assert lost <= self.at_once

    def on_record(self) -> int:
        """Count the model calls whose replies the store has."""
        with closing(sqlite3.connect(self.directory / "data" / "rlm.sqlite3")) as db:
            rows = db.execute("SELECT usage_by_model FROM runs WHERE usage_by_model IS NOT NULL")
            return sum(model["calls"] for row in rows for model in json.loads(row[0]))

    async def end(self) -> float:
        """Work to the end; return the seconds that took."""
        began = time.monotonic()
        process = await self._start("last")
        with anyio.fail_after(LAST_SECONDS):
            assert await process.wait() == 0
        return time.monotonic() - began

    async def _start(self, name: str) -> Process:
        given = arguments(self.directory, "--at-once", str(self.at_once))
        variables = {**os.environ, **environment(self.directory, self.model.base_url)}
        log = (self.directory / f"{name}.log").open("wb")
        return await anyio.open_process(started(*given), env=variables, stdout=log, stderr=log)


async def run(directory: Path, given: argparse.Namespace) -> None:
    """Kill a batch so many times, let it end, and compare."""
    chance = random.Random(given.seed)
    write_batch(directory, given.questions)
    calls = given.questions * CALLS_A_QUESTION
    async with open_scripted_model(answer, keep=10) as model:
        work = Work(directory, model, given.at_once)
        for number, least in enumerate(sorted(chance.sample(range(1, calls), given.kills)), 1):
            await work.kill(number, least)
        seconds = await work.end()
        results = read_results(directory / "results.jsonl")
        twice, on_record = model.received - calls, work.on_record()
    ids = {one["id"] for one in results}
    right = sum(one["score"] == 1 for one in results)
    print(
        f"{given.kills} kills: {len(results)} results of {len(ids)} questions, {right} right; "
        f"{twice} of {calls} calls paid twice, {work.lost} were in flight; "
        f"the last start took {seconds:.1f} s"
    )
    assert len(results) == len(ids) == right == given.questions
    assert on_record == calls
    assert twice <= work.lost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--at-once", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    with tempfile.TemporaryDirectory() as directory:
        anyio.run(run, Path(directory), parser.parse_args())


main()
