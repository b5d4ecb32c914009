"""Launchers of REPL processes: a new interpreter each, or a fork of a warm process."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from functools import partial

import anyio
from anyio import to_thread

from rlm_mcp.errors import SandboxError, WireError
from rlm_mcp.sandbox.boot import Start
from rlm_mcp.sandbox.host.channel import Channel
from rlm_mcp.sandbox.host.context_file import write_text
from rlm_mcp.sandbox.host.fork_client import Holder, Warm
from rlm_mcp.sandbox.host.process import PlainProcess, socket_pair, spawn
from rlm_mcp.sandbox.host.repl_process import ReplProcess
from rlm_mcp.sandbox.types import ContextSource, ReplOptions

START_SECONDS = 60
WIDEST_CHAR = 4
INTERPRETER_BYTES = 64 << 20


class PlainLauncher:
    """Starts an interpreter and writes the text for each REPL; for platforms without walls."""

    def __init__(
        self, source: ContextSource, options: ReplOptions, *, seatbelt: bool = False
    ) -> None:
        self._source = source
        self.options = options
        self._seatbelt = seatbelt

    async def launch(self) -> ReplProcess:
        """Start a process and load the text.

        Raises:
            SandboxError: the process cannot be started, or the text not loaded.
        """
        text, layout = await write_text(self._source)
        ours, theirs = socket_pair()
        channel = Channel(ours)
        argument = Start(theirs.fileno(), text, layout, self.options).to_json()
        given = (theirs.fileno(), text)
        try:
            start = partial(spawn, "main", argument, given, seatbelt=self._seatbelt)
            popen = await to_thread.run_sync(start)
        except BaseException:
            channel.close()
            raise
        finally:
            theirs.close()
            os.close(text)
        most = self.options.memory_bytes + layout.text_bytes * WIDEST_CHAR + INTERPRETER_BYTES
        is_limited = sys.platform.startswith("linux")
        return await ready(ReplProcess(channel, PlainProcess(popen, None if is_limited else most)))

    async def release(self) -> None:
        """Do nothing: nothing is kept between REPLs."""


async def ready(process: ReplProcess) -> ReplProcess:
    """Wait until a REPL is ready; end it if it fails.

    Raises:
        SandboxError: the REPL could not be set up.
    """
    try:
        await _wait_until_ready(process.channel)
    except BaseException:
        await process.end()
        raise
    return process


async def _wait_until_ready(channel: Channel) -> None:
    try:
        with anyio.fail_after(START_SECONDS):
            frame = await channel.receive()
    except (EOFError, TimeoutError) as error:
        raise SandboxError(f"a REPL's process did not start: {error!s}") from error
    if frame.kind == "failed":
        raise SandboxError(f"a REPL could not be set up: {frame.text(0)[:500]}")
    if frame.kind != "ready":
        raise WireError(f"a {frame.kind!r} frame instead of 'ready'")


RETRIES = 2


class ForkLauncher:
    """Forks REPLs from the holder of a text; gets another holder when that is gone."""

    def __init__(
        self, warm: Callable[[], Awaitable[Warm]], source: ContextSource, options: ReplOptions
    ) -> None:
        self._warm = warm
        self._source = source
        self.options = options
        self._held: tuple[Warm, Holder] | None = None

    async def launch(self) -> ReplProcess:
        """Fork a REPL.

        Raises:
            SandboxError: forking failed, with a fresh holder too.
        """
        for _ in range(RETRIES):
            try:
                return await self._fork()
            except SandboxError:  # the holder or the warm process is gone or stuck
                await self.release()
        return await self._fork()

    async def release(self) -> None:
        """Release the holder."""
        held, self._held = self._held, None
        if held is not None:
            warm, holder = held
            await warm.release(holder)

    async def _fork(self) -> ReplProcess:
        if self._held is None:
            warm = await self._warm()
            self._held = (warm, await warm.acquire(self._source))
        ours, theirs = socket_pair()
        channel = Channel(ours)
        try:
            process = await self._held[1].spawn(theirs.fileno(), self.options)
        except BaseException:
            channel.close()
            raise
        finally:
            theirs.close()
        return await ready(ReplProcess(channel, process))
