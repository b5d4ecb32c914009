"""Opens REPLs over texts, as isolated as this machine allows: forked, or in a new interpreter."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Self

import anyio
from anyio import to_thread

from rlm_mcp.errors import IsolationError, SandboxError, WireError, may_pass
from rlm_mcp.sandbox.boot import Start
from rlm_mcp.sandbox.host import selftest
from rlm_mcp.sandbox.host.channel import Channel, socket_pair
from rlm_mcp.sandbox.host.context_file import write_text
from rlm_mcp.sandbox.host.fork_client import Holder, Keep, Warm, start_warm
from rlm_mcp.sandbox.host.process import PlainProcess, spawn
from rlm_mcp.sandbox.host.repl import ChildRepl, opened
from rlm_mcp.sandbox.host.repl_process import ReplProcess
from rlm_mcp.sandbox.types import ContextSource, Isolation, ReplOptions, Walls
from rlm_mcp.values import IsolationLevel

RANKS: dict[IsolationLevel, int] = {"process": 0, "partial": 1, "full": 2}
_FULL_LAYERS = frozenset({"seccomp", "landlock", "namespaces"})


class Held(ABC):
    """Something that is kept ready while anybody is in its `async with` block."""

    _holders = 0

    async def __aenter__(self) -> Self:
        self._holders += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        self._holders -= 1
        if not self._holders:
            await self.aclose()

    @abstractmethod
    async def aclose(self) -> None:
        """End what is kept ready; it may be used again."""


class ProcessSandbox(Held):
    """A `Sandbox` whose REPLs are processes behind walls. It belongs to one event loop.

    Args:
        min_isolation: no REPL opens below this level.
        walls: which walls to use; fewer only if the operator decided so.
        keep: how much stays loaded while no REPL uses it.
        cores: how many cells run at once; None: as many as there are cores.
        isolation: the result of an earlier test with the same walls; None runs the test.

    Within `async with` the warm process and its texts stay between REPLs, and end with the block.
    Without it, everything ends with the last open REPL.
    """

    def __init__(
        self,
        *,
        min_isolation: IsolationLevel = "partial",
        walls: Walls | None = None,
        keep: Keep | None = None,
        cores: int | None = None,
        isolation: Isolation | None = None,
    ) -> None:
        self._min_isolation: IsolationLevel = min_isolation
        self._walls = walls or Walls()
        self._keep = keep or Keep()
        self._cores = anyio.Semaphore(cores or os.cpu_count() or 1, fast_acquire=True)
        self._starting = anyio.Lock()
        self._testing = anyio.Lock()
        self._warm: Warm | None = None
        self._isolation = isolation

    async def aclose(self) -> None:
        """End all processes; later use starts new ones."""
        warm, self._warm = self._warm, None
        if warm is not None:
            with anyio.CancelScope(shield=True):
                await warm.close()

    async def isolation(self) -> Isolation:
        """Return the isolation in force; see `types.Sandbox`. Tested once, in a real REPL."""
        async with self, self._testing:
            if self._isolation is None:
                self._isolation = await self._find_isolation()
            return self._isolation

    async def prepare(self) -> Isolation:
        """Try the walls, which takes a moment the first time."""
        return await self.isolation()

    def add_missing(self, layer: str) -> None:
        """Name something else that is missing here, once the walls were tried."""
        if self._isolation is not None:
            missing = (*self._isolation.missing, layer)
            self._isolation = replace(self._isolation, missing=missing)

    async def require_isolation(self) -> Isolation:
        """Return the isolation in force, if model code may run with it.

        Raises:
            IsolationError: the level is below the minimum.
        """
        isolation = await self.isolation()
        if sys.platform == "win32":
            raise IsolationError(
                "model code runs on Windows in the portable sandbox alone, which is not there:"
                f" {'; '.join(isolation.missing)}",
                fix="Install it, or run the server in WSL or in a Linux container.",
            )
        refuse_too_little(isolation, self._min_isolation)
        return isolation

    @asynccontextmanager
    async def open_repl(
        self, source: ContextSource, options: ReplOptions
    ) -> AsyncGenerator[ChildRepl]:
        """Open a REPL over `source`; see `types.Sandbox`.

        Raises:
            IsolationError: the level is below the minimum.
            SandboxError: no process could be started, or the text not loaded.
        """
        async with self:
            isolation = await self.require_isolation()
            if isolation.level == "process" or "seatbelt" in isolation.layers:
                launcher = PlainLauncher(source, options, seatbelt="seatbelt" in isolation.layers)
            else:
                launcher = ForkLauncher(self._warm_process, source, options)
            async with self._open(launcher) as repl:
                yield repl

    @asynccontextmanager
    async def _open(self, launcher: PlainLauncher | ForkLauncher) -> AsyncGenerator[ChildRepl]:
        try:
            async with opened(launcher.launch, launcher.options, self._cores) as repl:
                yield repl
        finally:
            with anyio.CancelScope(shield=True):
                await launcher.release()

    async def _warm_process(self) -> Warm:
        async with self._starting:
            if self._warm is not None and not self._warm.is_alive:
                await self.aclose()
            if self._warm is None:
                self._warm = await start_warm(self._walls, self._keep)
            return self._warm

    async def _find_isolation(self) -> Isolation:
        if sys.platform == "darwin":
            return await self._find_seatbelt()
        if not sys.platform.startswith("linux"):
            return Isolation("process", ("limits",), (f"walls: none for {sys.platform!r}",))
        try:
            warm = await self._warm_process()
            if "seccomp" not in warm.layers:
                return Isolation("process", ("limits",), warm.missing)
            launcher = ForkLauncher(self._warm_process, selftest.TEXT, selftest.OPTIONS)
            async with self._open(launcher) as repl:
                breaches = await selftest.find_breaches(repl, sys.executable)
        except SandboxError as error:
            return without_wall("fork server", error, "limits")
        return _judged(warm, breaches)

    async def _find_seatbelt(self) -> Isolation:
        launcher = PlainLauncher(selftest.TEXT, selftest.OPTIONS, seatbelt=True)
        try:
            async with self._open(launcher) as repl:
                breaches = await selftest.find_breaches(repl, sys.executable, memory=False)
        except SandboxError as error:
            return without_wall("seatbelt", error, "limits")
        if breaches:
            return Isolation("process", ("limits",), as_missing(breaches))
        return Isolation("partial", ("seatbelt", "limits"), ("memory: polled, not limited",))


def without_wall(wall: str, error: SandboxError, *layers: str) -> Isolation:
    """Return what holds where a wall does not stand.

    Raises:
        SandboxError: it could not be tried for a reason that may pass, so that nothing is known.
    """
    if may_pass(error):
        raise error
    return Isolation("process", layers, (f"{wall}: {error.message}",))


def as_missing(breaches: list[str]) -> tuple[str, ...]:
    """Name what a self-test found that model code could do."""
    return tuple(f"self-test: model code was able to {breach}" for breach in breaches)


def _judged(warm: Warm, breaches: list[str]) -> Isolation:
    if breaches:
        return Isolation("process", ("limits",), (*warm.missing, *as_missing(breaches)))
    level: IsolationLevel = (
        "full" if warm.layers and set(warm.layers) >= _FULL_LAYERS else "partial"
    )
    return Isolation(level, (*warm.layers, "limits"), warm.missing)


def refuse_too_little(isolation: Isolation, wanted: IsolationLevel) -> None:
    """Refuse walls that hold less than asked for.

    Raises:
        IsolationError: they do; it names what is missing.
    """
    if RANKS[isolation.level] >= RANKS[wanted]:
        return
    missing = "; ".join(isolation.missing)
    raise IsolationError(
        f"model code does not run here: the isolation level is {isolation.level!r},"
        f" the minimum is {wanted!r}. Missing: {missing}.",
        fix=(
            "Run on Linux 5.13 or later (x86-64 or aarch64) where seccomp, Landlock and user"
            " namespaces are not denied, or install the portable sandbox, which needs none of them:"
            " pip install 'rlm-mcp[portable]'; or, if you accept less, set RLM_MCP_MIN_ISOLATION to"
            f" {isolation.level!r}."
        ),
    )


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
        ours, theirs = socket_pair()
        channel = Channel(ours)
        try:
            text, layout = await write_text(self._source)
        except BaseException:
            channel.close()
            theirs.close()
            raise
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
