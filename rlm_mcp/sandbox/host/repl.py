"""One REPL as the host sees it: cells run in a process that is replaced when it dies."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

import anyio

from rlm_mcp.errors import NotFoundError, SandboxDiedError, SandboxError, WireError
from rlm_mcp.sandbox.host import results
from rlm_mcp.sandbox.host.calls import Clock, Core
from rlm_mcp.sandbox.host.cell import Outcome, RunningCell
from rlm_mcp.sandbox.host.channel import Channel
from rlm_mcp.sandbox.host.process import Process
from rlm_mcp.sandbox.types import CallHandler, CellResult, Variable, VariableText
from rlm_mcp.sandbox.wire import Frame, utf8

ANSWER_SECONDS = 10
MAX_SLICE_CHARS = 4_000_000
MAX_CODE_CHARS = 10_000_000


@dataclass(frozen=True)
class ReplProcess:
    """A process that holds a REPL, and the channel to it."""

    channel: Channel
    process: Process

    async def end(self) -> str:
        """End the process and close the channel; return how the process ended."""
        ended = ""
        with anyio.CancelScope(shield=True):
            self.channel.close()
            ended = await self.process.end()
        return ended  # noqa: RET504  # pyright holds that a cancel scope may swallow a return within


Launch = Callable[[], Awaitable[ReplProcess]]


class ChildRepl:
    """A `Repl` in a process of its own, made by `launch` and made again when it is lost."""

    def __init__(self, launch: Launch, cores: anyio.Semaphore | None = None) -> None:
        self._launch = launch
        self._cores = cores
        self._turn = anyio.Lock(fast_acquire=True)
        self._process: ReplProcess | None = None
        self._numbers = 0
        self._kept = b""
        self._holds_last = False  # whether `_kept` is what the last cell handed over
        self._was_lost = False

    async def start(self) -> None:
        """Start the process if there is none.

        Raises:
            SandboxError: it cannot be started.
        """
        if self._process is None:
            self._process = await self._launch()

    async def close(self) -> str:
        """End the process if there is one; return how it ended."""
        process, self._process = self._process, None
        return await process.end() if process is not None else ""

    async def execute(
        self, code: str, *, timeout_seconds: float, on_call: CallHandler
    ) -> CellResult:
        """Run one cell; see `types.Repl`."""
        if len(code) > MAX_CODE_CHARS:
            return results.refused_result(f"a cell of {len(code):,} characters is too long")
        async with self._turn:
            process = await self._ready()
            self._numbers += 1
            core, holds = Core(self._cores), self._holds_last
            self._holds_last = False
            running = RunningCell(
                process.channel, process.process, self._numbers, core, holds=holds
            )
            clock = Clock(timeout_seconds)
            ended = ""
            try:
                outcome = await running.run(code, on_call, clock)
            finally:
                if running.is_lost:
                    self._was_lost = True
                    ended = await self.close()
            if outcome.done is None:
                return await self._replaced(replace(outcome, lost=outcome.lost or ended), clock)
            return self._result(outcome.done, clock, late=outcome.timed_out)

    def _result(self, done: Frame, clock: Clock, *, late: bool) -> CellResult:
        if not done.fields["known"]:
            self._kept = done.blobs[1]
        self._holds_last = True
        result = results.cell_result(
            done,
            timeout_seconds=clock.limit_seconds,
            used_seconds=clock.used_seconds,
            late=late,
        )
        was_lost, self._was_lost = self._was_lost, False
        return replace(result, lost_variables=True) if was_lost else result

    async def _replaced(self, outcome: Outcome, clock: Clock) -> CellResult:
        self._was_lost = False
        kept = await self._begin_again()
        return results.lost_result(
            outcome.lost,
            kept,
            timeout_seconds=clock.limit_seconds if outcome.timed_out else None,
            used_seconds=clock.used_seconds,
        )

    async def variables(self) -> list[Variable]:
        """List what model code assigned; see `types.Repl`."""
        async with self._turn:
            return results.variables(await self._ask("variables", "list", {}))

    async def read_variable(self, name: str, *, start: int = 0, limit: int = 4000) -> VariableText:
        """Read a slice of one variable; see `types.Repl`."""
        bounds = {"start": max(start, 0), "limit": min(max(limit, 0), MAX_SLICE_CHARS)}
        async with self._turn:
            frame = await self._ask("slice", "read", bounds, utf8(name))
        if not frame.fields["found"]:
            names = ", ".join(frame.text(at) for at in range(min(len(frame.blobs), 30)))
            raise NotFoundError(
                f"no variable is named {name[:100]!r}.",
                fix=f"There are: {names}." if names else "No variables were assigned so far.",
            )
        return results.variable_text(name, frame)

    async def _ask(
        self, answer: str, question: str, fields: Mapping[str, int], *blobs: bytes
    ) -> Frame:
        """Ask the child something between cells.

        Raises:
            SandboxDiedError: it did not answer; it was ended.
        """
        process = await self._ready()
        self._numbers += 1
        ticket = self._numbers
        try:
            with anyio.fail_after(ANSWER_SECONDS):
                await process.channel.send(question, {**fields, "ticket": ticket}, *blobs)
                return await _answer_to(ticket, answer, process.channel)
        except (EOFError, TimeoutError, WireError) as error:
            raise await self._distrust(str(error) or "it did not answer") from error
        except BaseException:  # cancelled: the answer would come to whoever asks next
            await self._lose()
            raise

    async def _ready(self) -> ReplProcess:
        if self._process is None:
            await self._begin_again()
        if self._process is None:
            raise SandboxDiedError("the REPL is closed", fix="Open another one.")
        return self._process

    async def _begin_again(self) -> list[str]:
        """Start a fresh process and put small variables back; return their names.

        Raises:
            SandboxDiedError: none can be had.
        """
        try:
            await self.start()
            return await self._restore()
        except (SandboxError, EOFError, TimeoutError) as error:
            await self.close()
            raise SandboxDiedError(
                f"the REPL is gone and no fresh one could be had: {error!s}",
                fix="Ask again; if it persists, look at what rlm_status says of the sandbox.",
            ) from error

    async def _restore(self) -> list[str]:
        process, kept = self._process, self._kept
        if process is None or not kept:
            return []
        self._kept = b""  # a blob that cannot be opened is not tried twice
        with anyio.fail_after(ANSWER_SECONDS):
            await process.channel.send("restore", {}, kept)
            frame = await process.channel.receive()
        if frame.kind != "restored":
            raise WireError(f"a {frame.kind!r} frame instead of 'restored'")
        self._kept = kept
        return [frame.text(at) for at in range(len(frame.blobs))]

    async def _distrust(self, why: str) -> SandboxDiedError:
        await self._lose()
        return SandboxDiedError(
            f"the REPL was ended: {why}", fix="Run the cell again: a fresh REPL takes its place."
        )

    async def _lose(self) -> None:
        self._was_lost = True
        await self.close()


async def _answer_to(ticket: int, kind: str, channel: Channel) -> Frame:
    while True:
        frame = await channel.receive()
        if frame.kind == kind and frame.fields["ticket"] == ticket:
            return frame
        if frame.kind != "call":  # a call comes from a thread that an earlier cell left behind
            raise WireError(f"a {frame.kind!r} frame instead of {kind!r}")
