"""The child's end of the socket: any thread sends, and a waiting thread reads. In a REPL's process.

No thread reads for the others all the time: waking another thread costs as much as the rest of a
round trip. One of the waiting threads leads: it reads frames and distributes them, and passes the
lead on when it has its own. Usually only the main thread waits.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable
from queue import SimpleQueue
from time import perf_counter
from types import FrameType
from typing import Any, NoReturn, Protocol

from rlm_mcp.sandbox import wire
from rlm_mcp.sandbox.wire import Frame

RECEIVE_BYTES = 1 << 16
# The end of a cell fails calls that still wait, without a frame on the socket.
LOOK_MILLISECONDS = 100
# How long the main thread polls for a frame before it sleeps, and how many times it skips polling
# after that was in vain.
SOON_SECONDS = 0.0001
NOT_SOON_TIMES = 32
_LEAD = object()  # put into an inbox to tell its reader that it leads now


class Stream(Protocol):
    """What leads to the host: a socket, or something that reads and writes like one."""

    def sendall(self, data: bytes, /) -> None:
        """Write all of it."""
        ...

    def recv_into(self, buffer: memoryview, /) -> int:
        """Read what there is into a buffer; 0 when the other side is closed."""
        ...

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        ...


class Interrupts:
    """Turns SIGINT into `KeyboardInterrupt`: only in interruptible code, never inside a frame."""

    def __init__(self) -> None:
        self.running = False
        self._held = 0
        self._let_in = False
        self._pending = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        """Handle the signal; runs in the main thread."""
        if self._held and not self._let_in:
            self._pending = True
        elif self.running:
            raise KeyboardInterrupt

    def begin(self) -> None:
        """Begin interruptible code; earlier interrupts are dropped."""
        self._pending = False
        self.running = True

    def allowed(self) -> _Allowed:
        """Deliver interrupts within the block; also one that came since `begin`."""
        return _Allowed(self)

    def let_pending_in(self) -> None:
        """Deliver an interrupt that came since `begin`."""
        if self._pending and not self._held:
            self._let_through()

    def hold(self) -> None:
        """Postpone interrupts while the main thread handles a frame."""
        self._held += 1

    def release(self) -> None:
        """Deliver an interrupt that was postponed."""
        self._held -= 1
        if not self._held:
            self._let_through()

    def let_in(self) -> None:
        """Deliver interrupts although they are postponed: the main thread is only waiting."""
        self._let_in = True
        self._let_through()

    def keep_out(self) -> None:
        """Postpone interrupts again."""
        self._let_in = False

    def _let_through(self) -> None:
        if self._pending and self.running:
            self._pending = False
            raise KeyboardInterrupt


class _Allowed:
    """The block of `Interrupts.allowed`; a class, since each cell enters it."""

    def __init__(self, interrupts: Interrupts) -> None:
        self._interrupts = interrupts

    def __enter__(self) -> None:
        self._interrupts.running = True
        try:
            self._interrupts.let_pending_in()
        except BaseException:
            self._interrupts.running = False
            raise

    def __exit__(self, *_: object) -> None:
        self._interrupts.running = False


class Link:
    """Frames over the socket; `dispatch` puts each received frame into an inbox."""

    def __init__(
        self, sock: Stream, interrupts: Interrupts, dispatch: Callable[[Frame], None]
    ) -> None:
        self._sock = sock
        self._interrupts = interrupts
        self._dispatch = dispatch
        self._main = threading.get_ident()
        self._sending = threading.Lock()
        self._room = memoryview(bytearray(RECEIVE_BYTES))
        self._received = bytearray()
        self._turn = threading.Lock()
        self._leader: SimpleQueue[Any] | None = None
        self._followers: list[SimpleQueue[Any]] = []
        self._looks_left_out = 0
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)

    def send(self, frame: bytes) -> None:
        """Send a whole frame."""
        if threading.get_ident() != self._main:
            with self._sending:
                self._sock.sendall(frame)
            return
        self._interrupts.hold()
        try:
            with self._sending:
                self._sock.sendall(frame)
        finally:
            self._interrupts.release()

    def wait(self, inbox: SimpleQueue[Any]) -> Any:
        """Wait for an item that `dispatch` or another thread puts into an inbox, and remove it.

        Only `dispatch` fills an inbox that the main thread waits for.
        """
        if threading.get_ident() != self._main:
            return self._wait(inbox, is_main=False)
        self._interrupts.hold()
        try:
            return self._wait(inbox, is_main=True)
        finally:
            self._interrupts.release()

    def _wait(self, inbox: SimpleQueue[Any], *, is_main: bool) -> Any:
        try:
            while True:
                leads = self._take_lead(inbox)
                item = _taken(inbox)
                if item is not _LEAD:
                    return item
                if is_main:
                    item = self._interruptible(inbox if not leads else None)
                elif leads:
                    item = self._poll.poll(LOOK_MILLISECONDS)
                else:
                    item = inbox.get()
                if leads and item:
                    self._read()
                elif not leads and item is not _LEAD:
                    return item
        finally:
            self._pass_lead_on(inbox)

    def _take_lead(self, inbox: SimpleQueue[Any]) -> bool:
        with self._turn:
            if self._leader is None:
                self._leader = inbox
            elif self._leader is not inbox and inbox not in self._followers:
                self._followers.append(inbox)
            return self._leader is inbox

    def _pass_lead_on(self, inbox: SimpleQueue[Any]) -> None:
        with self._turn:
            if inbox in self._followers:
                self._followers.remove(inbox)
            if self._leader is inbox:
                self._leader = self._followers.pop(0) if self._followers else None
                if self._leader is not None:
                    self._leader.put(_LEAD)

    def _interruptible(self, inbox: SimpleQueue[Any] | None) -> Any:
        """Wait for an inbox or for the socket, in the main thread."""
        if inbox is None and self._comes_soon():
            return True
        if inbox is None and not self._interrupts.running:
            return True  # no interrupt can come now: the blocking read itself waits
        try:
            self._interrupts.let_in()
            return self._poll.poll() if inbox is None else inbox.get()
        finally:
            self._interrupts.keep_out()

    def _comes_soon(self) -> bool:
        """Poll for a frame for a moment: waking a sleeping core may take longer.

        After that was in vain, most likely because the cores are busy, it is skipped for a while.
        """
        if self._looks_left_out:
            self._looks_left_out -= 1
            return False
        until = perf_counter() + SOON_SECONDS
        while perf_counter() < until:
            if self._poll.poll(0):
                return True
        self._looks_left_out = NOT_SOON_TIMES
        return False

    def _read(self) -> None:
        """Receive bytes, and dispatch the frames that are complete."""
        size = self._sock.recv_into(self._room)
        if not size:
            os._exit(0)
        self._received += self._room[:size]
        while (frame := wire.take_frame(self._received, wire.TO_CHILD)) is not None:
            self._dispatch(frame)


def _taken(inbox: SimpleQueue[Any]) -> Any:
    """Remove an item from an inbox; `_LEAD` if it is empty."""
    while not inbox.empty():
        item = inbox.get_nowait()
        if item is not _LEAD:
            return item
    return _LEAD


def end_with_host(sock: Stream) -> NoReturn:
    """End this process when the host's end of the socket closes, whatever the cell does."""
    poll = select.poll()
    poll.register(sock, getattr(select, "POLLRDHUP", 0))  # POLLHUP is always reported
    poll.poll()
    os._exit(0)
