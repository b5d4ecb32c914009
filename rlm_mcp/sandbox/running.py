"""One cell while it runs: its clock, the calls it makes, and how it is stopped."""

from __future__ import annotations

import math
import secrets
from contextlib import suppress
from dataclasses import dataclass

import anyio
from anyio.abc import TaskGroup

from rlm_mcp.errors import WireError
from rlm_mcp.sandbox.channel import Channel
from rlm_mcp.sandbox.process import Process
from rlm_mcp.sandbox.types import CallHandler, CallName, CallReply, ReplCall
from rlm_mcp.sandbox.wire import MAX_NUMBER, Frame, utf8

GRACE_SECONDS = 1.0
CALL_SECONDS = 0.0002
CORE_PATIENCE_SECONDS = 0.25
MAX_IN_FLIGHT = 1024
MAX_IN_FLIGHT_BYTES = 128 << 20
CALL_NAMES: dict[str, CallName] = {
    "llm_query": "llm_query",
    "rlm_query": "rlm_query",
    "budget": "budget",
}


@dataclass
class Clock:
    """Counts the seconds a cell works, which leave out those it waits for calls.

    The scope handed to `watch` is cancelled when they are used up. Each call costs a little, about
    what the host's work on it takes: a cell that floods the host with calls works, and waits never.
    """

    limit_seconds: float
    used_seconds: float = 0.0
    _since: float | None = None
    _scope: anyio.CancelScope | None = None

    def watch(self, scope: anyio.CancelScope) -> None:
        """Let `scope` end with the time."""
        self._scope = scope
        self.start()

    def start(self) -> None:
        """Go on."""
        if self._since is None:
            self._since = anyio.current_time()
        if self._scope is not None:
            self._scope.deadline = self._since + self.limit_seconds - self.used_seconds

    def stop(self) -> None:
        """Stand still."""
        if self._since is not None:
            self.used_seconds += anyio.current_time() - self._since
            self._since = None
        if self._scope is not None:
            has_time = self.used_seconds < self.limit_seconds
            self._scope.deadline = math.inf if has_time else -math.inf

    @property
    def is_over(self) -> bool:
        """Whether the seconds are used up."""
        running = 0.0 if self._since is None else anyio.current_time() - self._since
        return self.used_seconds + running >= self.limit_seconds - 0.001  # a rounding error early

    def charge(self) -> None:
        """Count one call."""
        self.used_seconds += CALL_SECONDS


@dataclass
class Core:
    """A cell's claim to one of the cores, which cells share; given back while it waits for calls.

    A cell that waits long for one goes on without: those that spin must not starve the others.
    """

    cores: anyio.Semaphore | None
    _is_held: bool = False

    async def take(self) -> None:
        """Wait for a core, for a while."""
        if self.cores is None or self._is_held:
            return
        try:
            self.cores.acquire_nowait()
        except anyio.WouldBlock:
            with anyio.move_on_after(CORE_PATIENCE_SECONDS):
                await self.cores.acquire()
                self._is_held = True
        else:
            self._is_held = True

    def give_back(self) -> None:
        """Let another cell have it."""
        if self.cores is not None and self._is_held:
            self._is_held = False
            self.cores.release()


@dataclass
class Calls:
    """The calls of one cell that are on their way; bounded in number and in bytes."""

    channel: Channel
    on_call: CallHandler
    clock: Clock
    core: Core
    _count: int = 0
    _bytes: int = 0
    _room: anyio.Event | None = None

    async def take(self, frame: Frame, tasks: TaskGroup) -> None:
        """Start a call; waits while too many are on their way, so that the child waits too.

        Raises:
            WireError: the call is none of those there are.
        """
        call = read_call(frame)
        size = sum(map(len, frame.blobs))
        while self._count >= MAX_IN_FLIGHT or (
            self._count and self._bytes + size > MAX_IN_FLIGHT_BYTES
        ):
            self._room = anyio.Event()
            await self._room.wait()
        self._count += 1
        self._bytes += size
        self.clock.charge()
        self.clock.stop()
        self.core.give_back()
        tasks.start_soon(self._answer, frame.fields["call"], call, size)

    async def _answer(self, number: int, call: ReplCall, size: int) -> None:
        reply = await self.on_call(call)
        self._count -= 1
        self._bytes -= size
        if self._room is not None:
            self._room.set()
        if not self._count:
            await self.core.take()
        if not self._count:
            self.clock.start()
        else:  # another thread of the cell called meanwhile
            self.core.give_back()
        await self._send(number, reply)

    async def _send(self, number: int, reply: CallReply) -> None:
        ok = reply.error is None
        text = utf8(reply.text if reply.error is None else reply.error)
        try:
            await self.channel.send("reply", {"call": number, "ok": ok}, text)
        except ValueError as error:
            fields = {"call": number, "ok": False}
            await self.channel.send("reply", fields, utf8(str(error)))
        except EOFError:  # whoever receives learns that too, and deals with it
            return


