"""The calls of a cell, answered by the host; its clock and its core, which stand still for them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import anyio
from anyio.abc import TaskGroup

from rlm_mcp.errors import WireError
from rlm_mcp.sandbox.channel import Channel
from rlm_mcp.sandbox.types import CallHandler, CallName, CallReply, ReplCall
from rlm_mcp.sandbox.wire import Frame, utf8

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


_Job = tuple[int, ReplCall, int]  # the call's number, the call, its bytes


class _Free:
    """A task that has answered its call and waits for another one."""

    def __init__(self) -> None:
        self._given = anyio.Event()
        self._job: _Job | None = None

    def give(self, job: _Job) -> None:
        self._job = job
        self._given.set()

    async def job(self) -> _Job:
        while self._job is None:
            await self._given.wait()
        return self._job


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
    _idle: list[_Free] = field(default_factory=list[_Free])

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
        job = (frame.fields["call"], call, size)
        if self._idle:
            self._idle.pop().give(job)
        else:
            tasks.start_soon(self._answer_calls, job)

    async def _answer_calls(self, job: _Job) -> None:
        """Answer a call, then others: as a rule starting a task costs more than answering."""
        while True:
            await self._answer(*job)
            free = _Free()
            self._idle.append(free)
            job = await free.job()

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
