"""Runs that continue after their command has returned, in a separate process."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import asdict

from rlm_mcp.cli.commands.options import Launch
from rlm_mcp.cli.output import say
from rlm_mcp.service.opening import open_service
from rlm_mcp.service.runs.questions import Question
from rlm_mcp.service.runs.runs import RunState

WORK_COMMAND = "work-detached"


def start_detached(launch: Launch, question: Question) -> str:
    """Start a process that works on a question, and return its run's id. Blocking.

    The process has a session of its own, so that closing the terminal does not end it. If it
    refuses the question, this command exits with the same message and code.
    """
    config = ["--config", str(launch.config_file.absolute())] if launch.config_file else []
    process = subprocess.Popen(  # noqa: S603  # this program
        [sys.executable, "-m", "rlm_mcp", *config, WORK_COMMAND],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    )
    assert process.stdin and process.stdout and process.stderr  # noqa: S101, PT018  # pipes, above
    with process.stdin as stdin:
        json.dump(asdict(question), stdin)
    with process.stdout as stdout, process.stderr as stderr:
        run_id = stdout.readline().strip()
        if not run_id:
            say(stderr.read(), err=True, nl=False)
            raise SystemExit(process.wait())
    return run_id


def read_question() -> Question:
    """Read the question that `start_detached` sends."""
    return Question(**json.load(sys.stdin))


async def work_detached(launch: Launch, question: Question) -> None:
    """Work on a question; print its run's id, then nothing more."""
    async with open_service(launch.settings) as service:
        run_id = (await service.runs.begin(question)).run_id
        say(run_id)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (sys.stdin, sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno())  # whoever started this may be gone by now
        await service.runs.wait(run_id, math.inf, _unseen)


async def _unseen(state: RunState) -> None:
    del state
