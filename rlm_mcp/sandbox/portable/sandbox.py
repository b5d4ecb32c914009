"""The portable sandbox: REPLs in WebAssembly, wherever wasmtime runs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
from anyio import to_thread

from rlm_mcp.errors import SandboxError, may_pass
from rlm_mcp.sandbox.host import selftest
from rlm_mcp.sandbox.host.repl import ChildRepl, ReplProcess, opened
from rlm_mcp.sandbox.host.room import Room
from rlm_mcp.sandbox.host.sandbox import Held, as_missing, refuse_too_little, without_wall
from rlm_mcp.sandbox.portable.launcher import (
    PortableLauncher,
    PortableProcess,
    second_layer,
    start_process,
)
from rlm_mcp.sandbox.portable.module import PythonModule, compile_once, find_module
from rlm_mcp.sandbox.portable.text import check_size, lay_out
from rlm_mcp.sandbox.types import ContextSource, Isolation, ReplOptions
from rlm_mcp.values import IsolationLevel

# What is put round the process from outside; on Linux it does all by itself.
HOST_LAYERS = {"darwin": "seatbelt", "win32": "job"}
REPL_BYTES = 100 << 20  # what a REPL takes beside its text, its checkpoint included


NOTE = """
## This Python
The REPL runs in WebAssembly, without real threads: an executor runs your own functions one \
after another, so send many calls with `llm_query_batch`. There is no numpy, bz2, \
lzma, ssl or ctypes.
"""


class PortableSandbox(Held):
    """A `Sandbox` whose REPLs are WebAssembly instances, each in a process of its own.

    Args:
        min_isolation: below this level no REPL opens.
        cores: cells that run at once; None for as many as there are cores.
        isolation: what another sandbox of this process found; None tries it.
        room: what all REPLs together may take of memory; None for most of the machine's.
        keep_ready: whether a process is started beforehand for the next REPL.
        layer: what is put round each process, `seatbelt` or `job`, or nothing; None for what this
            platform has.

    Within `async with` such a process is kept ready. It belongs to one event loop.
    """

    def __init__(
        self,
        *,
        min_isolation: IsolationLevel = "partial",
        cores: int | None = None,
        isolation: Isolation | None = None,
        room: Room | None = None,
        keep_ready: bool = True,
        layer: str | None = None,
    ) -> None:
        self._min_isolation: IsolationLevel = min_isolation
        self._cores = anyio.Semaphore(cores or os.cpu_count() or 1, fast_acquire=True)
        self._room = room or Room()
        self._keep_ready = keep_ready
        self._preparing, self._testing, self._taking = anyio.Lock(), anyio.Lock(), anyio.Lock()
        self._module: PythonModule | None = None
        self._isolation = isolation
        self._layer = HOST_LAYERS.get(sys.platform, "") if layer is None else layer
        if isolation is not None and self._layer not in isolation.layers:
            self._layer = ""  # it was found not to work
        self._spare: ReplProcess | None = None

    @property
    def note(self) -> str:
        """What a model must know of this Python; see `types.Particular`."""
        return NOTE

    def check(self, source: ContextSource) -> None:
        """Refuse a text that no REPL can hold; see `types.Particular`.

        Raises:
            TooLargeError: it is too large.
        """
        check_size(sum(source.byte_lengths))

    async def aclose(self) -> None:
        """End the process that was kept ready; the sandbox may be used again."""
        spare, self._spare = self._spare, None
        if spare is not None:
            with anyio.CancelScope(shield=True):
                await spare.end()

    async def prepare(self) -> PythonModule:
        """Find the module, and compile it for this machine where that was not done.

        Raises:
            SandboxError: something is not installed, or cannot be compiled.
        """
        async with self._preparing:
            if self._module is None:
                module = await to_thread.run_sync(find_module)
                await compile_once(module)
                self._module = module
            return self._module

    async def isolation(self) -> Isolation:
        """Say what the wall holds; see `types.Sandbox`. Tried once, in a real REPL."""
        async with self._testing:
            if self._isolation is None:
                self._isolation = await self._find_isolation()
            return self._isolation

    async def require_isolation(self) -> Isolation:
        """Say what the wall holds, if that is enough for model code to run.

        Raises:
            SandboxError: it cannot be tried, since something is not installed.
            IsolationError: it is less than the least that is allowed.
        """
        await self.prepare()
        isolation = await self.isolation()
        refuse_too_little(isolation, self._min_isolation)
        return isolation

    @asynccontextmanager
    async def open_repl(
        self, source: ContextSource, options: ReplOptions
    ) -> AsyncGenerator[ChildRepl]:
        """Open a REPL over `source`; see `types.Sandbox`.

        Raises:
            IsolationError: the wall does not stand here.
            TooLargeError: the text is larger than this wall can hold.
            SandboxError: no process could be started, or none can hold the text.
        """
        await self.require_isolation()
        laid = await lay_out(source)
        async with self._room.taken(REPL_BYTES + laid[0].held_bytes):
            launcher = PortableLauncher(self._take_process, source, options, laid)
            async with opened(launcher.launch, options, self._cores) as repl:
                yield repl

    async def _take_process(self) -> ReplProcess:
        """Take the process that is kept ready, or start one; have the next one start."""
        async with self._taking:
            spare, self._spare = self._spare, None
            if spare is not None and not _is_alive(spare):
                await spare.end()
                spare = None
            module = await self.prepare()
            taken = spare or await start_process(module, self._layer)
            if self._holders and self._keep_ready:
                self._spare = await start_process(module, self._layer)
            return taken

    async def _find_isolation(self) -> Isolation:
        try:
            module = await self.prepare()
            try:
                return await _tried(module, self._layer)
            except SandboxError as error:
                if not self._layer or may_pass(error):
                    raise
                missing = f"{self._layer}: {error.message}"
            # The wall holds without its second layer, whose absence is reported.
            self._layer = ""
            found = await _tried(module, "")
            return replace(found, missing=(*found.missing, missing))
        except SandboxError as error:
            return without_wall("wasm", error)


async def _tried(module: PythonModule, layer: str) -> Isolation:
    """Open a REPL as any other, let it try the wall, and ask its process what else holds."""
    started: list[ReplProcess] = []
    laid = await lay_out(selftest.TEXT)

    async def start() -> ReplProcess:
        started.append(await start_process(module, layer, subprocess.PIPE))
        return started[-1]

    launcher = PortableLauncher(start, selftest.TEXT, selftest.OPTIONS, laid)
    async with opened(launcher.launch, launcher.options) as repl:
        layers, missing = await second_layer(started[0])
        breaches = await selftest.find_breaches(repl, sys.executable)
    if breaches:
        return Isolation("process", (), (*missing, *as_missing(breaches)))
    around = (layer,) if layer else ()
    return Isolation("partial", ("wasm", *around, *layers, "limits"), missing)


def _is_alive(repl_process: ReplProcess) -> bool:
    return isinstance(repl_process.process, PortableProcess) and repl_process.process.is_alive
