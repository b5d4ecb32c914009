"""Processes of REPLs, as the host sees them: start, signals, end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Protocol

import anyio
from anyio import to_thread

from rlm_mcp.errors import SandboxError
from rlm_mcp.sandbox.boot import BOOT
from rlm_mcp.sandbox.host.seatbelt import behind_seatbelt, resident_bytes
from rlm_mcp.sandbox.walls.limits import CPU_SECONDS, MAX_THREADS

PACKAGE_ROOT = str(Path(__file__).resolve().parent.parent.parent)
END_SECONDS = 5
GRACE_SECONDS = 1.0  # between the first interrupt of a cell and the end of its process
# Large pages for decoded texts: a fork copies 500 times fewer page table entries.
ENVIRONMENT = {"LANG": "C.UTF-8", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
WATCH_SECONDS = 1
THREADS_SECONDS = 0.1
_COUNTS_THREADS = sys.platform == "linux"
_STOP, _CONTINUE = (int(getattr(signal, name, 0)) for name in ("SIGSTOP", "SIGCONT"))
_OUT_OF_CPU = int(getattr(signal, "SIGXCPU", 24))


class Process(Protocol):
    """A process of one REPL."""

    @property
    def grace_seconds(self) -> float:
        """How long a cell may take to end once it was interrupted."""
        ...

    def interrupt(self) -> None:
        """Send SIGINT."""
        ...

    def kill(self) -> None:
        """Send SIGKILL."""
        ...

    def pause(self) -> None:
        """Stop it until `resume`, where the system can."""
        ...

    def resume(self) -> None:
        """Let it run again."""
        ...

    async def watch(self) -> None:
        """Kill it when it uses too much; returns at once where the kernel limits it."""
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

    grace_seconds = GRACE_SECONDS

    def __init__(self, popen: subprocess.Popen[bytes], most_bytes: int | None = None) -> None:
        self._popen = popen
        self._most_bytes = most_bytes

    @property
    def is_watched(self) -> bool:
        """Whether `watch` must run while a cell does."""
        return self._most_bytes is not None or _COUNTS_THREADS

    async def watch(self) -> None:
        """Kill it when it uses too much memory or too many threads."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch_threads, self._popen.pid, self.kill)
            await self._watch_memory()
            if self._most_bytes is not None:  # it was killed
                tasks.cancel_scope.cancel()

    async def _watch_memory(self) -> None:
        while self._most_bytes is not None:
            held = await to_thread.run_sync(resident_bytes, self._popen.pid)
            if held > self._most_bytes:
                self.kill()
                return
            await anyio.sleep(WATCH_SECONDS)

    def pause(self) -> None:
        """Send SIGSTOP."""
        self._send(_STOP)

    def resume(self) -> None:
        """Send SIGCONT."""
        self._send(_CONTINUE)

    def _send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            if number:
                self._popen.send_signal(number)

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


async def watch_threads(pid: int, kill: Callable[[], None]) -> None:
    """Kill a process when it has too many threads, which the kernel does not limit here."""
    while _COUNTS_THREADS:
        if await to_thread.run_sync(thread_count, pid) > MAX_THREADS:
            kill()
            return
        await anyio.sleep(THREADS_SECONDS)


def thread_count(pid: int) -> int:
    """Return how many threads a process has; 0 if it is gone. Linux only; blocking."""
    try:
        status = Path(f"/proc/{pid}/status").read_text("utf-8", "replace")
    except OSError:
        return 0
    _, _, rest = status.partition("\nThreads:")
    return int(rest.split(None, 1)[0]) if rest else 0


def how_it_ended(status: int) -> str:
    """Describe an exit status."""
    if status == -_OUT_OF_CPU:
        return f"it used more than {CPU_SECONDS // 3600} hours of processor time"
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

    The kernel kills the child when the thread that starts it ends. So that is a thread of its own,
    which stays until the child has ended: the child ends with this process, even while stopped.

    Raises:
        SandboxError: the interpreter cannot be started.
    """
    boot = BOOT.format(module=f"child.{module}")
    command = [sys.executable, "-I", "-S", "-B", "-c", boot, PACKAGE_ROOT, argument]
    if seatbelt:
        command = behind_seatbelt(command, PACKAGE_ROOT)
    started: SimpleQueue[subprocess.Popen[bytes] | OSError] = SimpleQueue()
    Thread(target=_start_and_stay, args=(command, descriptors, started), daemon=True).start()
    popen = started.get()
    if isinstance(popen, OSError):
        raise SandboxError(f"cannot start {sys.executable!r}: {popen.strerror!r}") from popen
    return popen


def _start_and_stay(
    command: Sequence[str],
    descriptors: Sequence[int],
    started: SimpleQueue[subprocess.Popen[bytes] | OSError],
) -> None:
    try:
        popen = subprocess.Popen(  # noqa: S603  # our own interpreter and our own code
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=descriptors,
            env=ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        started.put(error)
        return
    started.put(popen)
    if sys.platform == "linux":
        with contextlib.suppress(ChildProcessError):  # it was reaped already
            os.waitid(os.P_PID, popen.pid, os.WEXITED | os.WNOWAIT)
