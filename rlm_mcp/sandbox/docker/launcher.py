"""Starts containers of REPLs, and fills them."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import subprocess
import sys
import threading
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import IO

from anyio import to_thread

from rlm_mcp.errors import SandboxError
from rlm_mcp.sandbox.boot import module_sources
from rlm_mcp.sandbox.docker.boot import BOOT, MODULES
from rlm_mcp.sandbox.docker.command import Orders, find_docker, hidden, run_command, why_not
from rlm_mcp.sandbox.host.channel import Channel, socket_pair
from rlm_mcp.sandbox.host.context_file import measured
from rlm_mcp.sandbox.host.process import PACKAGE_ROOT, how_it_ended
from rlm_mcp.sandbox.host.repl_process import ReplProcess
from rlm_mcp.sandbox.host.sandbox import INTERPRETER_BYTES, WIDEST_CHAR, ready
from rlm_mcp.sandbox.host.streaming import send_context
from rlm_mcp.sandbox.types import ContextSource, ReplOptions

CLOSE_SECONDS, END_SECONDS = 5, 30
GRACE_SECONDS = 4.0  # an order to a container takes 0.1 s, and much longer on a busy machine
SIGNALLED = 128  # an exit status beyond it names a signal
CLI_FAILED = 125  # the `docker` command's own
PUMP_BYTES = 1 << 16


class DockerProcess:
    """The `docker run` of one container. Further commands speak to it."""

    grace_seconds = GRACE_SECONDS
    is_watched = False  # Docker limits memory and processes

    def __init__(self, popen: subprocess.Popen[bytes], orders: Orders) -> None:
        self._popen = popen
        self._orders = orders
        self.said = ""  # the end of what was written to standard error

    def first_line(self) -> bytes:
        """Read what the container reported about itself, the first line that is JSON. Blocking."""
        lines = iter(self._popen.stderr.readline if self._popen.stderr is not None else bytes, b"")
        return next((line for line in lines if line.startswith(b"{")), b"{}")

    def interrupt(self) -> None:
        """Send SIGINT to the container."""
        self._orders.give("kill", "--signal", "INT")

    def kill(self) -> None:
        """Kill the container."""
        self._orders.give("kill")

    def pause(self) -> None:
        """Freeze the container."""
        self._orders.give("pause")

    def resume(self) -> None:
        """Let it run again."""
        self._orders.give("unpause")

    async def watch(self) -> None:
        """Return: there is nothing to watch."""

    async def end(self) -> str:
        """Kill the container if it lives, wait until it is gone, and return how it ended."""
        return await to_thread.run_sync(self._end)

    def _end(self) -> str:
        # Its input was closed, which ends it unless Docker is stuck.
        try:
            status = self._popen.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            try:
                status = self._popen.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                self._popen.kill()
                status = self._popen.wait()
        self._orders.close()
        if self._popen.stderr is not None:
            with self._popen.stderr as stream:
                self.said = stream.read().decode("utf-8", "replace")
        if status == CLI_FAILED:
            return f"the docker command failed: {self.said.strip()[-300:]}"
        return how_it_ended(SIGNALLED - status if status > SIGNALLED else status)


class DockerLauncher:
    """Starts a container for a REPL and sends it the text, again whenever it is lost."""

    def __init__(self, image: str, source: ContextSource, options: ReplOptions) -> None:
        self._image = image
        self._source = source
        self.options = options
        self.last: DockerProcess | None = None  # the process that was started last

    async def launch(self) -> ReplProcess:
        """Start a container and load the text.

        Raises:
            SandboxError: it cannot be started, or the text not loaded.
        """
        layout, tail = await to_thread.run_sync(measured, self._source)
        said = {"layout": asdict(layout), "options": asdict(self.options)}
        memory = self.options.memory_bytes + held_bytes(self._source) + INTERPRETER_BYTES
        modules = await to_thread.run_sync(_modules)
        channel, process = await _start(self._image, memory)
        self.last = process
        repl_process = ReplProcess(channel, process)
        try:
            with contextlib.suppress(EOFError):  # `ready` finds out why it ended
                await channel.send_frames(_sized(modules) + _sized(json.dumps(said).encode()))
                await send_context(channel, self._source, layout.text_bytes)
                await channel.send_frames(tail)
        except BaseException:
            await repl_process.end()
            raise
        try:
            return await ready(repl_process)
        except SandboxError as error:
            raise (why_not(process.said, self._image) if process.said else error) from error


async def told_walls(launcher: DockerLauncher) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Read what the container that was started last reported: layers that hold or are missing."""
    assert launcher.last is not None  # noqa: S101  # for the type checker: it was started
    said = json.loads(await to_thread.run_sync(launcher.last.first_line))
    return tuple(said.get("layers", ())), tuple(said.get("missing", ()))


