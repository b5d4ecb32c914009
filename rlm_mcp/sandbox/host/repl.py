"""One REPL as the host sees it: cells run in a process that is replaced when it dies.

Looking at variables costs them nothing: a look that takes too long is interrupted, and its answer,
when it comes, is recognised by its number and dropped.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import anyio

from rlm_mcp.errors import (
    NotFoundError,
    SandboxDiedError,
    SandboxError,
    WireError,
)
from rlm_mcp.sandbox.host import results
from rlm_mcp.sandbox.host.calls import Clock, Core
from rlm_mcp.sandbox.host.cell import Outcome, RunningCell
from rlm_mcp.sandbox.host.repl_process import (
    LOOK_SECONDS,
    SAVE_LOOK_SECONDS,
    ReplProcess,
    answer_to,
    settle,
    stuck,
)
from rlm_mcp.sandbox.types import (
    CallHandler,
    CallName,
    CallReply,
    CellResult,
    LastingVariable,
    ReplCall,
    ReplOptions,
    Variable,
    VariableText,
)
from rlm_mcp.sandbox.wire import MAX_SLICE_CHARS, Frame, utf8
from rlm_mcp.text import NAME_CHARS, names_in_line

ANSWER_SECONDS = 10
SETTLE_SECONDS = 5.0  # for a look that is still going on when the next cell comes
MAX_CODE_CHARS = 10_000_000
MAX_LASTING_IN_ALL_BYTES = 48 << 20  # what one frame can hold beside the names


Launch = Callable[[], Awaitable[ReplProcess]]


class ChildRepl:
    """A `Repl` in a process of its own, started by `launch` and started again when it is lost.

    Args:
        launch: starts a process.
        options: of the REPL; the host refuses calls that they do not allow.
        cores: shared by the cells of all REPLs; None: no limit.
    """

    def __init__(
        self, launch: Launch, options: ReplOptions, cores: anyio.Semaphore | None = None
    ) -> None:
        self._launch = launch
        self._allowed_calls = allowed_calls(options)
        self._cores = cores
        self._turn = anyio.Lock(fast_acquire=True)
        self._process: ReplProcess | None = None
        self._numbers = 0
        self._kept = b""
        self._holds_last = False  # whether `_kept` is what the last cell handed over
        self._was_lost = False
        self._is_paused = False  # between uses
        self._is_over = False

    async def start(self) -> None:
        """Start the process if there is none.

        Raises:
            SandboxError: it cannot be started, or the REPL was left.
        """
        if self._process is None and not self._is_over:
            self._process = await self._launch()
        if self._is_over:
            await self.close()  # it was left meanwhile
            raise SandboxDiedError("the REPL is closed", fix="Open another one.")

    def pause(self) -> None:
        """Stop the process until a cell runs; see `types.Pausable`."""
        self._is_paused = True
        if self._process is not None:
            self._process.process.pause()

    async def leave(self) -> None:
        """End the process for good: what is asked later starts none."""
        self._is_over = True
        await self.close()

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
            self._resume()
            self._is_paused = False
            process = await self._ready_for_cell()
            self._numbers += 1
            core, holds = Core(self._cores), self._holds_last
            self._holds_last = False
            on_call = _only(self._allowed_calls, on_call)
            running = RunningCell(process, self._numbers, core, holds=holds)
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
            return await self._result(outcome.done, clock, late=outcome.timed_out)

    async def _result(self, done: Frame, clock: Clock, *, late: bool) -> CellResult:
        if not done.fields["known"]:
            self._kept = done.blobs[1]
        self._holds_last = True
        result = await results.cell_result(
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
        """List the variables; see `types.Repl`."""
        async with self._turn:
            return results.variables(await self._look_awake("variables", "list", {}))

    async def read_variable(
        self, name: str, *, start: int = 0, limit: int = 4000, whole: bool = False
    ) -> VariableText:
        """Read a slice of one variable; see `types.Repl`."""
        start, limit = max(start, 0), min(max(limit, 0), MAX_SLICE_CHARS)
        fields = {"start": start, "limit": limit, "whole": whole}
        async with self._turn:
            frame = await self._look_awake("slice", "read", fields, utf8(name))
        if not frame.fields["found"]:
            names = names_in_line(results.names(frame))
            raise NotFoundError(
                f"no variable is named {name[:NAME_CHARS]!r}.",
                fix=f"Existing variables: {names}." if names else "No variables were assigned yet.",
            )
        return await results.variable_text(name, frame, start, limit)

    async def keep(self, most_bytes: int, room_bytes: int) -> list[LastingVariable]:
        """Return what variables are kept as; see `types.Lasting`."""
        fields = {"most": most_bytes, "room": min(room_bytes, MAX_LASTING_IN_ALL_BYTES)}
        async with self._turn:
            return results.lasting(await self._look_awake("kept", "keep", fields))

    async def reopen(self, variables: Sequence[LastingVariable]) -> list[str]:
        """Put variables back; see `types.Lasting`."""
        blobs = [part for one in variables for part in (utf8(one.name), one.payload)]
        async with self._turn:
            return results.names(await self._look_awake("reopened", "reopen", {}, *blobs))

    def _resume(self) -> None:
        if self._is_paused and self._process is not None:
            self._process.process.resume()

    async def _look_awake(
        self, answer: str, question: str, fields: Mapping[str, int], *blobs: bytes
    ) -> Frame:
        self._resume()
        try:
            return await self._look(answer, question, fields, *blobs)
        finally:
            if self._is_paused:
                self.pause()

    async def _look(
        self, answer: str, question: str, fields: Mapping[str, int], *blobs: bytes
    ) -> Frame:
        """Ask the child something between cells; a look that is given up takes nothing away.

        Raises:
            SandboxBusyError: this look, or an earlier one, does not end.
            SandboxDiedError: the process is gone.
        """
        process = await self._ready()
        try:
            if not await settle(process, LOOK_SECONDS):
                raise stuck()
            self._numbers += 1
            ticket = self._numbers
            process.late_tickets.add(ticket)  # until it is answered
            with anyio.CancelScope(shield=True):
                await process.channel.send(question, {**fields, "ticket": ticket}, *blobs)
            seconds = SAVE_LOOK_SECONDS if fields.get("whole") else LOOK_SECONDS
            return await answer_to(ticket, answer, process, seconds)
        except (EOFError, WireError) as error:
            raise await self._distrust(str(error) or "it did not answer") from error
        except anyio.get_cancelled_exc_class():
            process.process.interrupt()
            raise

    async def _ready_for_cell(self) -> ReplProcess:
        """Return the process when no look is under way in it; replace it if one does not end."""
        process = await self._ready()
        if not process.late_tickets:
            return process
        try:
            if await settle(process, SETTLE_SECONDS):
                return process
        except (EOFError, WireError):
            pass
        await self._lose()
        return await self._ready()

    async def _ready(self) -> ReplProcess:
        if self._process is None:
            await self._begin_again()
        assert self._process is not None  # noqa: S101  # for the type checker: it was started
        return self._process

    async def _begin_again(self) -> list[str]:
        """Start a fresh process and put small variables back; return their names.

        Raises:
            SandboxDiedError: none could be started.
        """
        try:
            await self.start()
            with suppress(EOFError, TimeoutError, WireError):
                return await self._restore()
            await self.close()  # what was kept cannot be opened: continue without it
            await self.start()
        except (SandboxError, EOFError, TimeoutError) as error:
            await self.close()
            if self._is_over:
                raise
            raise SandboxDiedError(
                f"the REPL ended, and a new one could not be started: {error!s}",
                fix="Ask again; if it persists, check the sandbox with rlm_status.",
            ) from error
        return []

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
        return results.names(frame)

    async def _distrust(self, why: str) -> SandboxDiedError:
        await self._lose()
        return SandboxDiedError(
            f"the REPL was ended: {why}", fix="Run the cell again: a fresh REPL takes its place."
        )

    async def _lose(self) -> None:
        self._was_lost = True
        await self.close()


@asynccontextmanager
async def opened(
    launch: Launch, options: ReplOptions, cores: anyio.Semaphore | None = None
) -> AsyncGenerator[ChildRepl]:
    """Start a REPL, and close it at the end, however that comes.

    Raises:
        SandboxError: no process could be started, or the text not loaded.
    """
    repl = ChildRepl(launch, options, cores)
    try:
        await repl.start()
        yield repl
    finally:
        with anyio.CancelScope(shield=True):
            await repl.leave()


def allowed_calls(options: ReplOptions) -> frozenset[CallName]:
    """Return the calls that a REPL with these options may make."""
    names: dict[CallName, bool] = {
        "llm_query": options.sub_calls,
        "typed_query": options.sub_calls,
        "rlm_query": options.recursion,
        "budget": True,
    }
    return frozenset(name for name, is_allowed in names.items() if is_allowed)


def _only(allowed: frozenset[CallName], on_call: CallHandler) -> CallHandler:
    """Refuse other calls: a REPL can send any frame, whatever names its code was given."""

    async def answer(call: ReplCall) -> CallReply:
        if call.name in allowed:
            return await on_call(call)
        return CallReply(error=f"{call.name} is turned off for this run")

    return answer
