"""The calls of a cell, answered by the host; its clock and its core, both paused meanwhile."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from rlm_mcp.errors import WireError
from rlm_mcp.sandbox.host.channel import Channel
from rlm_mcp.sandbox.types import CallHandler, CallName, CallReply, ReplCall
from rlm_mcp.sandbox.wire import MAX_NAME_BYTES, Frame, encode, utf8

CALL_SECONDS = 0.0002
CORE_PATIENCE_SECONDS = 0.25
LOOK_SECONDS = 0.05
MAX_IN_FLIGHT = 1024
MAX_IN_FLIGHT_BYTES = 128 << 20
CALL_NAMES: dict[str, CallName] = {
    "llm_query": "llm_query",
    "typed_query": "typed_query",
    "rlm_query": "rlm_query",
    "budget": "budget",
}


@dataclass
class Clock:
    """Counts the seconds a cell works, without those it waits for calls.

    Each call costs a little, about the host's work on it, so that a cell that floods the host with
    calls runs out of time.
    """

    limit_seconds: float
    used_seconds: float = 0.0
    _since: float | None = None

    def start(self) -> None:
        """Start or resume."""
        if self._since is None:
            self._since = anyio.current_time()

    def stop(self) -> None:
        """Pause."""
        if self._since is not None:
            self.used_seconds += anyio.current_time() - self._since
            self._since = None

    @property
    def left_seconds(self) -> float:
        """The seconds that are left."""
        running = 0.0 if self._since is None else anyio.current_time() - self._since
        return self.limit_seconds - self.used_seconds - running

    @property
    def is_over(self) -> bool:
        """Whether no time is left."""
        return self.left_seconds <= 0.001  # a rounding error early

    async def end_in_time(self, scope: anyio.CancelScope) -> None:
        """Cancel a scope when no time is left.

        It polls: moving a deadline at every call would cost more than the rest of a call.
        """
        while not self.is_over:  # noqa: ASYNC110  # nothing signals when a clock has run out
            await anyio.sleep(max(self.left_seconds, LOOK_SECONDS))
        scope.cancel()

    def charge(self) -> None:
        """Count one call."""
        self.used_seconds += CALL_SECONDS


@dataclass
class Core:
    """A cell's share of the cores; released while it waits for calls.

    A cell that has waited long runs without one: cells that spin must not starve the others.
    """

    cores: anyio.Semaphore | None
    _is_held: bool = False

    async def acquire(self) -> None:
        """Wait for a core, for a limited time."""
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

    def release(self) -> None:
        """Release the core."""
        if self.cores is not None and self._is_held:
            self._is_held = False
            self.cores.release()


_Job = tuple[int, ReplCall, int]  # the call's number, the call, its bytes


@dataclass
class Calls:
    """The calls of one cell that are in flight; bounded in number and in bytes."""

    channel: Channel
    on_call: CallHandler
    clock: Clock
    core: Core
    _count: int = 0
    _bytes: int = 0
    _room: anyio.Event | None = None
    _jobs: deque[_Job] = field(default_factory=deque[_Job])
    _given: anyio.Semaphore = field(default_factory=lambda: anyio.Semaphore(0, fast_acquire=True))
    _idle: int = 0  # tasks that wait for a job
    _replies: list[bytes] = field(default_factory=list[bytes])

    async def start(self, frame: Frame, tasks: TaskGroup) -> None:
        """Start a call; waits while too many are in flight, so that the child waits too.

        Raises:
            WireError: the call is not valid.
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
        self.core.release()
        self._jobs.append((frame.fields["call"], call, size))
        if self._idle:
            self._idle -= 1
        else:
            tasks.start_soon(self._answer_calls)
        self._given.release()

    async def _answer_calls(self) -> None:
        """Answer a call, then others: starting a task usually costs more than answering."""
        while True:
            await self._given.acquire()
            await self._answer(*self._jobs.popleft())
            self._idle += 1

    async def _answer(self, number: int, call: ReplCall, size: int) -> None:
        reply = await self.on_call(call)
        self._count -= 1
        self._bytes -= size
        if self._room is not None:
            self._room.set()
        if not self._count:
            await self.core.acquire()
        if not self._count:
            self.clock.start()
        else:  # another thread of the cell called meanwhile
            self.core.release()
        await self._send(reply_frame(number, reply))

    async def _send(self, frame: bytes) -> None:
        """Send a reply, together with those of the same iteration of the event loop."""
        try:
            if not self._count:
                await self.channel.send_frames(frame)
                return
            self._replies.append(frame)
            if len(self._replies) == 1:  # the first sends for all
                await anyio.lowlevel.checkpoint()
                frames, self._replies = b"".join(self._replies), []
                await self.channel.send_frames(frames)
        except EOFError:  # the receiving task sees the same, and handles it
            return


def reply_frame(number: int, reply: CallReply) -> bytes:
    """Encode the reply to a call; if it is too large, a failure that says so."""
    ok = reply.error is None
    text = utf8(reply.text if reply.error is None else reply.error)
    try:
        return encode("reply", {"call": number, "ok": ok}, text)
    except ValueError as error:
        return encode("reply", {"call": number, "ok": False}, utf8(str(error)))


def read_call(frame: Frame) -> ReplCall:
    """Decode a `call` frame.

    Raises:
        WireError: its name is unknown, or a text is missing.
    """
    fields = frame.fields
    name = CALL_NAMES.get(fields["name"])
    texts = [frame.text(index) for index in range(len(frame.blobs))]
    if name is None or (fields["has_model"] and len(texts) < 2):
        raise WireError(f"a call of {fields['name']!r} with {len(texts)} texts")
    if fields["has_model"] and len(frame.blobs[1]) > MAX_NAME_BYTES:
        raise WireError(f"a call whose model's name has {len(frame.blobs[1]):,} bytes")
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