def held_bytes(source: ContextSource) -> int:
    """Return the most that a text takes in a container: in its file, and decoded if need be."""
    text_bytes, chars = sum(source.byte_lengths), sum(source.char_lengths)
    return text_bytes if text_bytes == chars else text_bytes + WIDEST_CHAR * chars


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def _modules() -> bytes:
    return json.dumps(module_sources(Path(PACKAGE_ROOT), MODULES)).encode()


async def _start(image: str, memory_bytes: int) -> tuple[Channel, DockerProcess]:
    """Run a container; what it reads and writes goes over the returned channel.

    Raises:
        SandboxError: the command is not there.
    """
    docker = await to_thread.run_sync(find_docker)
    name = f"rlm-mcp-{secrets.token_hex(8)}"
    command = run_command(docker, name, image, memory_bytes, BOOT)
    ours, theirs = socket_pair()
    channel = Channel(ours)
    try:
        popen = await to_thread.run_sync(partial(spawn, command, theirs))
    except OSError as error:
        channel.close()
        theirs.close()
        raise SandboxError(f"cannot run {docker!r}: {error.strerror!r}") from error
    return channel, DockerProcess(popen, Orders(docker, name))


def spawn(
    command: list[str], theirs: socket.socket, *, pumped: bool = sys.platform == "win32"
) -> subprocess.Popen[bytes]:
    """Start a command that reads and writes a socket, which is closed here. Blocking.

    `pumped`: through pipes and two threads, since a program on Windows takes no socket for its
    standard input.
    """
    end: int = subprocess.PIPE if pumped else theirs.fileno()
    popen = subprocess.Popen[bytes](
        command, stdin=end, stdout=end, stderr=subprocess.PIPE, bufsize=0, **hidden()
    )
    if not pumped:
        theirs.close()
        return popen
    threading.Thread(target=_pump, args=(theirs, popen), daemon=True).start()
    return popen


def _pump(theirs: socket.socket, popen: subprocess.Popen[bytes]) -> None:
    """Carry bytes both ways, until the program has ended and all that it wrote was read."""
    assert popen.stdin is not None  # noqa: S101  # for the type checker: they are pipes
    assert popen.stdout is not None  # noqa: S101  # likewise
    onward = threading.Thread(target=_pump_in, args=(theirs, popen.stdin), daemon=True)
    onward.start()
    with contextlib.suppress(OSError), popen.stdout:
        while data := popen.stdout.read(PUMP_BYTES):
            theirs.sendall(data)
    with contextlib.suppress(OSError):
        theirs.shutdown(socket.SHUT_RDWR)
    onward.join()
    theirs.close()


def _pump_in(theirs: socket.socket, stream: IO[bytes]) -> None:
    with contextlib.suppress(OSError), stream:
        while data := theirs.recv(PUMP_BYTES):
            _write(stream, data)


def _write(stream: IO[bytes], data: bytes) -> None:
    view = memoryview(data)
    while view:  # an unbuffered pipe may take a part alone
        view = view[stream.write(view) :]
