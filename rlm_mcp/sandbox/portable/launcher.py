"""Starts the processes around instances: for a REPL, or beforehand for the next one."""

from __future__ import annotations

import contextlib
import ctypes
import json
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from anyio import to_thread

from rlm_mcp.errors import SandboxError
from rlm_mcp.sandbox.boot import BOOT
from rlm_mcp.sandbox.host.channel import Channel, socket_pair
from rlm_mcp.sandbox.host.process import (
    END_SECONDS,
    GRACE_SECONDS,
    PACKAGE_ROOT,
    how_it_ended,
)
from rlm_mcp.sandbox.host.repl_process import ReplProcess
from rlm_mcp.sandbox.host.sandbox import ready
from rlm_mcp.sandbox.host.seatbelt import behind_seatbelt
from rlm_mcp.sandbox.portable.boot import ORDER_BYTES, Boot
from rlm_mcp.sandbox.portable.job import Job, put_into_job, windows_library
from rlm_mcp.sandbox.portable.module import PythonModule, python_command
from rlm_mcp.sandbox.portable.text import TextLayout, send_text
from rlm_mcp.sandbox.types import ContextSource, ReplOptions

ENDED = {
    70: "its interpreter could not continue",
    0: "it was asked to end",
}


class PortableProcess:
    """A process around an instance. It is interrupted over its standard input.

    What is said there may arrive later than what is sent over the socket, so that an interrupt
    names the order that it is for.
    """

    grace_seconds = GRACE_SECONDS
    is_watched = False  # the instance's memory is limited by wasmtime itself

    def __init__(
        self, popen: subprocess.Popen[bytes], channel: Channel, job: Job | None = None
    ) -> None:
        self._popen = popen
        self._job = job
        self._channel = channel
        assert popen.stdin is not None  # noqa: S101  # for the type checker: it is a pipe
        self._orders = popen.stdin

    @property
    def is_alive(self) -> bool:
        """Whether the process is there."""
        return self._popen.poll() is None

    def first_line(self) -> bytes:
        """Read the line that it reported about itself. Blocking."""
        return self._popen.stdout.readline() if self._popen.stdout is not None else b""

    def interrupt(self) -> None:
        """Interrupt what was ordered last; a cell is ended the second time."""
        with contextlib.suppress(OSError, ValueError):  # gone, or closed
            self._orders.write(b"i" + self._channel.orders.to_bytes(ORDER_BYTES, "big"))

    def kill(self) -> None:
        """End the process now."""
        with contextlib.suppress(OSError):
            self._popen.kill()

    def pause(self) -> None:
        """Do nothing: an instance has no threads that run between cells."""

    def resume(self) -> None:
        """Do nothing, for the same reason."""

    async def watch(self) -> None:
        """Return: there is nothing to watch."""

    async def end(self) -> str:
        """Kill it if it lives, wait until it is gone, and say how it ended."""
        return await to_thread.run_sync(self._end)

    def _end(self) -> str:
        # A process that closed its socket is about to end by itself; its own status says more.
        with contextlib.suppress(OSError):
            self._orders.close()
            if self._popen.stdout is not None:
                self._popen.stdout.close()
        try:
            status = self._popen.wait(0.1)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            status = self._popen.wait(END_SECONDS)
        if self._job is not None:
            self._job.close()
            self._job = None
        return ENDED.get(status, how_it_ended(status))


async def start_process(
    module: PythonModule, layer: str = "", stdout: int = subprocess.DEVNULL
) -> ReplProcess:
    """Start a process that makes an instance and waits for its text.

    `layer` is what is put round it here: `seatbelt` or `job`, or nothing.

    Raises:
        SandboxError: it cannot be started.
    """
    ours, theirs = socket_pair()
    channel = Channel(ours)
    try:
        popen, job = await to_thread.run_sync(partial(_spawn, module, theirs, layer, stdout))
    except OSError as error:
        channel.close()
        raise SandboxError(f"cannot start {sys.executable!r}: {error!s}") from error
    except BaseException:
        channel.close()
        raise
    finally:
        theirs.close()
    return ReplProcess(channel, PortableProcess(popen, channel, job))


