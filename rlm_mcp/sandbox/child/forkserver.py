"""The warm process, and the processes forked from it: one per text, one per REPL.

    warm (interpreter, standard library, namespaces)
    └── holder of a text (the text, loaded once)
        └── REPL (a fork of the holder: shares the text, gets the walls)

The warm process and the holders run only this code, never a model's. Each receives orders over a
socket pair that preserves message boundaries: one JSON object per order, with descriptors. They end
when the host's end closes, and the kernel then kills what they forked. Standard library only.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
from collections import OrderedDict
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from rlm_mcp.sandbox import wire
from rlm_mcp.sandbox.child import documents, preload, worker
from rlm_mcp.sandbox.child.documents import Documents
from rlm_mcp.sandbox.layout import Layout
from rlm_mcp.sandbox.types import ReplOptions, Walls
from rlm_mcp.sandbox.walls import confine, limits, namespaces
from rlm_mcp.sandbox.walls.confine import WallReport

MAX_ORDER_BYTES = 1 << 16
MAX_DESCRIPTORS = 4
REPL_SOCKET = 3
SLACK_BYTES = 32 << 20
MAX_STATUSES = 1_000


class ForkServer:
    """Carries out orders: `hold` a text, `spawn` a REPL, report the exit `status` of a REPL."""

    def __init__(self, control: socket.socket, walls: Walls, mapped_bytes: int) -> None:
        self._control = control
        self._walls = walls
        self._mapped_bytes = mapped_bytes
        self._niceness = confine.repl_niceness()
        self._content: tuple[str | Documents, Documents] | None = None
        self._statuses: OrderedDict[int, int] = OrderedDict()

    def serve(self) -> NoReturn:
        """Carry out orders until the host closes its end."""
        signal.signal(signal.SIGCHLD, self._reap)
        while True:
            data, descriptors, _, _ = socket.recv_fds(
                self._control, MAX_ORDER_BYTES, MAX_DESCRIPTORS
            )
            if not data:
                os._exit(0)
            try:
                self._carry_out(json.loads(data), descriptors)
            except (OSError, MemoryError) as error:
                self._reply({"error": f"{type(error).__name__}: {error}"})
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)

    def _carry_out(self, order: dict[str, Any], descriptors: list[int]) -> None:
        if order["do"] == "hold":
            self._fork_holder(Layout(**order["layout"]), *descriptors)
        elif order["do"] == "spawn":
            self._fork_repl(ReplOptions(**order["options"]), descriptors[0])
        else:
            self._reap()
            self._reply({"status": self._statuses.pop(order["pid"], None)})

    def _reply(self, answer: dict[str, Any], descriptors: tuple[int, ...] = ()) -> None:
        socket.send_fds(self._control, [json.dumps(answer).encode()], descriptors)

    def _reap(self, *_: object) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            self._statuses[pid] = os.waitstatus_to_exitcode(status)
            if len(self._statuses) > MAX_STATUSES:
                self._statuses.popitem(last=False)

    def _fork_holder(self, layout: Layout, control: int, text: int) -> None:
        """Fork a holder; it reports on its own socket when the text is loaded."""
        if os.fork():
            self._reply({})
            return
        try:
            namespaces.die_with_parent()
            self._control.close()
            self._control = socket.socket(fileno=os.dup(control))
            os.close(control)
            self._content = documents.load(text, layout)
            os.close(text)
            self._mapped_bytes += _bytes_of(self._content, layout)
            gc.collect()
            gc.freeze()
            this = os.pidfd_open(os.getpid())
            self._reply({"bytes": _bytes_of(self._content, layout)}, (this,))
            os.close(this)
            self._statuses.clear()
            self.serve()
        except (OSError, MemoryError) as error:
            self._reply({"error": f"{type(error).__name__}: {error}"})
        finally:
            os._exit(1)

    def _fork_repl(self, options: ReplOptions, sock: int) -> None:
        pid = os.fork()
        if not pid:
            self._become_repl(options, sock)
        handle = os.pidfd_open(pid)
        self._reply({"pid": pid}, (handle,))
        os.close(handle)

    def _become_repl(self, options: ReplOptions, sock: int) -> NoReturn:
        try:
            # No session of its own: Linux shares the processor among sessions first
            # (`sched_autogroup_enabled`), so that twenty REPLs would count as twenty servers.
            os.setpgid(0, 0)
            os.dup2(sock, REPL_SOCKET)
            os.closerange(REPL_SOCKET + 1, MAX_ORDER_BYTES)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            link = socket.socket(fileno=REPL_SOCKET)
            try:
                worker.serve(
                    link,
                    self._held(),
                    options,
                    lambda: self._confine(options),
                    lambda: confine.give_way(self._niceness),
                )
            except OSError as error:
                link.sendall(wire.encode("failed", {}, wire.utf8(str(error))))
        finally:
            os._exit(1)

    def _confine(self, options: ReplOptions) -> None:
        confine.confine_repl(self._walls, options.memory_bytes, self._mapped_bytes)

    def _held(self) -> tuple[str | Documents, Documents]:
        if self._content is None:
            raise OSError("a REPL was requested from a process without a text")
        return self._content


def _bytes_of(content: tuple[str | Documents, Documents], layout: Layout) -> int:
    context, _ = content
    text = sys.getsizeof(context) if isinstance(context, str) else layout.file_bytes
    return text + SLACK_BYTES


def main() -> None:
    """Enter namespaces, import, give up files and privileges, report, then carry out orders."""
    order = json.loads(sys.argv[2])
    sys.argv = [""]  # cells that read arguments find none
    control = socket.socket(fileno=order["control"])
    walls, report = Walls(**order["walls"]), WallReport()
    confine.ignore_interrupts()
    limits.share_arenas()
    in_namespaces = confine.enter_namespaces(walls, report)
    if in_namespaces:
        _continue_in_child(control)
    preload.import_common()
    preload.keep_library()
    preload.keep_time_zones()
    os.environ.clear()
    threads = len(list(Path("/proc/self/task").iterdir()))
    mapped = limits.mapped_bytes()
    confine.give_up_files(report, in_namespaces=in_namespaces)
    namespaces.die_with_parent()  # again: a change of user clears it
    walls_that_hold = confine.try_walls(walls, report)
    gc.collect()
    gc.freeze()
    if threads > 1:
        report.missing.append(f"fork: the warm process has {threads} threads")
    control.send(json.dumps(asdict(report)).encode())
    ForkServer(control, walls_that_hold, mapped).serve()


def _continue_in_child(control: socket.socket) -> None:
    """Fork the first process of the new process namespace; the parent ends after it."""
    child = os.fork()
    if child:
        control.close()
        namespaces.die_with_parent()
        os.waitpid(child, 0)
        os._exit(0)
    namespaces.die_with_parent()