def read_call(frame: Frame) -> ReplCall:
    """Read a `call` frame.

    Raises:
        WireError: it names no call there is, or lacks a text.
    """
    fields = frame.fields
    name = CALL_NAMES.get(fields["name"])
    texts = [frame.text(index) for index in range(len(frame.blobs))]
    if name is None or (fields["has_model"] and len(texts) < 2):
        raise WireError(f"a call of {fields['name']!r} with {len(texts)} texts")
    first_document = 2 if fields["has_model"] else 1
    return ReplCall(
        name=name,
        prompt=texts[0],
        model=texts[1] if fields["has_model"] else None,
        documents=tuple(texts[first_document:]),
        is_list=fields["is_list"],
        batch_id=fields["batch"],
        batch_size=fields["size"],
    )


@dataclass(frozen=True)
class Outcome:
    """How a cell ended: its `done` frame, or None when its process is lost, and what is known."""

    done: Frame | None = None
    lost: str = ""
    timed_out: bool = False


class Running:
    """Runs one cell to its end, whatever that is.

    `is_lost` says, after `run` was cancelled too, that the process is of no more use.
    """

    def __init__(self, channel: Channel, process: Process, number: int, core: Core) -> None:
        self._channel = channel
        self._process = process
        self._number = number
        # Not to be guessed, so that no frame sent before the cell can pass for its end.
        self._cell = secrets.randbelow(MAX_NUMBER)
        self._core = core
        self._is_sent = False
        self._is_interrupted = False
        self._is_stopped = False
        self.is_lost = False

    async def run(self, code: str, on_call: CallHandler, clock: Clock) -> Outcome:
        """Send the cell and serve it until it is done, out of time, or its process is gone."""
        calls = Calls(self._channel, on_call, clock, self._core)
        try:
            outcome = await self._to_the_end(utf8(code), calls)
        except BaseException:
            await self._stop()
            raise
        finally:
            clock.stop()
            self._core.give_back()
        self.is_lost = outcome.done is None
        return outcome

    async def _to_the_end(self, code: bytes, calls: Calls) -> Outcome:
        timed_out = False
        await self._core.take()
        try:
            fields = {"cell": self._cell, "number": self._number}
            self._is_sent = True
            await self._channel.send("exec", fields, code, patience_seconds=GRACE_SECONDS)
            calls.clock.start()
            first = self._channel.receive_now()  # short cells end before their sending returns
            if first is not None and first.kind == "done" and self._is_ours(first):
                return Outcome(first)
            with anyio.CancelScope() as time:
                calls.clock.watch(time)
                return Outcome(await self._serve(calls, first))
            timed_out = True
            for interrupt in (self._interrupt, self._process.interrupt):
                interrupt()
                with anyio.move_on_after(GRACE_SECONDS / 2):
                    return Outcome(await self._serve(calls), timed_out=True)
            self._process.kill()
        except EOFError:
            return Outcome(timed_out=timed_out)
        except WireError as error:
            self._process.kill()
            return Outcome(lost=f"it broke the protocol: {error.message}")
        return Outcome(lost="it ignored the interrupt", timed_out=True)

    async def _serve(self, calls: Calls, first: Frame | None = None) -> Frame:
        """Take frames until the cell is done; most cells make no call and need no tasks."""
        if self._process.is_watched and first is None:
            return await self._serve_calls(None, calls)
        frame = await self._next(first)
        return frame if frame.kind == "done" else await self._serve_calls(frame, calls)

    async def _serve_calls(self, call: Frame | None, calls: Calls) -> Frame:
        """Go on with a cell that has made a call, until it is done; its calls end with it."""
        done: Frame | None = None
        try:
            async with anyio.create_task_group() as tasks:
                if self._process.is_watched:
                    tasks.start_soon(self._process.watch)
                try:
                    while done is None:
                        if call is not None:
                            await calls.take(call, tasks)
                        frame = await self._next()
                        call, done = (None, frame) if frame.kind == "done" else (frame, None)
                except BaseException:
                    # Here, where replies still flow: a frame that is half sent must get through.
                    if not calls.clock.is_over:
                        await self._stop()
                    self._interrupt()
                    raise
                tasks.cancel_scope.cancel()
        except ExceptionGroup as group:  # a handler of calls failed: its error without the wrapping
            raise group.exceptions[0] from None
        assert done is not None  # noqa: S101  # for the type checker: no other way leads here
        return done

    def _is_ours(self, frame: Frame) -> bool:
        return frame.kind in ("done", "call") and frame.fields["cell"] == self._cell

    async def _next(self, first: Frame | None = None) -> Frame:
        """Receive the end of this cell or a call of it; what else there is breaks the protocol."""
        while True:
            frame = first or await self._channel.receive()
            first = None
            if self._is_ours(frame):
                return frame
            # A call of another cell comes from a thread that an earlier one left behind.
            if frame.kind != "call":
                raise WireError(f"a {frame.kind!r} frame that does not belong to the cell")

    def _interrupt(self) -> None:
        """Interrupt the cell, unless that was done: another would hit it cleaning up."""
        if not self._is_interrupted:
            self._is_interrupted = True
            self._process.interrupt()

    async def _stop(self) -> None:
        """End the cell because nobody waits for it any more: interrupt, then kill."""
        if self._is_stopped or not self._is_sent:
            return
        self._is_stopped = True
        # The second reaches a cell that had not begun when the first came, or swallowed it.
        for interrupt in (self._interrupt, self._process.interrupt):
            interrupt()
            with anyio.move_on_after(GRACE_SECONDS / 2, shield=True), suppress(EOFError, WireError):
                while (await self._next()).kind != "done":
                    pass
                return
        self.is_lost = True
        self._process.kill()
