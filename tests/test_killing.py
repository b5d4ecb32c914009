"""`kill -9` at any moment costs nothing that was acknowledged."""

from __future__ import annotations

import random
from pathlib import Path

import anyio

from rlm_mcp.testing.scripted_model import open_scripted_model
from tests.killing import Known, answer_of, script, take_up, work_and_die
from tests.test_stdio import open_process

KILLS = 3
MOST_KILLS = 10  # where a busy machine acknowledges nothing before it is killed


async def test_a_server_that_is_killed_at_any_moment_loses_nothing_and_its_runs_go_on(
    tmp_path: Path,
) -> None:
    chance = random.Random(5)
    async with open_scripted_model(script) as model:
        known = Known(tmp_path, model)
        for number in range(MOST_KILLS):
            if number >= KILLS and known.runs and known.texts:
                break
            await work_and_die(known, chance, longest=1.5 * max(1, number - KILLS + 2))
        async with open_process(tmp_path, model) as served:
            await take_up(known, served)
            with anyio.fail_after(60):
                answers = {run: (await served.ended(run))["answer"] for run in known.runs}
            await take_up(known, served)

    assert answers == {run: answer_of(marker) for run, marker in known.runs.items()}
    assert known.runs
    assert known.texts
    assert known.asked_again() <= known.in_flight
