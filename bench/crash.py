"""Kills a server at random moments under load: `python bench/crash.py [--kills 50] [--seed 0]`.

After each kill the database must be whole, every text and every event that was acknowledged must be
there, and every run that was working must be interrupted; each goes on to the right answer, and no
more sub-calls are paid for twice than were in flight.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

import anyio

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rlm_mcp.testing.scripted_model import open_scripted_model
from tests.killing import Known, answer_of, script, take_up, work_and_die
from tests.test_stdio import open_process

LAST_SECONDS = 300


async def kill(directory: Path, kills: int, seed: int) -> Known:
    """Work and die so many times, then let everything end."""
    chance = random.Random(seed)
    async with open_scripted_model(script, keep=1_000_000) as model:
        known = Known(directory, model)
        for number in range(1, kills + 1):
            await work_and_die(known, chance)
            print(f"{number}. {len(known.runs)} runs, {len(known.ended)} ended", file=sys.stderr)
        async with open_process(directory, model) as served:
            await take_up(known, served)
            with anyio.fail_after(LAST_SECONDS):
                for run_id, marker in known.runs.items():
                    assert (await served.ended(run_id))["answer"] == answer_of(marker)
            await take_up(known, served)
    return known


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        known = anyio.run(kill, Path(directory), arguments.kills, arguments.seed)
    print(
        f"{known.kills} kills: {len(known.texts)} texts whole, {len(known.events)} events there, "
        f"{len(known.runs)} runs answered right; {known.asked_again()} sub-calls paid twice, of "
        f"{known.in_flight} in flight"
    )
    assert known.asked_again() <= known.in_flight


main()
