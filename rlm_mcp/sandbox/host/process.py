"""Processes of REPLs, as the host sees them: start, signals, end."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import anyio
from anyio import to_thread

from rlm_mcp.errors import SandboxError
from rlm_mcp.sandbox.boot import BOOT
from rlm_mcp.sandbox.host.seatbelt import behind_seatbelt, resident_bytes

PACKAGE_ROOT = str(Path(__file__).resolve().parent.parent.parent)
END_SECONDS = 5
# Large pages for decoded texts: a fork copies 500 times fewer page table entries.
ENVIRONMENT = {"LANG": "C.UTF-8", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
WATCH_SECONDS = 1


class Process(Protocol):
    """A process of one REPL."""

    def interrupt(self) -> None:
        """Send SIGINT."""
        ...

    def kill(self) -> None:
        """Send SIGKILL."""
        ...

    async def watch(self) -> None:
        """Kill it when it uses too much memory; returns at once where the kernel limits it."""
        ...

    @property
    def is_watched(self) -> bool:
        """Whether `watch` must run while a cell does."""
        ...

    async def end(self) -> str:
        """Kill it if it lives, wait until it is gone, and return how it ended."""
        ...


class PlainProcess:
    """A process started for one REPL.

    `most_bytes` is the memory it may use where the kernel does not limit it, else None.
    """

    def __init__(self, popen: subprocess.Popen[bytes], most_bytes: int | None = None) -> None:
        self._popen = popen
        self._most_bytes = most_bytes

    @property
    def is_watched(self) -> bool:
        """Whether `watch` must run while a cell does."""
        return self._most_bytes is not None

    async def watch(self) -> None:
        """Kill it when it uses too much memory; checked every second."""
        while self._most_bytes is not None:
            held = await to_thread.run_sync(resident_bytes, self._popen.pid)
            if held > self._most_bytes:
                self.kill()
                return
            await anyio.sleep(WATCH_SECONDS)

    def interrupt(self) -> None:
        """Send SIGINT."""
        with contextlib.suppress(ProcessLookupError):
            self._popen.send_signal(2)

    def kill(self) -> None:
        """Send SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            self._popen.kill()

    async def end(self) -> str:
        """Kill it if it lives, wait until it is gone, and return how it ended."""
        return await to_thread.run_sync(self._end)

    def _end(self) -> str:
        # A process that closed its socket is about to exit; its own status says more.
        with contextlib.suppress(subprocess.TimeoutExpired):
            return how_it_ended(self._popen.wait(0.1))
        self._popen.kill()
        return how_it_ended(self._popen.wait(END_SECONDS))


def how_it_ended(status: int) -> str:
    """Describe an exit status."""
    if status == -9:
        return "it was killed, most likely for using too much memory"
    if status < 0:
        return f"it was ended by signal {-status}"
    return f"the code ended it with status {status}"


def spawn(
    module: str, argument: str, descriptors: Sequence[int], *, seatbelt: bool = False
) -> subprocess.Popen[bytes]:
    """Start `rlm_mcp.sandbox.child.<module>` in a new interpreter. Blocking.

    The child gets an empty environment, `/` as its working directory, only the given descriptors,
    and no standard streams: descriptors 0 and 1 of a server carry MCP.

    Raises:
        SandboxError: the interpreter cannot be started.
    """
    boot = BOOT.format(module=f"child.{module}")
    command = [sys.executable, "-I", "-S", "-B", "-c", boot, PACKAGE_ROOT, argument]
    try:
        return subprocess.Popen(  # noqa: S603  # our own interpreter and our own code
            behind_seatbelt(command, PACKAGE_ROOT) if seatbelt else command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=descriptors,
            env=ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise SandboxError(f"cannot start {sys.executable!r}: {error.strerror!r}") from error


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Return a connected pair: the host's end, the child's end."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    return ours, theirs
