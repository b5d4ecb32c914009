"""A process of Python that ends in time, for a pattern that may need years.

The process limits its processor time by itself; `run_guarded` waits for two minutes at most.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from subprocess import DEVNULL

import anyio

from rlm_mcp.errors import SandboxError

PROCESSOR_SECONDS = 5
_LONGEST_SECONDS = 120.0  # where the processor's time is not counted, or scarce


async def run_guarded(arguments: Sequence[str], asked: bytes) -> bytes | None:
    """Return what a process writes to its standard output; None where it took too long.

    Args:
        arguments: of the interpreter, which ignores the environment and the user's packages.
        asked: what the process reads from its standard input.

    Raises:
        SandboxError: no process can be started.
    """
    command = [sys.executable, "-I", "-B", *arguments]
    try:
        with anyio.move_on_after(_LONGEST_SECONDS):
            done = await anyio.run_process(
                command, input=asked, stderr=DEVNULL, check=False, env={}, start_new_session=True
            )
            if done.returncode == 0:
                return done.stdout
    except OSError as error:
        raise SandboxError(
            f"No process to check an answer can be started: {error.strerror}.",
            fix="End other programs, then try again.",
        ) from error
    return None
