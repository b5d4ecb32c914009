"""All that the module may call. WASI is not linked: each function is defined here, or refuses.

A refusal ends the instance. Arguments come from code that nobody vouches for: every pointer and
length is checked by `Memory`, every handle is looked up.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from typing import Any, Protocol

from rlm_mcp.sandbox.portable.process.memory import GuestError, Memory
from rlm_mcp.sandbox.wire import MAX_BLOB_BYTES, MAX_JSON_BYTES

MAX_FRAMES_BYTES = MAX_BLOB_BYTES + MAX_JSON_BYTES + 8
MAX_RANDOM_BYTES = 1 << 20
MAX_POLLED = 1000
MAX_TIMERS = 10_000
MAX_SLEEP_SECONDS = 3600.0
_ALL_BITS = (1 << 64) - 1
_ACCESS_DENIED = bytes((1, 0, 0, 0, 1, 0, 0, 0))
_CLOSED = bytes((1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0))
_NO_ITEMS = struct.pack("<II", 4, 0)
_RESOLUTION_NANOSECONDS = 1_000_000


class Outside(Protocol):
    """What is around the instance."""

    def send(self, frames: bytes) -> None:
        """Hand frames to the host."""
        ...

    def receive(self) -> bytes:
        """Wait for a frame of the host; empty where an interrupt came."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait, or until an interrupt comes."""
        ...


