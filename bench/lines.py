"""Commands as JSON lines: how `compare.py` talks to the processes that it measures."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

Command = Callable[..., Awaitable[Any]]
END_SECONDS = 10


class Child:
    """A process that answers one command at a time."""

    def __init__(self, command: Sequence[str]) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.hello = self._read()

    def ask(self, command: str, **arguments: Any) -> Any:
        """Give a command and wait for what it returns."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": command, **arguments}) + "\n")
        self.process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """Close its input, which ends it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _read(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args!r} ended; its errors are above")
        return json.loads(line)


async def serve(commands: dict[str, Command], hello: Any = None) -> None:
    """Answer commands from stdin until it ends; the child's half of `Child`."""
    # A library that redirects `sys.stdout` while it works must not redirect our replies.
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    replies.write(json.dumps(hello) + "\n")
    while line := await asyncio.to_thread(sys.stdin.readline):
        arguments = json.loads(line)
        result = await commands[arguments.pop("do")](**arguments)
        replies.write(json.dumps(result) + "\n")


def peak_mb(pid: int | str = "self") -> float:
    """Return the largest resident size a process has had, in MB; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    sizes = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(sizes[0]) * 1024 / 1e6 if sizes else 0.0
