"""A REPL in a process of its own, without a fork server: the way of platforms without our walls."""

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
from rlm_mcp.sandbox.host.repl import Seat
from rlm_mcp.sandbox.types import ContextSource, ReplOptions

START_SECONDS = 60
WIDEST_CHAR = 4
INTERPRETER_BYTES = 64 << 20


class PlainLauncher:
    """Starts a process for each REPL; the text is written anew for each."""

    def __init__(
        self, source: ContextSource, options: ReplOptions, *, seatbelt: bool = False
    ) -> None:
        self._source = source
        self._options = options
        self._seatbelt = seatbelt

    async def launch(self) -> Seat:
        """Start a process and fill it.

        Raises:
            SandboxError: it cannot be started or filled.
        """
        text, layout = await write_text(self._source)
        ours, theirs = socket_pair()
        channel = Channel(ours)
        argument = Start(theirs.fileno(), text, layout, self._options).to_json()
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
        most = self._options.memory_bytes + layout.text_bytes * WIDEST_CHAR + INTERPRETER_BYTES
        is_limited = sys.platform.startswith("linux")
        return await ready(Seat(channel, PlainProcess(popen, None if is_limited else most)))

    async def release(self) -> None:
        """Nothing is kept between REPLs."""


async def ready(seat: Seat) -> Seat:
    """Wait until a REPL can take cells; it is ended if it cannot.

    Raises:
        SandboxError: the REPL could not be set up.
    """
    try:
        await _wait_until_ready(seat.channel)
    except BaseException:
        await seat.leave()
        raise
    return seat


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
    """Forks a REPL, and again when it is lost; goes to a fresh holder when that is gone."""

    def __init__(
        self, warm: Callable[[], Awaitable[Warm]], source: ContextSource, options: ReplOptions
    ) -> None:
        self._warm = warm
        self._source = source
        self._options = options
        self._held: tuple[Warm, Holder] | None = None

    async def launch(self) -> Seat:
        """Fork a REPL.

        Raises:
            SandboxError: it cannot be had, from a fresh holder either.
        """
        for _ in range(RETRIES):
            try:
                return await self._fork()
            except SandboxError:  # the holder died since it was used, or the warm process did
                await self.release()
        return await self._fork()

    async def release(self) -> None:
        """Let the holder go."""
        held, self._held = self._held, None
        if held is not None:
            warm, holder = held
            await warm.give_back(holder)

    async def _fork(self) -> Seat:
        if self._held is None:
            warm = await self._warm()
            self._held = (warm, await warm.take(self._source))
        ours, theirs = socket_pair()
        channel = Channel(ours)
        try:
            process = await self._held[1].spawn(theirs.fileno(), self._options)
        except BaseException:
            channel.close()
            raise
        finally:
            theirs.close()
        return await ready(Seat(channel, process))
