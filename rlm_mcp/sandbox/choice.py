"""Which sandbox model code runs in: the operator's choice, or the best that works here."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol, Self

import anyio

from rlm_mcp.errors import SandboxError, may_pass
from rlm_mcp.sandbox.host.sandbox import RANKS, ProcessSandbox
from rlm_mcp.sandbox.types import (
    ContextSource,
    Isolation,
    Particular,
    Repl,
    ReplOptions,
    Sandbox,
)
from rlm_mcp.values import DOCKER_IMAGE, IsolationLevel, SandboxName


class OwnedSandbox(Sandbox, Protocol):
    """A sandbox of this process: entered while it may be used, and judged by its level."""

    async def __aenter__(self) -> Self:
        """Begin to keep ready what the next REPL needs."""
        ...

    async def __aexit__(self, *_: object) -> None:
        """End what is kept ready."""
        ...

    async def prepare(self) -> object:
        """Do beforehand what takes seconds the first time.

        Raises:
            SandboxError: it cannot be done.
        """
        ...

    async def require_isolation(self) -> Isolation:
        """Say what the walls hold, if that is enough for model code to run.

        Raises:
            SandboxError: it is not.
        """
        ...


def make_sandbox(
    name: SandboxName = "auto",
    min_isolation: IsolationLevel = "partial",
    isolation: Isolation | None = None,
    *,
    docker_image: str = DOCKER_IMAGE,
) -> OwnedSandbox:
    """Make the sandbox of a name.

    Args:
        name: which one.
        min_isolation: no REPL opens below this level.
        isolation: what another of the same name found here.
        docker_image: what containers are made of, where the name is `docker`.
    """
    if name == "native":
        return ProcessSandbox(min_isolation=min_isolation, isolation=isolation)
    if name == "portable":
        return _portable(min_isolation, isolation)
    if name == "docker":
        from rlm_mcp.sandbox.docker.sandbox import DockerSandbox  # noqa: PLC0415  # likewise

        return DockerSandbox(docker_image, min_isolation=min_isolation, isolation=isolation)
    return BestSandbox(min_isolation, isolation)


def _portable(min_isolation: IsolationLevel, isolation: Isolation | None = None) -> OwnedSandbox:
    from rlm_mcp.sandbox.portable.sandbox import PortableSandbox  # noqa: PLC0415  # a part of few runs

    return PortableSandbox(min_isolation=min_isolation, isolation=isolation)


class BestSandbox:
    """On Linux the native walls where they reach `partial`, else the portable one; it elsewhere.

    Where the portable one does not work either, the native one says what is missing.
    """

    def __init__(self, min_isolation: IsolationLevel, isolation: Isolation | None) -> None:
        self._min_isolation: IsolationLevel = min_isolation
        self._choosing = anyio.Lock()
        self._entered: list[AsyncExitStack] = []
        self._native = ProcessSandbox(
            min_isolation=min_isolation,
            isolation=isolation if isolation and "wasm" not in isolation.layers else None,
        )
        self._chosen: OwnedSandbox | None = None
        self._known = isolation

    @property
    def note(self) -> str:
        """What a model must know of the chosen one's Python; see `types.Particular`."""
        return self._chosen.note if isinstance(self._chosen, Particular) else ""

    def check(self, source: ContextSource) -> None:
        """Refuse a text that the chosen one cannot hold; see `types.Particular`.

        Raises:
            TooLargeError: it is too large.
        """
        if isinstance(self._chosen, Particular):
            self._chosen.check(source)

    async def __aenter__(self) -> Self:
        stack = AsyncExitStack()
        await stack.enter_async_context(self._native)
        self._entered.append(stack)
        if self._chosen is not None and self._chosen is not self._native:
            await stack.enter_async_context(self._chosen)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._entered.pop().aclose()

    async def prepare(self) -> object:
        """Choose a sandbox, by trying what works here."""
        return await self.chosen()

    async def isolation(self) -> Isolation:
        """Say what the walls of the chosen sandbox hold; see `types.Sandbox`."""
        return await (await self.chosen()).isolation()

    async def require_isolation(self) -> Isolation:
        """Say what the walls hold, if that is enough for model code to run.

        Raises:
            SandboxError: it is not.
        """
        return await (await self.chosen()).require_isolation()

    @asynccontextmanager
    async def open_repl(self, source: ContextSource, options: ReplOptions) -> AsyncGenerator[Repl]:
        """Open a REPL of the chosen sandbox; see `types.Sandbox`."""
        async with (await self.chosen()).open_repl(source, options) as repl:
            yield repl

    async def chosen(self) -> OwnedSandbox:
        """Return the sandbox that is used, chosen at the first need."""
        async with self._choosing:
            if self._chosen is None:
                self._chosen = await self._choose()
                if self._chosen is not self._native:
                    for stack in self._entered:
                        await stack.enter_async_context(self._chosen)
            return self._chosen

    async def _choose(self) -> OwnedSandbox:
        if self._known is not None and "wasm" in self._known.layers:
            return _portable(self._min_isolation, self._known)
        if sys.platform == "linux":
            found = await self._native.isolation()
            if RANKS[found.level] >= RANKS["partial"]:
                return self._native
        portable = _portable(self._min_isolation)
        try:
            await portable.prepare()
            found = await portable.isolation()
        except SandboxError as error:
            if may_pass(error):
                raise
            await self._native.isolation()
            self._native.add_missing(f"portable sandbox: {error.message}")
            return self._native
        return portable if RANKS[found.level] >= RANKS["partial"] else self._native
