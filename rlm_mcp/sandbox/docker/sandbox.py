"""The Docker sandbox: REPLs in containers, where an operator has Docker and chooses it."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Self

import anyio
from anyio import to_thread

from rlm_mcp.errors import SandboxError
from rlm_mcp.sandbox.docker.command import find_docker
from rlm_mcp.sandbox.docker.launcher import DockerLauncher, held_bytes, told_walls
from rlm_mcp.sandbox.host import selftest
from rlm_mcp.sandbox.host.repl import ChildRepl, opened
from rlm_mcp.sandbox.host.room import Room
from rlm_mcp.sandbox.host.sandbox import as_missing, refuse_too_little
from rlm_mcp.sandbox.types import ContextSource, Isolation, ReplOptions
from rlm_mcp.values import DOCKER_IMAGE, IsolationLevel

REPL_BYTES = 32 << 20  # what a REPL takes beside its text
# Of the self-test: what code may do in its container, whose processes are its own.
_WITHIN = frozenset({"start a process", "run a program", "signal the host"})


class DockerSandbox:
    """A `Sandbox` whose REPLs are containers, started by the `docker` command.

    Args:
        image: with Python 3.11 or later; it is never fetched.
        min_isolation: no REPL opens below this level.
        cores: how many cells run at once; None: as many as there are cores.
        isolation: the result of an earlier test with the same image; None runs the test.
        room: the memory that all REPLs share; None for most of the machine's.
    """

    def __init__(
        self,
        image: str = DOCKER_IMAGE,
        *,
        min_isolation: IsolationLevel = "partial",
        cores: int | None = None,
        isolation: Isolation | None = None,
        room: Room | None = None,
    ) -> None:
        self._image = image
        self._min_isolation: IsolationLevel = min_isolation
        self._cores = anyio.Semaphore(cores or os.cpu_count() or 1, fast_acquire=True)
        self._room = room or Room()
        self._testing = anyio.Lock()
        self._isolation = isolation

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing is kept ready."""

    async def prepare(self) -> str:
        """Find the `docker` command.

        Raises:
            SandboxError: it is not there.
        """
        return await to_thread.run_sync(find_docker)

    async def isolation(self) -> Isolation:
        """Return the isolation in force; see `types.Sandbox`. Tested once, in a real container."""
        async with self._testing:
            if self._isolation is None:
                try:
                    self._isolation = await self._tried()
                except SandboxError as error:  # not remembered: Docker may be started meanwhile
                    return Isolation("process", (), (f"docker: {error.message}",))
            return self._isolation

    async def require_isolation(self) -> Isolation:
        """Return the isolation in force, if model code may run with it.

        Raises:
            IsolationError: the level is below the minimum.
            SandboxError: no container can be started.
        """
        async with self._testing:
            if self._isolation is None:
                self._isolation = await self._tried()
            isolation = self._isolation
        refuse_too_little(isolation, self._min_isolation)
        return isolation

    @asynccontextmanager
    async def open_repl(
        self, source: ContextSource, options: ReplOptions
    ) -> AsyncGenerator[ChildRepl]:
        """Open a REPL over `source`; see `types.Sandbox`.

        Raises:
            IsolationError: the level is below the minimum.
            SandboxError: no container could be started, or the text not loaded.
        """
        await self.require_isolation()
        launcher = DockerLauncher(self._image, source, options)
        taken = self._room.taken(REPL_BYTES + held_bytes(source))
        async with taken, opened(launcher.launch, options, self._cores) as repl:
            yield repl

    async def _tried(self) -> Isolation:
        launcher = DockerLauncher(self._image, selftest.TEXT, selftest.OPTIONS)
        async with opened(launcher.launch, launcher.options, self._cores) as repl:
            layers, missing = await told_walls(launcher)
            found = await selftest.find_breaches(repl, "/bin/sh")
        breaches = [breach for breach in found if breach not in _WITHIN]
        if breaches:
            return Isolation("process", (), (*missing, *as_missing(breaches)))
        level: IsolationLevel = "partial" if "seccomp" in layers else "process"
        return Isolation(level, ("docker", *layers, "limits"), missing)
