"""The child half of a REPL: takes cells from the host, runs them, tells what came of it.

Standard library only. Everything here is trusted until the first cell runs and worth nothing
afterwards: model code shares the process. So it has no power the host would miss.
"""

from __future__ import annotations

import _thread
import io
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from queue import SimpleQueue
from typing import Any, NoReturn

from rlm_mcp.sandbox import wire
from rlm_mcp.sandbox.child import execute
from rlm_mcp.sandbox.child.calls import CallDesk, Wait, take_reply
from rlm_mcp.sandbox.child.documents import Documents
from rlm_mcp.sandbox.child.link import Interrupts, Link, end_with_host
from rlm_mcp.sandbox.child.namespace import Namespace
from rlm_mcp.sandbox.child.output import Output
from rlm_mcp.sandbox.child.saved_variables import pack, unpack
from rlm_mcp.sandbox.child.values import preview, short_repr, size_of, type_name, whole_text
from rlm_mcp.sandbox.types import ReplOptions
from rlm_mcp.sandbox.wire import Frame, utf8

MAX_LISTED = 1_000


class Worker:
    """A REPL: its namespace, its output, and how it answers each frame."""

    def __init__(
        self,
        send: Callable[[bytes], None],
        content: tuple[str | Documents, Documents],
        options: ReplOptions,
        interrupts: Interrupts | None = None,
        wait: Wait = take_reply,
    ) -> None:
        self._send = send
        self._interrupts = interrupts or Interrupts()
        self.desk = CallDesk(send, options.call_window, wait)
        self._output = Output(options.output_chars)
        self._limit = options.output_chars
        self._kept = b""  # what was handed over last
        self.namespace = Namespace(*content, self.desk, options)

    @property
    def kept(self) -> bytes:
        """What a successor may open of the variables that the last cell left."""
        return self._kept

    def handle(self, frame: Frame) -> None:
        """Answer one frame of the host."""
        fields = frame.fields
        if frame.kind == "exec":
            self._execute(fields, frame.text(0))
        elif frame.kind == "list":
            self._list(fields["ticket"])
        elif frame.kind == "read":
            self._read(fields["ticket"], frame.text(0), fields["start"], fields["limit"])
        elif frame.kind == "restore":
            restored = unpack(frame.blobs[0])
            self.namespace.variables.update(restored)
            self._send(wire.encode("restored", {}, *map(utf8, restored)))

    def _execute(self, asked: Mapping[str, Any], code: str) -> None:
        self._output.clear()
        self.namespace.restore()
        self.namespace.final = None
        sys.stdout = sys.stderr = self._output
        sys.stdin = io.StringIO()
        self.desk.open(asked["cell"])
        failed = self._run(asked["number"], code)
        self.desk.close()
        final = self.namespace.final
        before, self._kept = self._kept, self._pack()
        is_known = asked["holds"] and before == self._kept
        fields = {
            "cell": asked["cell"],
            "chars": self._output.total,
            "error": failed is not None,
            "line": failed.line if failed else None,
            "final": final is not None,
            "json": final is not None and final[2],
            "known": is_known,
            "restored": False,
        }
        said = (failed.type, failed.message, failed.traceback) if failed else ()
        texts = (*said, *(final[:2] if final else ()))
        kept = b"" if is_known else self._kept
        output = utf8(self._output.text())
        self._send(wire.encode("done", fields, output, kept, *map(utf8, texts)))

    def _pack(self) -> bytes:
        variables = self.namespace.variables
        return pack((name, variables[name]) for name in self.namespace.assigned())

    def _run(self, number: int, code: str) -> execute.Failure | None:
        try:
            try:
                self._interrupts.begin()
                self._run_watching_final(number, code)
            finally:
                self._interrupts.running = False
        except execute.CellEnd:
            return None
        except BaseException as error:  # noqa: BLE001  # whatever model code raised is its own to repair
            return execute.failure(error, self.namespace.variables)
        return None

    def _run_watching_final(self, number: int, code: str) -> None:
        before = self.namespace.variables.get("Final")
        execute.run(code, number, self.namespace.variables, self._echo)
        after = self.namespace.variables.get("Final")
        if execute.is_final_value(after) and (after is not before or execute.assigns_final(code)):
            self.namespace.record(after)

    def _echo(self, value: object) -> None:
        self._output.write(short_repr(value, self._limit) + "\n")

    def _list(self, ticket: int) -> None:
        names = list(self.namespace.assigned())[:MAX_LISTED]
        values = [self.namespace.variables[name] for name in names]
        texts = (
            text
            for name, value in zip(names, values, strict=True)
            for text in (name[:200], type_name(value), preview(value))
        )
        fields = {"ticket": ticket, "sizes": [size_of(value) for value in values]}
        self._send(wire.encode("variables", fields, *map(utf8, texts)))

    def _read(self, ticket: int, name: str, start: int, limit: int) -> None:
        fields: dict[str, Any] = dict.fromkeys(("size", "start", "total"), 0)
        fields |= {"ticket": ticket, "found": False, "json": False}
        if name not in set(self.namespace.assigned()):
            names = list(self.namespace.assigned())[:MAX_LISTED]
            self._send(wire.encode("slice", fields, *map(utf8, names)))
            return
        value = self.namespace.variables[name]
        text, is_json = whole_text(value)
        start = min(start, len(text))
        fields |= {"found": True, "json": is_json, "size": size_of(value)}
        fields |= {"start": start, "total": len(text)}
        texts = (type_name(value), text[start : start + limit])
        self._send(wire.encode("slice", fields, *map(utf8, texts)))


def serve(
    sock: socket.socket,
    content: tuple[str | Documents, Documents],
    options: ReplOptions,
    put_up_walls: Callable[[], None],
) -> NoReturn:
    """Answer frames until the host closes the socket, which ends the process at once.

    The walls go up when SIGINT has its handler, which they keep, and before there is a thread,
    which Landlock would not reach.

    Raises:
        OSError: a wall does not stand.
    """
    interrupts = Interrupts()
    todo: SimpleQueue[Frame] = SimpleQueue()

    def dispatch(frame: Frame) -> None:
        if frame.kind == "reply":
            worker.desk.deliver(frame.fields["call"], frame.text(0), ok=frame.fields["ok"])
        else:
            todo.put(frame)

    link = Link(sock, interrupts, dispatch)
    worker = Worker(link.send, content, options, interrupts, link.wait)
    sys.modules["__main__"] = worker.namespace.module
    signal.signal(signal.SIGINT, interrupts)
    put_up_walls()
    # Not a `threading.Thread`: model code would find it listed among its own.
    _thread.start_new_thread(end_with_host, (sock,))
    link.send(wire.encode("ready", {}))
    while True:
        worker.handle(link.wait(todo))
