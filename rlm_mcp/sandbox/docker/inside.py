"""What runs in a container: the child's own REPL, over the container's standard input and output.

Its modules come over standard input, before everything else: the image needs Python alone. The
first process hands SIGINT on to the second, which is the REPL, and ends the container when the REPL
ends or when the host closes standard input.
"""

from __future__ import annotations

import builtins
import json
import os
import select
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rlm_mcp.sandbox import wire
from rlm_mcp.sandbox.child import documents, worker
from rlm_mcp.sandbox.layout import TEXT_START, Layout
from rlm_mcp.sandbox.types import ReplOptions
from rlm_mcp.sandbox.walls import limits

PIECE_BYTES = 1 << 20
# Put there by `site`, which the native REPL's interpreter does without.
OF_SITE = ("copyright", "credits", "exit", "help", "license", "quit")
SIGNALLED = 128  # an exit status beyond it names a signal, as in a shell


class Streams:
    """Standard input and output, moved to where no library writes by mistake."""

    def __init__(self) -> None:
        self._reader, self._writer = os.dup(0), os.dup(1)
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, 0)
        os.dup2(nowhere, 1)
        os.close(nowhere)

    def sendall(self, data: bytes, /) -> None:
        """Write all of it."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._writer, view) :]

    def recv_into(self, buffer: memoryview, /) -> int:
        """Read what there is into a buffer; 0 when the host has closed its end."""
        return os.readv(self._reader, [buffer])

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._reader


def main(read: Callable[[int], bytes], said: bytes) -> NoReturn:
    """Take the text and serve cells in a second process; wait for its end in this one."""
    told, ends = os.pipe()
    child = os.fork()
    if child:
        os.close(ends)
        _wait(child, told)
    os.close(told)
    _serve(read, said)


def _wait(child: int, told: int) -> NoReturn:
    """Pass SIGINT on, until the REPL ends or the host closes its end of standard input."""

    def pass_on(_number: int, _frame: FrameType | None) -> None:
        os.kill(child, signal.SIGINT)

    signal.signal(signal.SIGINT, pass_on)
    poll = select.poll()
    poll.register(0, 0)  # that the other side is closed is always reported
    poll.register(told, 0)
    ended = {descriptor for descriptor, _ in poll.poll()}
    if told not in ended:
        os._exit(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else SIGNALLED - code)


def _serve(read: Callable[[int], bytes], said: bytes) -> NoReturn:
    for name in OF_SITE:
        builtins.__dict__.pop(name, None)
    asked = json.loads(said)
    options = ReplOptions(**asked["options"])
    text, layout = _receive(read, Layout(**asked["layout"]))
    streams = Streams()
    try:
        content = documents.load(text, layout)
        os.close(text)
        limits.share_arenas()
        mapped = limits.mapped_bytes()
        worker.serve(streams, content, options, lambda: _confine(options.memory_bytes, mapped))
    except (OSError, MemoryError) as error:
        streams.sendall(wire.encode("failed", {}, wire.utf8(f"{type(error).__name__}: {error}")))
        os._exit(1)


def _receive(read: Callable[[int], bytes], layout: Layout) -> tuple[int, Layout]:
    """Write what comes next into an anonymous file, laid out as the native host does."""
    assert sys.platform == "linux"  # noqa: S101  # for the type checker: it is a container
    text = os.memfd_create("context")
    os.lseek(text, TEXT_START, os.SEEK_SET)
    is_ascii = True
    left = layout.text_bytes
    while left:
        piece = read(min(left, PIECE_BYTES))
        is_ascii = is_ascii and piece.isascii()
        _write(text, piece)
        left -= len(piece)
    _write(text, read(layout.file_bytes - TEXT_START - layout.text_bytes))
    return text, replace(layout, is_ascii=is_ascii)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _confine(memory_bytes: int, mapped: int) -> None:
    """Lower the limits, and tell on standard error which of Docker's own walls stand."""
    limits.limit(memory_bytes, mapped)
    os.write(2, json.dumps(_walls()).encode() + b"\n")
    os.dup2(0, 2)


def _walls() -> dict[str, list[str]]:
    lines = Path("/proc/self/status").read_text("ascii", "replace").splitlines()
    found = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    wanted = {"Seccomp": "2", "NoNewPrivs": "1", "CapEff": "0" * 16}
    layers = {"Seccomp": "seccomp", "NoNewPrivs": "no new privileges", "CapEff": "no capabilities"}
    stand = [layers[name] for name, value in wanted.items() if found.get(name) == value]
    missing = [
        f"{layers[name]}: {name} is {found.get(name, 'unknown')!r}"
        for name, value in wanted.items()
        if found.get(name) != value
    ]
    return {"layers": stand, "missing": missing}
