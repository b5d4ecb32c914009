"""Looks for programs of the presets, and whether somebody is logged in."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import anyio
import anyio.to_thread

from rlm_mcp.engine.models.commands.presets import PRESETS

STATUS_SECONDS = 5.0


@dataclass(frozen=True)
class FoundCommand:
    """A preset whose program is installed; `is_logged_in` is None where that is not known."""

    name: str
    is_logged_in: bool | None

    def __str__(self) -> str:
        if self.is_logged_in is None:
            return self.name
        login = PRESETS[self.name].login
        return f"{self.name} (logged in)" if self.is_logged_in else f"{self.name} (run: {login})"


async def find_commands(environment: Mapping[str, str]) -> list[FoundCommand]:
    """Look for the programs of the presets, and ask each if somebody is logged in; nothing is paid.

    Args:
        environment: what they get of the environment.
    """
    found: list[FoundCommand] = []
    for name, preset in PRESETS.items():
        which = partial(shutil.which, preset.argv[0], path=environment.get("PATH"))
        program = await anyio.to_thread.run_sync(which)
        if program is not None:
            is_in = await _exits_well((program, *preset.status), environment)
            found.append(FoundCommand(name, is_in if preset.status else None))
    return found


async def _exits_well(argv: Sequence[str], environment: Mapping[str, str]) -> bool:
    with anyio.move_on_after(STATUS_SECONDS), suppress(OSError):
        done = await anyio.run_process(
            argv,
            env=environment,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        return done.returncode == 0
    return False
