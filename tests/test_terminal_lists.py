"""What commands print at a terminal: progress, answers, and lists that fit it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import anyio
import pytest

from rlm_mcp.testing.scripted_model import open_scripted_model
from tests.commands import environment, measured, started
from tests.serving import cell, turns

WIDTH = 90
QUESTION = "Which of the many ships of the long list came in before the others did?"
SCRIPT = turns(cell("print(len(context))"), "FINAL(the [first] one)")

pytestmark = pytest.mark.skipif(os.name != "posix", reason="there are no such terminals elsewhere")


async def at_terminal(variables: Mapping[str, str], *arguments: str) -> tuple[int, list[str]]:
    """Give a command at a terminal of so many columns; returns its exit code and what it shows."""
    env = measured() | {"TERM": "xterm", "COLUMNS": str(WIDTH), "LINES": "24"} | dict(variables)
    ours, its = os.openpty()
    shown = b""
    try:
        with anyio.fail_after(120):
            command = started(*arguments)
            async with await anyio.open_process(
                command, env=env, stdin=None, stdout=its, stderr=its
            ) as process:
                os.close(its)
                while True:
                    await anyio.wait_readable(ours)
                    try:
                        shown += os.read(ours, 65536)
                    except OSError:  # the command has ended, and nobody else has this terminal
                        break
                code = await process.wait()
    finally:
        os.close(ours)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    return code, [line.rstrip() for line in re.split(r"[\r\n]+", plain)]


async def test_a_question_at_a_terminal_shows_that_it_works_and_then_its_answer(
    tmp_path: Path,
) -> None:
    async with open_scripted_model(SCRIPT) as model:
        env = environment(tmp_path, model.base_url)
        code, shown = await at_terminal(env, "query", QUESTION, "--text", "ship 1\nship 2")

    assert code == 0
    assert any("starting" in line or "calls" in line for line in shown)
    assert "the [first] one" in shown


async def test_a_list_at_a_terminal_fits_its_width_and_cuts_nothing_but_its_last_column(
    tmp_path: Path,
) -> None:
    async with open_scripted_model(SCRIPT) as model:
        env = environment(tmp_path, model.base_url)
        await at_terminal(env, "query", QUESTION, "--text", "ship 1\nship 2")
        code, shown = await at_terminal(env, "runs", "list")
        _, narrow = await at_terminal(env | {"COLUMNS": "40"}, "runs", "list")

    heading, run = (line for line in shown if line)
    assert code == 0
    assert heading.split() == ["run", "status", "began", "question"]
    assert re.match(r"run_[0-9a-f]{32}  completed  ", run)
    assert run.endswith("…")
    assert max(map(len, shown)) <= WIDTH
    assert re.match(r"run_[0-9a-f]{32}  completed  ", narrow[1])
