"""One REPL in its instance: filled, served frame by frame, and put back where a cell is ended."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

from rlm_mcp.sandbox import wire
from rlm_mcp.sandbox.portable.boot import Boot
from rlm_mcp.sandbox.portable.process import engine as engines
from rlm_mcp.sandbox.portable.process.confine import confine, give_way, lower_priority
from rlm_mcp.sandbox.portable.process.image import read_image
from rlm_mcp.sandbox.portable.process.instance import Checkpoint, Facts, Instance
from rlm_mcp.sandbox.portable.process.link import HostLink
from rlm_mcp.sandbox.portable.process.memory import GuestError

THREAD_STACK_BYTES = engines.THREAD_STACK_BYTES
MAX_CHECKPOINT_BYTES = 128 << 20
MAX_MEMORY_BYTES = 1 << 32
OWN_BYTES = 64 << 20  # what the interpreter and its library take, with room to spare
TEXT = "_rlm_text"  # the name that the guest looks for in `builtins`
ENDED = 70  # the status of a process whose instance cannot go on
LOOKS = ("list", "read")
REASONS = {  # what a trap says, and what a reader of it needs to know
    "interrupt": ("TimeoutError", "it ignored the interrupt and was stopped"),
    "call stack exhausted": ("RecursionError", "its calls went too deep"),
    "unreachable": ("SystemError", "the interpreter aborted"),
    "cli/exit": ("SystemExit", "it ended the interpreter"),
}


def prepare(boot: Boot, link: HostLink) -> GuestRepl:
    """Load the module, make an instance with its modules, and leave the rest of this machine."""
    engine = engines.make_engine()
    code = (engine, engines.load(engine, Path(boot.compiled)))
    instance = Instance(code, Facts.of(boot.facts), MAX_MEMORY_BYTES, link)
    read_image(Path(boot.image), instance)
    priority = lower_priority()
    confine()
    return GuestRepl(instance, link, priority)


class GuestRepl:
    """Serves one REPL; `serve` runs in a thread of its own, `stop` is called from another."""

    def __init__(self, instance: Instance, link: HostLink, priority: int) -> None:
        self._instance, self._link, self._priority = instance, link, priority
        self._kept: Checkpoint | None = None
        self._turn = threading.Lock()  # of `stop`, and of what it looks at
        self._number = 0
        self._early = 0  # the number of an order that was interrupted before it came
        self._runs = self._cell_runs = False
        self._was_interrupted = False

    def stop(self, number: int) -> None:
        """Interrupt an order, if it is the one that is carried out; end a cell the second time."""
        with self._turn:
            self._early = max(self._early, number)
            if number != self._number or not self._runs:
                return
            if self._cell_runs and self._was_interrupted:
                self._instance.trap()
            self._interrupt()
            self._link.wake()

    def _interrupt(self) -> None:
        self._was_interrupted = True
        self._instance.interrupt()

    def serve(self) -> None:
        """Set the REPL up, and answer frames for good."""
        try:
            self._start()
            self._link.send(wire.encode("ready", {}))
            self._keep()
            frame = self._link.frame()
            give_way(self._priority)  # not sooner: it would be ready late beside others that work
            while True:
                self._answer(frame)
                frame = self._link.frame()
        except GuestError:
            os._exit(ENDED)
        except BaseException as error:  # noqa: BLE001  # the outermost frame: the host is told
            self._link.fail(f"{type(error).__name__}: {error}")

    def _start(self) -> None:
        """Take the text and make the REPL over it."""
        head = bytearray(wire.HEADER.size)
        self._link.read_into(memoryview(head))
        data = bytearray(sum(wire.HEADER.unpack(head)))
        self._link.read_into(memoryview(data))
        head_bytes, _ = wire.HEADER.unpack(head)
        said: dict[str, Any] = json.loads(data[:head_bytes])
        self._fill(said["layout"], said["options"]["memory_bytes"])
        asked = head_bytes.to_bytes(4, "big") + bytes(data)
        self._instance.enter("start", asked)

    def _fill(self, layout: dict[str, Any], memory_bytes: int) -> None:
        utf8_bytes, width = layout["text_bytes"], layout["width"]
        held = utf8_bytes if layout["is_list"] else layout["chars"] * max(width, 1)
        self._instance.limit(min(memory_bytes + held + OWN_BYTES, MAX_MEMORY_BYTES))
        if layout["is_list"]:
            self._instance.fill_bytes(TEXT, utf8_bytes, self._link.read_into)
        elif width == 0:
            self._instance.fill_text(TEXT, utf8_bytes, 0, self._link.read_into)
        else:
            self._instance.fill_text(
                TEXT,
                layout["chars"],
                width,
                lambda view: self._link.recode_into(view, utf8_bytes, width),
            )

    def _answer(self, frame: bytes) -> None:
        head_bytes, _ = wire.sizes(frame)
        head = json.loads(frame[wire.HEADER.size : wire.HEADER.size + head_bytes])
        self._link.forget_wake()
        is_cell = head["kind"] == "exec"
        with self._turn:
            # A reply that comes after its cell is not an order; the host does not count it either.
            self._number += head["kind"] != "reply"
            self._was_interrupted = False
            self._runs, self._cell_runs = True, is_cell
            if self._early == self._number:
                self._interrupt()
        try:
            self._instance.enter("frame", frame)
        except GuestError as error:
            self._end_order()
            if self._kept is None or not (is_cell or head["kind"] in LOOKS):
                raise
            if is_cell:
                self._put_back(head, self._kept, str(error))
            else:  # by the `repr` of a value
                self._instance.restore(self._kept)
                self._link.send(_nothing_seen(head))
        self._end_order()
        self._keep()

    def _end_order(self) -> None:
        with self._turn:
            self._runs = self._cell_runs = False

    def _keep(self) -> None:
        """Copy the memory while the model thinks."""
        self._kept = self._instance.checkpoint(MAX_CHECKPOINT_BYTES)

    def _put_back(self, cell: dict[str, Any], kept: Checkpoint, why: str) -> None:
        """Go back to before the cell, and say so in its place."""
        self._instance.restore(kept)
        kind, reason = next(
            (said for mark, said in REASONS.items() if mark in why), ("SystemError", why)
        )
        message = (
            f"{reason}. All variables are as they were before this cell; what it assigned and"
            " printed is lost"
        )
        fields: dict[str, Any] = {
            "cell": cell["cell"],
            "chars": 0,
            "error": True,
            "line": None,
            "final": False,
            "json": False,
            "known": cell["holds"],
            "restored": True,
            "cited": [],
        }
        known = b"" if cell["holds"] else self._instance.enter("kept", b"")
        texts = (kind, message, f"{kind}: {message}")
        self._link.send(wire.encode("done", fields, b"", known, *map(wire.utf8, texts)))


def _nothing_seen(look: dict[str, Any]) -> bytes:
    """Answer a look that ended the interpreter."""
    ticket = look["ticket"]
    if look["kind"] == "list":
        return wire.encode("variables", {"ticket": ticket, "sizes": []})
    fields = {"ticket": ticket, "found": True, "json": False, "size": 0, "start": 0}
    fields["total"] = look["limit"] + 1  # so that it does not pass for the whole text
    text = "" if look["whole"] else "<its repr ended the interpreter>"[: look["limit"]]
    return wire.encode("slice", fields, b"", wire.utf8(text))
