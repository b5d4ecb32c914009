"""The host's side of the fork server: the warm process, and the holders of texts."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import OrderedDict
from dataclasses import asdict, dataclass, field
from pathlib import Path

import anyio
from anyio import to_thread

from rlm_mcp.errors import SandboxError
from rlm_mcp.sandbox.host.channel import Control, control_pair
from rlm_mcp.sandbox.host.context_file import write_text
from rlm_mcp.sandbox.host.process import (
    END_SECONDS,
    GRACE_SECONDS,
    how_it_ended,
    spawn,
    watch_threads,
)
from rlm_mcp.sandbox.types import THREAD_LIMIT, ContextSource, ReplOptions, Walls

START_SECONDS = 60
ORDER_SECONDS = 4.0  # forking takes milliseconds; a process that is stopped is replaced after it
LOAD_SECONDS = 600


async def wait_for_end(handle: int) -> None:
    """Wait until the process behind a pidfd is gone, and close the descriptor."""
    try:
        with anyio.move_on_after(END_SECONDS, shield=True):
            await anyio.wait_readable(handle)
    finally:
        os.close(handle)


def pid_of(handle: int) -> int:
    """Return the id of the process behind a pidfd, here; -1 if it is gone. Blocking."""
    lines = Path(f"/proc/self/fdinfo/{handle}").read_text("ascii").splitlines()
    return next((int(line[4:]) for line in lines if line.startswith("Pid:")), -1)


@dataclass(eq=False)
class Holder:
    """A process that holds a text; `users` counts its live REPLs and those being opened."""

    key: str
    control: Control
    handle: int
    bytes: int
    counts_threads: bool = False  # the host does, since the kernel does not limit them
    users: int = 0
    last_used: float = 0.0

    async def spawn(self, sock: int, options: ReplOptions) -> ForkedProcess:
        """Fork a REPL that communicates over `sock`."""
        order = {"do": "spawn", "options": asdict(options)}
        said, (handle,) = await self.control.request(order, [sock], seconds=ORDER_SECONDS)
        return ForkedProcess(self.control, said["pid"], handle, self.counts_threads)

    async def end(self) -> None:
        """End the process and wait until it is gone."""
        assert sys.platform == "linux"  # noqa: S101  # nothing else has a fork server
        self.control.close()
        handle, self.handle = self.handle, -1
        if handle >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            await wait_for_end(handle)


@dataclass(eq=False)
class ForkedProcess:
    """A REPL's process, forked by a holder; implements `process.Process`."""

    control: Control
    pid: int
    handle: int
    is_watched: bool = False  # whether the kernel does not limit its threads
    grace_seconds: float = GRACE_SECONDS
    _is_paused: bool = False

    async def watch(self) -> None:
        """Kill it when it has too many threads."""
        await watch_threads(await to_thread.run_sync(pid_of, self.handle), self.kill)

    def interrupt(self) -> None:
        """Send SIGINT."""
        assert sys.platform == "linux"  # noqa: S101  # nothing else has a fork server
        self._send(signal.SIGINT)

    def kill(self) -> None:
        """Send SIGKILL."""
        assert sys.platform == "linux"  # noqa: S101  # nothing else has a fork server
        self._send(signal.SIGKILL)

    def pause(self) -> None:
        """Send SIGSTOP."""
        assert sys.platform == "linux"  # noqa: S101  # nothing else has a fork server
        self._is_paused = True
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        """Send SIGCONT."""
        assert sys.platform == "linux"  # noqa: S101  # nothing else has a fork server
        self._is_paused = False
        self._send(signal.SIGCONT)

    def _send(self, number: int) -> None:
        assert sys.platform == "linux"  # noqa: S101  # nothing else has a fork server
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.handle, number)

    async def end(self) -> str:
        """Kill it if it lives, wait until it is gone, and say how it ended."""
        if self._is_paused:  # it cannot exit by itself
            self.kill()
            await wait_for_end(self.handle)
            return "it was ended while it was paused"
        with anyio.move_on_after(0.1, shield=True):  # it may be about to exit
            await anyio.wait_readable(self.handle)
        self.kill()
        await wait_for_end(self.handle)
        try:
            said, _ = await self.control.request({"do": "status", "pid": self.pid}, seconds=2)
        except SandboxError:
            return "the process that held the text is gone"
        status = said["status"]
        return how_it_ended(status) if status is not None else "its exit status is unknown"


@dataclass(frozen=True)
class Keep:
    """How much stays loaded while unused: bytes and number of texts, and for how long."""

    idle_bytes: int = 2 << 30
    idle_texts: int = 16
    idle_seconds: float = 600