def _spawn(
    module: PythonModule, theirs: socket.socket, layer: str, stdout: int
) -> tuple[subprocess.Popen[bytes], Job | None]:
    """Start an interpreter that has nothing but its socket and two pipes."""
    is_windows = sys.platform == "win32"
    shared = None if is_windows else theirs.fileno()
    boot = Boot(
        shared, str(module.library), str(module.compiled), str(module.image), dict(module.facts)
    )
    code = BOOT.format(module="portable.process.main")
    command = [*python_command(module), "-c", code, PACKAGE_ROOT, boot.to_json()]
    if layer == "seatbelt":
        folders = (str(module.library), str(module.compiled.parent))
        command = behind_seatbelt(command, PACKAGE_ROOT, folders, compiles=True)
    popen = subprocess.Popen[bytes](  # our own interpreter and our own code
        command,
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=subprocess.DEVNULL,
        cwd=Path(sys.executable).anchor,
        bufsize=0,
        **_platform_options(theirs),
    )
    try:
        # It runs only our own code until it is told what to load.
        job = put_into_job(popen.pid, windows_library()) if layer == "job" else None
    except OSError:
        _end_at_once(popen)
        raise
    if is_windows:
        _share(theirs, popen)
    return popen, job


def _end_at_once(popen: subprocess.Popen[bytes]) -> None:
    popen.kill()
    for stream in (popen.stdin, popen.stdout):
        if stream is not None:
            stream.close()
    popen.wait()


def _platform_options(theirs: socket.socket) -> dict[str, Any]:
    if sys.platform == "win32":  # has not been run there
        return {
            "env": {"SYSTEMROOT": _windows_folder()},  # without it there are no sockets
            "creationflags": subprocess.CREATE_NO_WINDOW,
        }
    # No session of its own: Linux shares the processor among sessions before it looks at
    # priorities, and that of an instance is low.
    return {"env": {}, "pass_fds": (theirs.fileno(),), "process_group": 0}


def _windows_folder() -> str:
    """Ask Windows where it is; has not been run there."""
    room = ctypes.create_unicode_buffer(260)
    library: Any = getattr(ctypes, "windll")  # noqa: B009  # on Windows alone
    library.kernel32.GetWindowsDirectoryW(room, len(room))
    return room.value


def _share(theirs: socket.socket, popen: subprocess.Popen[bytes]) -> None:
    """Give the process its socket, which Windows does not inherit; has not been run there."""
    data: bytes = getattr(theirs, "share")(popen.pid)  # noqa: B009  # on Windows alone
    assert popen.stdin is not None  # noqa: S101  # for the type checker: it is a pipe
    popen.stdin.write(len(data).to_bytes(4, "big") + data)


class PortableLauncher:
    """Makes a REPL over a text, and makes it again when it is lost."""

    def __init__(
        self,
        process: Callable[[], Awaitable[ReplProcess]],
        source: ContextSource,
        options: ReplOptions,
        laid: tuple[TextLayout, bytes],
    ) -> None:
        self._process = process
        self._source = source
        self.options = options
        self._laid = laid

    async def launch(self) -> ReplProcess:
        """Take a process and fill it.

        Raises:
            SandboxError: it cannot be started or filled.
        """
        repl_process = await self._process()
        try:
            with contextlib.suppress(EOFError):  # why it ended is in its last frame
                await send_text(repl_process.channel, self._source, self.options, self._laid)
        except BaseException:
            await repl_process.end()
            raise
        return await ready(repl_process)

    async def release(self) -> None:
        """Nothing is kept between REPLs."""


async def second_layer(repl_process: ReplProcess) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Read what a process reported on its standard output: layers that hold, and those missing."""
    assert isinstance(repl_process.process, PortableProcess)  # noqa: S101  # `start_process` made it
    said = json.loads(await to_thread.run_sync(repl_process.process.first_line))
    return tuple(said["layers"]), tuple(said["missing"])
