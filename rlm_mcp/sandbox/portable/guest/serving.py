"""Serves one REPL inside the WebAssembly module: the same `Worker`, without sockets or threads.

The module's `boot.py` hands over two functions: `send` gives a frame to the process around the
module, `receive` waits there for the next one. Nothing else leads out.
"""

from __future__ import annotations

import builtins
import json
import os
import random
import signal
import sys
from array import array
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from rlm_mcp.sandbox import wire
from rlm_mcp.sandbox.child.documents import Documents
from rlm_mcp.sandbox.child.link import Interrupts
from rlm_mcp.sandbox.child.worker import Worker
from rlm_mcp.sandbox.layout import WORD_BYTES
from rlm_mcp.sandbox.portable.guest import threads
from rlm_mcp.sandbox.types import ReplOptions
from rlm_mcp.sandbox.wire import Frame

# Put there by `site`, which the native REPL's interpreter does without.
OF_SITE = ("copyright", "credits", "exit", "help", "license", "quit")
TEXT = "_rlm_text"  # where the process around the module puts the text


class GuestLink:
    """Frames to and from the process around the module, which one thread alone uses."""

    def __init__(
        self,
        transport: tuple[Callable[[bytes], None], Callable[[], bytes]],
        interrupts: Interrupts,
        dispatch: Callable[[Frame], None],
    ) -> None:
        self._send, self._receive = transport
        self._interrupts = interrupts
        self._dispatch = dispatch

    def send(self, frame: bytes) -> None:
        """Send a whole frame, or several."""
        self._interrupts.hold()
        try:
            self._send(frame)
        finally:
            self._interrupts.release()

    def wait(self, inbox: SimpleQueue[Any]) -> Any:
        """Wait until a frame has put something into an inbox; take it."""
        self._interrupts.hold()
        try:
            while inbox.empty():
                self._interrupts.let_in()
                try:
                    data = self._receive()
                finally:
                    self._interrupts.keep_out()
                if data:  # else an interrupt came
                    self._dispatch(_frame(data))
            return inbox.get_nowait()
        finally:
            self._interrupts.release()


class Guest:
    """What the process around the module calls, by the kind of what it asks."""

    def __init__(self, transport: tuple[Callable[[bytes], None], Callable[[], bytes]]) -> None:
        self._transport = transport
        self._interrupts = Interrupts()
        self._worker: Worker | None = None

    def handle(self, kind: str, data: bytes) -> bytes:
        """Do what is asked."""
        if kind == "start":
            self._start(data)
        elif self._worker is None:
            raise RuntimeError("no REPL was started")
        elif kind == "frame":
            signal.signal(signal.SIGINT, self._interrupts)  # whatever the last cell did to it
            self._worker.handle(_frame(data))
        elif kind == "kept":
            return self._worker.kept
        return b""

    def _start(self, data: bytes) -> None:
        """Make the REPL over the text that lies in `builtins`."""
        head_bytes = int.from_bytes(data[:4], "big")
        said: dict[str, Any] = json.loads(data[4 : 4 + head_bytes])
        content = _content(said["layout"], data[4 + head_bytes :])
        random.seed(os.urandom(32))  # what it held was drawn when the module was built
        link = GuestLink(self._transport, self._interrupts, self._dispatch)
        options = ReplOptions(**said["options"])
        self._worker = Worker(link.send, content, options, self._interrupts, link.wait)
        sys.modules["__main__"] = self._worker.namespace.module
        sys.argv = [""]  # cells that read arguments find none
        signal.signal(signal.SIGINT, self._interrupts)
        threads.run_calls_together(self._worker.namespace)

    def _dispatch(self, frame: Frame) -> None:
        if frame.kind == "reply" and self._worker is not None:
            self._worker.desk.deliver(frame.fields["call"], frame.text(0), ok=frame.fields["ok"])


def _content(layout: dict[str, Any], tail: bytes) -> tuple[str | Documents, Documents]:
    """Make `context` and `context_names` of the text and what follows it."""
    text: str | bytes = builtins.__dict__.pop(TEXT)
    count, name_bytes = layout["count"], layout["name_bytes"]
    lengths, name_lengths = (
        array("Q", tail[start : start + count * WORD_BYTES])
        for start in (name_bytes, name_bytes + count * WORD_BYTES)
    )
    names = Documents(tail[:name_bytes], 0, name_lengths)
    return text if isinstance(text, str) else Documents(text, 0, lengths), names


def _frame(data: bytes) -> Frame:
    head, _ = wire.sizes(data)
    start = wire.HEADER.size
    return wire.decode(data[start : start + head], data[start + head :], wire.TO_CHILD)


def serve(namespace: dict[str, Any]) -> None:
    """Take over what `boot.py` hands out; from now on `handle` gets everything."""
    threads.replace_threads()
    for name in OF_SITE:
        builtins.__dict__.pop(name, None)
    guest = Guest((namespace["send"], namespace["receive"]))
    namespace["handle"] = guest.handle
