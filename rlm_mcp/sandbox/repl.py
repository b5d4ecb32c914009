"""The sandbox: opens REPLs over texts, as confined as this machine allows."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Literal

import anyio
from anyio import to_thread

from rlm_mcp.errors import SandboxError, WireError
from rlm_mcp.sandbox.channel import Channel
from rlm_mcp.sandbox.child_repl import ChildRepl, Seat
from rlm_mcp.sandbox.documents import Layout
from rlm_mcp.sandbox.filling import write_text
from rlm_mcp.sandbox.process import PlainProcess, socket_pair, spawn
from rlm_mcp.sandbox.start import Start
from rlm_mcp.sandbox.types import ContextSource, Isolation, ReplOptions

START_SECONDS = 60


class ProcessSandbox:
    """A `Sandbox` whose REPLs are processes."""

    def __init__(self, *, min_isolation: Literal["full", "partial", "process"] = "partial") -> None:
        self._min_isolation = min_isolation

    async def isolation(self) -> Isolation:
        """Say what the walls hold; see `types.Sandbox`."""
        return Isolation("process", ("limits",))

    @asynccontextmanager
    async def open_repl(
        self, source: ContextSource, options: ReplOptions
    ) -> AsyncGenerator[ChildRepl]:
        """Open a REPL over `source`; see `types.Sandbox`."""
        descriptor, layout = await write_text(source)
        try:
            repl = ChildRepl(lambda: launch_plain(descriptor, layout, options))
            try:
                await repl.start()
                yield repl
            finally:
                await repl.close()
        finally:
            os.close(descriptor)


async def launch_plain(descriptor: int, layout: Layout, options: ReplOptions) -> Seat:
    """Start a process for one REPL alone, without walls but limits.

    Raises:
        SandboxError: it cannot be started or filled.
    """
    ours, theirs = socket_pair()
    channel = Channel(ours)
    argument = Start(theirs.fileno(), descriptor, layout, options).to_json()
    try:
        popen = await to_thread.run_sync(spawn, "start", argument, (theirs.fileno(), descriptor))
    except BaseException:
        channel.close()
        raise
    finally:
        theirs.close()
    seat = Seat(channel, PlainProcess(popen))
    try:
        await wait_until_ready(channel)
    except BaseException:
        await seat.leave()
        raise
    return seat


async def wait_until_ready(channel: Channel) -> None:
    """Wait for a REPL's first frame.

    Raises:
        SandboxError: the REPL could not be set up.
    """
    try:
        with anyio.fail_after(START_SECONDS):
            frame = await channel.receive()
    except (EOFError, TimeoutError) as error:
        raise SandboxError(f"a REPL's process did not start: {error!s}") from error
    if frame.kind == "failed":
        raise SandboxError(f"a REPL could not be set up: {frame.text(0)[:500]}")
    if frame.kind != "ready":
        raise WireError(f"a {frame.kind!r} frame instead of 'ready'")