class Imports:
    """The functions that an instance is given."""

    def __init__(self, outside: Outside, allocate: Callable[[int, int], int]) -> None:
        self._outside = outside
        self._allocate = allocate  # alignment and size to a place in the guest
        self._timers: dict[int, int] = {}  # handle to when it is over
        self._last_timer = 0
        self.memory: Memory | None = None  # None until the instance is made, which calls nothing
        self._handlers = self._functions()

    def handler(self, name: str) -> Callable[..., Any]:
        """Return the function of an import's name."""
        found = self._handlers.get(name)
        return found if found is not None else _refusal(name)

    def _functions(self) -> dict[str, Callable[..., Any]]:
        streams, clocks = "wasi:io/streams:[method]", "wasi:clocks/"
        return {
            "send": self._send,
            "receive": self._receive,
            "adapter:reset_adapter_state": lambda: None,
            "resource-drop": lambda _handle: None,  # pyright: ignore[reportUnknownLambdaType]  # any number
            "wasi:cli/environment:get-environment": self._writes(_NO_ITEMS),
            "wasi:cli/environment:get-arguments": self._writes(_NO_ITEMS),
            "wasi:filesystem/preopens:get-directories": self._writes(_NO_ITEMS),
            "wasi:cli/stdin:get-stdin": lambda: 1,
            "wasi:cli/stdout:get-stdout": lambda: 2,
            "wasi:cli/stderr:get-stderr": lambda: 3,
            "wasi:cli/terminal-stdin:get-terminal-stdin": self._writes(bytes(8)),
            "wasi:cli/terminal-stdout:get-terminal-stdout": self._writes(bytes(8)),
            "wasi:cli/terminal-stderr:get-terminal-stderr": self._writes(bytes(8)),
            f"{streams}input-stream.read": self._writes(_CLOSED),
            f"{streams}input-stream.subscribe": self._ready_now,
            f"{streams}output-stream.check-write": self._writes(struct.pack("<QQ", 0, 4096)),
            f"{streams}output-stream.write": self._writes(bytes(12)),  # into nothing
            f"{streams}output-stream.blocking-flush": self._writes(bytes(12)),
            f"{streams}output-stream.subscribe": self._ready_now,
            f"{clocks}monotonic-clock:now": time.monotonic_ns,
            f"{clocks}monotonic-clock:resolution": lambda: _RESOLUTION_NANOSECONDS,
            f"{clocks}monotonic-clock:subscribe-duration": self._timer_in,
            f"{clocks}monotonic-clock:subscribe-instant": self._timer_at,
            f"{clocks}wall-clock:now": self._wall_clock,
            f"{clocks}wall-clock:resolution": self._writes(
                struct.pack("<QII", 0, _RESOLUTION_NANOSECONDS, 0)
            ),
            "wasi:io/poll:[method]pollable.block": lambda handle: self._sleep_until([handle]),  # pyright: ignore[reportUnknownLambdaType]  # any number
            "wasi:io/poll:poll": self._poll,
            "wasi:random/random:get-random-bytes": self._random,
            "wasi:sockets/instance-network:instance-network": lambda: 4,
            "wasi:sockets/udp-create-socket:create-udp-socket": self._writes(_ACCESS_DENIED),
            "wasi:sockets/tcp-create-socket:create-tcp-socket": self._writes(_ACCESS_DENIED),
            "wasi:sockets/ip-name-lookup:resolve-addresses": self._writes(_ACCESS_DENIED),
        }

    @property
    def _mem(self) -> Memory:
        if self.memory is None:
            raise GuestError("it called out before it was made")
        return self.memory

    def _writes(self, data: bytes) -> Callable[..., None]:
        """Make a function that answers the same to everything, into its last argument."""

        def answer(*arguments: int) -> None:
            self._mem.write(arguments[-1], data)

        return answer

    def _send(self, place: int, length: int) -> None:
        length &= 0xFFFFFFFF
        if length > MAX_FRAMES_BYTES:
            raise GuestError(f"it sent {length} bytes at once")
        self._outside.send(self._mem.read(place, length))

    def _receive(self, result: int) -> None:
        self._mem.address(result, 8)
        self._give(result, self._outside.receive())

    def _give(self, result: int, data: bytes) -> None:
        """Put bytes into the guest's memory, and tell it where."""
        place = self._allocate(1, max(len(data), 1))  # the guest frees it, whatever its length
        self._mem.write(place, data)
        self._mem.pack("<II", result, place, len(data))

    def _wall_clock(self, result: int) -> None:
        now = time.time_ns()
        self._mem.pack("<QII", result, now // 10**9, now % 10**9, 0)

    def _random(self, length: int, result: int) -> None:
        length &= _ALL_BITS
        if length > MAX_RANDOM_BYTES:
            raise GuestError(f"it asked for {length} random bytes at once")
        self._mem.address(result, 8)
        self._give(result, os.urandom(length))

    def _timer_in(self, nanoseconds: int) -> int:
        return self._timer(time.monotonic_ns() + (nanoseconds & _ALL_BITS))

    def _timer_at(self, instant: int) -> int:
        return self._timer(instant & _ALL_BITS)

    def _ready_now(self, _handle: int) -> int:
        return self._timer(0)

    def _timer(self, until: int) -> int:
        if len(self._timers) >= MAX_TIMERS:
            self._timers.clear()  # dropped ones are not told apart; a lost one is over at once
        self._last_timer = self._last_timer % 1_000_000 + 1
        self._timers[self._last_timer] = until
        return self._last_timer

    def _sleep_until(self, handles: list[int]) -> None:
        until = min(self._timers.get(handle, 0) for handle in handles)
        left = (until - time.monotonic_ns()) / 1e9
        if left > 0:
            self._outside.sleep(min(left, MAX_SLEEP_SECONDS))

    def _poll(self, place: int, count: int, result: int) -> None:
        count &= 0xFFFFFFFF
        if not 0 < count <= MAX_POLLED:
            raise GuestError(f"it waits for {count} things at once")
        self._mem.address(result, 8)
        handles = list(self._mem.unpack(f"<{count}I", place))
        self._sleep_until(handles)
        now = time.monotonic_ns()
        ready = [at for at, handle in enumerate(handles) if self._timers.get(handle, 0) <= now]
        ready = ready or [0]  # an interrupt came: it is looked at as soon as this returns
        where = self._allocate(4, 4 * len(ready))
        self._mem.pack(f"<{len(ready)}I", where, *ready)
        self._mem.pack("<II", result, where, len(ready))


def _refusal(name: str) -> Callable[..., None]:
    def refuse(*_: int) -> None:
        raise GuestError(f"{name!r} is not given to it")

    return refuse