@dataclass
class Warm:
    """A warm process and the holders forked from it."""

    popen: subprocess.Popen[bytes]
    control: Control
    layers: tuple[str, ...]
    missing: tuple[str, ...]
    keep: Keep
    holders: OrderedDict[str, Holder] = field(default_factory=OrderedDict[str, Holder])
    _filling: dict[str, anyio.Lock] = field(default_factory=dict[str, anyio.Lock])

    @property
    def is_alive(self) -> bool:
        """Whether the process still runs."""
        return not self.control.is_gone and self.popen.poll() is None

    async def acquire(self, source: ContextSource) -> Holder:
        """Return the holder of a text, loading the text if necessary; call `release` after use.

        Raises:
            SandboxError: the text could not be loaded.
        """
        key = source.key
        lock = self._filling.setdefault(key, anyio.Lock())
        try:
            async with lock:
                holder = self.holders.get(key)
                if holder is not None and holder.control.is_gone:
                    del self.holders[key]
                    if not holder.users:  # else its last user ends it
                        await holder.end()
                    holder = None
                if holder is None:
                    holder = self.holders[key] = await self._fill(source)
                holder.users += 1
                self.holders.move_to_end(key)
        finally:
            if not lock.statistics().tasks_waiting:
                self._filling.pop(key, None)
        return holder

    async def release(self, holder: Holder) -> None:
        """Release a holder; it stays loaded while there is room."""
        holder.users -= 1
        holder.last_used = anyio.current_time()
        with anyio.CancelScope(shield=True):
            if not holder.users and self.holders.get(holder.key) is not holder:
                await holder.end()
            await self._evict()

    async def _fill(self, source: ContextSource) -> Holder:
        control, theirs = control_pair()
        try:
            text, layout = await write_text(source)
        except BaseException:
            control.close()
            theirs.close()
            raise
        try:
            order = {"do": "hold", "layout": asdict(layout)}
            # Acknowledged at once, so that a process that is stopped is noticed here.
            await self.control.request(order, [theirs.fileno(), text], seconds=ORDER_SECONDS)
            theirs.close()
            with anyio.fail_after(LOAD_SECONDS):
                said, (handle,) = await control.receive_answer()
        except (OSError, TimeoutError) as error:
            control.close()
            raise SandboxError(
                f"a context of {layout.text_bytes:,} bytes could not be loaded: {error!s}",
                fix="Ask again; if it persists, free memory.",
            ) from error
        except BaseException:
            control.close()
            raise
        finally:
            theirs.close()
            os.close(text)
        counts_threads = THREAD_LIMIT not in self.layers
        return Holder(source.key, control, handle, said["bytes"], counts_threads)

    async def _evict(self) -> None:
        """End unused holders: dead ones, old ones, then the least recently used."""
        for holder in self._remove_unused():
            await holder.end()

    def _remove_unused(self) -> list[Holder]:
        """Remove and return the holders to end, so that none is found while it ends."""
        now = anyio.current_time()
        idle = [holder for holder in self.holders.values() if not holder.users]
        total = sum(holder.bytes for holder in idle)
        removed: list[Holder] = []
        for place, holder in enumerate(idle):
            is_old = now - holder.last_used > self.keep.idle_seconds
            is_over = total > self.keep.idle_bytes or len(idle) - place > self.keep.idle_texts
            if is_old or is_over or holder.control.is_gone:
                total -= holder.bytes
                removed.append(self.holders.pop(holder.key))
        return removed

    async def close(self) -> None:
        """End everything and wait until it is gone."""
        holders, self.holders = list(self.holders.values()), OrderedDict()
        for holder in holders:
            await holder.end()
        self.control.close()
        await to_thread.run_sync(_end, self.popen)


def _end(popen: subprocess.Popen[bytes]) -> None:
    try:
        popen.wait(1)
    except subprocess.TimeoutExpired:
        popen.kill()
        popen.wait(END_SECONDS)


async def start_warm(walls: Walls, keep: Keep) -> Warm:
    """Start a warm process and wait until it can fork.

    Raises:
        SandboxError: the process did not start.
    """
    control, theirs = control_pair()
    argument = json.dumps({"control": theirs.fileno(), "walls": asdict(walls)})
    try:
        popen = await to_thread.run_sync(spawn, "forkserver", argument, (theirs.fileno(),))
    except BaseException:
        control.close()
        raise
    finally:
        theirs.close()
    try:
        with anyio.fail_after(START_SECONDS):
            said, _ = await control.receive_answer()
    except BaseException as error:
        control.close()
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(_end, popen)
        if isinstance(error, (OSError, TimeoutError)):
            raise SandboxError(f"the fork server did not start: {error!s}") from error
        raise
    return Warm(popen, control, tuple(said["layers"]), tuple(said["missing"]), keep)
