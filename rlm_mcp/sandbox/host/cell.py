"""One cell while it runs, and how it is stopped."""

from __future__ import annotations

import math
import secrets
from contextlib import suppress
from dataclasses import dataclass

import anyio

from rlm_mcp.errors import WireError, first_of
from rlm_mcp.sandbox.host.calls import Calls, Clock, Core
from rlm_mcp.sandbox.host.process import GRACE_SECONDS
from rlm_mcp.sandbox.host.repl_process import ReplProcess
from rlm_mcp.sandbox.types import CallHandler
from rlm_mcp.sandbox.wire import NUMBER_BITS, Frame, utf8


@dataclass(frozen=True)
class Outcome:
    """How a cell ended: its `done` frame, or None and the reason if its process is lost."""

    done: Frame | None = None
    lost: str = ""
    timed_out: bool = False


class RunningCell:
    """Runs one cell until it ends, in whatever way.

    `is_lost`: the process cannot be used any more; valid after `run` was cancelled, too.
    """

    def __init__(self, process: ReplProcess, number: int, core: Core, *, holds: bool) -> None:
        self._channel = process.channel
        self._process = process.process
        self._late_tickets = process.late_tickets
        self._number = number
        # Random, so that no frame sent before the cell can be taken for its end.
        self._cell = secrets.randbits(NUMBER_BITS)
        self._core = core
        self._holds = holds
        self._time: anyio.CancelScope | None = None  # ends when the cell's time is over
        self._is_sent = False
        self._is_interrupted = False
        self._is_stopped = False
        self.is_lost = False

    async def run(self, code: str, on_call: CallHandler, clock: Clock) -> Outcome:
        """Send the cell and serve it until it is done, its time is over, or its process is gone."""
        calls = Calls(self._channel, on_call, clock, self._core)
        try:
            outcome = await self._run_to_end(utf8(code), calls)
        except BaseException:
            await self._stop()
            raise
        finally:
            clock.stop()
            self._core.release()
        self.is_lost = outcome.done is None
        return outcome

    async def _run_to_end(self, code: bytes, calls: Calls) -> Outcome:
        timed_out = False
        await self._core.acquire()
        try:
            fields = {"cell": self._cell, "number": self._number, "holds": self._holds}
            self._is_sent = True
            await self._channel.send("exec", fields, code, patience_seconds=GRACE_SECONDS)
            calls.clock.start()
            first = self._channel.receive_now()  # short cells end before sending returns
            if first is not None and first.kind == "done" and self._is_ours(first):
                return Outcome(first)
            with anyio.move_on_after(calls.clock.left_seconds) as time:
                self._time = time
                return Outcome(await self._serve(calls, first))
            self._time = None
            timed_out = True
            for interrupt in (self._interrupt, self._process.interrupt):
                interrupt()
                with anyio.move_on_after(self._process.grace_seconds / 2):
                    return Outcome(await self._serve(calls), timed_out=True)
            self._process.kill()
        except EOFError:
            return Outcome(timed_out=timed_out)
        except WireError as error:
            self._process.kill()
            return Outcome(lost=f"it broke the protocol: {error.message}")
        return Outcome(lost="it ignored the interrupt", timed_out=True)

    async def _serve(self, calls: Calls, first: Frame | None = None) -> Frame:
        """Receive frames until the cell is done; most cells make no call and need no tasks."""
        if self._process.is_watched and first is None:
            return await self._serve_calls(None, calls)
        frame = await self._next(first)
        return frame if frame.kind == "done" else await self._serve_calls(frame, calls)

    async def _serve_calls(self, call: Frame | None, calls: Calls) -> Frame:
        """Serve a cell that has made a call until it is done; its calls are cancelled with it."""
        done: Frame | None = None
        try:
            async with anyio.create_task_group() as tasks:
                if self._process.is_watched:
                    tasks.start_soon(self._process.watch)
                if self._time is not None:  # its clock is paused at times from now on
                    self._time.deadline = math.inf
                    tasks.start_soon(calls.clock.end_in_time, self._time)
                try:
                    while done is None:
                        if call is not None:
                            await calls.start(call, tasks)
                        frame = await self._next(is_soon=call is not None)
                        call, done = (None, frame) if frame.kind == "done" else (frame, None)
                except BaseException:
                    # Here, while replies are still sent: a half-sent frame must be completed.
                    if not calls.clock.is_over:
                        await self._stop()
                    self._interrupt()
                    raise
                tasks.cancel_scope.cancel()
        except (
            ExceptionGroup
        ) as group:  # a handler of calls failed: raise its error without the group
            raise first_of(group) from None
        assert done is not None  # noqa: S101  # for the type checker: it is always set here
        return done

    def _is_ours(self, frame: Frame) -> bool:
        return frame.kind in ("done", "call") and frame.fields["cell"] == self._cell

    async def _next(self, first: Frame | None = None, *, is_soon: bool = False) -> Frame:
        """Receive the end of this cell or a call of it; anything else breaks the protocol."""
        while True:
            frame = first or await self._channel.receive(is_soon=is_soon)
            first = None
            if self._is_ours(frame):
                return frame
            # A call of another cell comes from a thread that an earlier cell started.
            if frame.kind != "call" and not self._is_late(frame):
                raise WireError(f"a {frame.kind!r} frame that does not belong to the cell")

    def _is_late(self, frame: Frame) -> bool:
        """Return whether a frame answers a look that was given up, which happens once."""
        ticket = frame.fields.get("ticket")
        is_late = ticket in self._late_tickets
        self._late_tickets.discard(ticket or 0)
        return is_late

    def _interrupt(self) -> None:
        """Interrupt the cell once: a second interrupt would hit it cleaning up."""
        if not self._is_interrupted:
            self._is_interrupted = True
            self._process.interrupt()

    async def _stop(self) -> None:
        """End a cell that nobody waits for any more: interrupt, then kill."""
        if self._is_stopped or not self._is_sent:
            return
        self._is_stopped = True
        # The second is for a cell that had not begun when the first came, or that caught it.
        for interrupt in (self._interrupt, self._process.interrupt):
            interrupt()
            grace = anyio.move_on_after(self._process.grace_seconds / 2, shield=True)
            with grace, suppress(EOFError, WireError):
                while (await self._next()).kind != "done":
                    pass
                return
        self.is_lost = True
        self._process.kill()
