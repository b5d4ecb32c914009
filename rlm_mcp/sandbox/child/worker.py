"""The child's half of a REPL: receives cells from the host, runs them, sends the results.

Standard library only. This code is trusted until the first cell runs and not afterwards: model code
shares its process and can replace any of it. So the host checks everything that arrives.
"""

from __future__ import annotations

import _thread
import io
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from queue import SimpleQueue
from typing import Any, NoReturn

from rlm_mcp.sandbox import wire
from rlm_mcp.sandbox.child import execute
from rlm_mcp.sandbox.child.calls import CallDesk, Wait, take_reply
from rlm_mcp.sandbox.child.citing import packed_citations
from rlm_mcp.sandbox.child.documents import Documents
from rlm_mcp.sandbox.child.lasting import keep, open_kept
from rlm_mcp.sandbox.child.link import Interrupts, Link, Stream, end_with_host
from rlm_mcp.sandbox.child.namespace import Namespace
from rlm_mcp.sandbox.child.output import Output
from rlm_mcp.sandbox.child.saved_variables import pack, unpack
from rlm_mcp.sandbox.child.values import (
    TextSlice,
    TooLongError,
    preview,
    short_repr,
    size_of,
    slice_of,
    type_name,
    whole_text,
)
from rlm_mcp.sandbox.child.written.awaits import loosen_asyncio
from rlm_mcp.sandbox.child.written.pools import replace_pools
from rlm_mcp.sandbox.types import ReplOptions
from rlm_mcp.sandbox.wire import Frame


class Worker:
    """A REPL: its namespace, its output, and its answer to each frame."""

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
        self._kept = b""  # the last packed variables
        self.namespace = Namespace(*content, self.desk, options)

    @property
    def kept(self) -> bytes:
        """What a successor may open of the variables that the last cell left."""
        return self._kept

    def handle(self, frame: Frame) -> None:
        """Answer a frame of the host."""
        fields = frame.fields
        if frame.kind == "exec":
            self._execute(fields, frame.text(0))
        elif frame.kind == "list":
            self._list(fields["ticket"])
        elif frame.kind == "read":
            self._read(fields, frame.text(0))
        elif frame.kind == "keep":
            self._keep(fields)
        elif frame.kind == "reopen":
            self._reopen(fields["ticket"], frame.blobs)
        elif frame.kind == "restore":
            restored = unpack(frame.blobs[0])
            self.namespace.variables.update(restored)
            texts = [wire.clip(name, wire.MAX_NAME_BYTES) for name in restored]
            self._send(wire.encode("restored", {}, *texts))

    def _execute(self, order: Mapping[str, Any], code: str) -> None:
        self._output.clear()
        self.namespace.restore()
        self.namespace.final = None
        self.namespace.citations.clear()
        sys.stdout = sys.stderr = self._output
        sys.stdin = io.StringIO()
        self.desk.open(order["cell"])
        failed = self._run(order["number"], code)
        self.desk.close()
        final = self.namespace.final
        cited = packed_citations(self.namespace.citations)
        before, self._kept = self._kept, self._pack()
        is_known = order["holds"] and before == self._kept
        fields = {
            "cell": order["cell"],
            "chars": self._output.total,
            "error": failed is not None,
            "line": failed.line if failed else None,
            "final": final is not None,
            "json": final is not None and final[2],
            "known": is_known,
            "restored": False,
            "cited": cited.numbers,
        }
        kept = b"" if is_known else self._kept
        output = wire.clip(self._output.text(), wire.MAX_OUTPUT_BYTES)
        texts = (*_error(failed), *_answer(final), *cited.quotes)
        self._send(wire.encode("done", fields, output, kept, *texts))

    def _pack(self) -> bytes:
        """Pickle small variables; an interrupt ends it early, and what it has by then is kept."""
        try:
            with self._interrupts.allowed():
                return pack(self.namespace.assigned_items())
        except BaseException:  # noqa: BLE001  # an interrupt at the edge, memory, a dict that changes
            return b""

    def _run(self, number: int, code: str) -> execute.Failure | None:
        try:
            try:
                self._interrupts.begin()
                self._run_watching_final(number, code)
            finally:
                self._interrupts.running = False
        except execute.CellEnd:
            return None
        except BaseException as error:  # noqa: BLE001  # the model's to repair, whatever it is
            return self._describe(error)
        return None

    def _describe(self, error: BaseException) -> execute.Failure:
        """Describe an error, whose methods may be of model code: within the cell's time too."""
        try:
            with self._interrupts.allowed():
                return execute.failure(error, self.namespace.names())
        except BaseException as broken:  # noqa: BLE001  # an interrupt at the edge
            kind = type_name(error)
            text = f"{kind}: (its text cannot be shown: {type_name(broken)})"
            return execute.Failure(kind, text, text, None)

    def _run_watching_final(self, number: int, code: str) -> None:
        replace_pools(code)
        loosen_asyncio(code)
        if "import" in code:
            self.namespace.offer_imports(code)
        space = self.namespace
        before, state = space.variables.get("Final"), space.answer_state()
        execute.run(code, number, space.variables, self._echo, space.helpers)
        after = space.variables.get("Final")
        if execute.is_final_value(after) and (after is not before or execute.assigns_final(code)):
            space.record(after)
        elif (given := space.assigned_final()) is not None:
            space.record(given)
        elif "answer" in code and _is_new(state, space.answer_state(), code):
            space.record_answer()

    def _echo(self, value: object) -> None:
        self._output.write(short_repr(value, self._limit) + "\n")

    def _list(self, ticket: int) -> None:
        sizes: list[int] = []
        texts: list[bytes] = []
        try:
            with self._interrupts.allowed():
                for name in islice(self.namespace.assigned(), wire.MAX_VARIABLES):
                    value = self.namespace.variables[name]
                    row = (name, type_name(value), preview(value))
                    texts += [wire.clip(text, wire.MAX_NAME_BYTES) for text in row]
                    sizes.append(max(0, min(size_of(value), wire.MAX_NUMBER)))
        except BaseException:  # noqa: BLE001  # interrupted: what was listed by then is the answer
            del texts[3 * len(sizes) :]
        self._send(wire.encode("variables", {"ticket": ticket, "sizes": sizes}, *texts))

    def _keep(self, order: Mapping[str, Any]) -> None:
        """Hand over what variables are kept as; after an interrupt, what there is by then."""
        bounds = min(order["most"], wire.MAX_LASTING_BYTES), order["room"]
        texts: list[bytes] = []
        space = self.namespace
        try:
            with self._interrupts.allowed():
                listed = (*space.code(), *space.assigned(), *space.unlisted())
                names = list(islice(listed, wire.MAX_VARIABLES))
                for name, payload, reason in keep(space.variables, names, space.context, bounds):
                    texts += [wire.clip(name, wire.MAX_NAME_BYTES), payload]
                    texts += [wire.clip(reason, wire.MAX_NAME_BYTES)]
        except BaseException:  # noqa: BLE001  # interrupted, or a dict that changes
            del texts[len(texts) - len(texts) % 3 :]
        self._send(wire.encode("kept", {"ticket": order["ticket"]}, *texts))

    def _reopen(self, ticket: int, blobs: Sequence[bytes]) -> None:
        opened: list[str] = []
        names = (blob.decode("utf-8", "replace") for blob in blobs[::2])
        pairs = zip(names, blobs[1::2], strict=False)
        try:
            with self._interrupts.allowed():
                opened = open_kept(pairs, self.namespace.variables)
        except BaseException:  # noqa: BLE001  # interrupted: nothing is said to be there
            opened = []
        texts = [wire.clip(name, wire.MAX_NAME_BYTES) for name in opened]
        self._send(wire.encode("reopened", {"ticket": ticket}, *texts))

    def _read(self, order: Mapping[str, Any], name: str) -> None:
        fields: dict[str, Any] = dict.fromkeys(("size", "start", "total"), 0)
        fields |= {"ticket": order["ticket"], "found": False, "json": False}
        if name not in set(self.namespace.assigned()):
            names = islice(self.namespace.assigned(), wire.MAX_VARIABLES)
            texts = [wire.clip(known, wire.MAX_NAME_BYTES) for known in names]
            self._send(wire.encode("slice", fields, *texts))
            return
        value = self.namespace.variables[name]
        part = self._part(value, order)
        fields |= {"found": True, "json": part.is_json, "start": part.start, "total": part.total}
        fields["size"] = max(0, min(size_of(value), wire.MAX_NUMBER))
        kind = wire.clip(type_name(value), wire.MAX_NAME_BYTES)
        text = wire.clip(part.text, wire.MAX_SLICE_BYTES)
        self._send(wire.encode("slice", fields, kind, text))

    def _part(self, value: object, order: Mapping[str, Any]) -> TextSlice:
        """Return the part of a value's text that was asked for, whatever the value's code does."""
        start, limit = order["start"], order["limit"]
        try:
            with self._interrupts.allowed():
                if not order["whole"]:
                    return slice_of(value, start, limit)
                text, is_json = whole_text(value, limit)
                return TextSlice(text, 0, len(text), is_json)
        except TooLongError:
            return TextSlice("", 0, limit + 1, is_json=False)
        except BaseException as error:  # noqa: BLE001  # an interrupt; SystemExit of a `__repr__`
            text = "" if order["whole"] else f"<{type_name(value)}: {type_name(error)}>"
            return TextSlice(text, 0, max(limit, len(text)) + 1, is_json=False)


def _is_new(before: tuple[Any, Any] | None, after: tuple[Any, Any] | None, code: str) -> bool:
    """Whether a cell has set the answer, by its name or under another."""
    if after is None:
        return False
    is_changed = before is None or before[1] is not after[1]
    return is_changed or execute.sets_answer(code)


def _error(failed: execute.Failure | None) -> tuple[bytes, ...]:
    if failed is None:
        return ()
    return (
        wire.clip(failed.type, wire.MAX_NAME_BYTES),
        wire.clip(failed.message, wire.MAX_MESSAGE_BYTES),
        wire.clip(failed.traceback, wire.MAX_TRACEBACK_BYTES),
    )


def _answer(final: tuple[str, str, bool] | None) -> tuple[bytes, ...]:
    if final is None:
        return ()
    text, kind, _ = final
    return wire.clip(text, wire.MAX_ANSWER_BYTES), wire.clip(kind, wire.MAX_NAME_BYTES)


def serve(
    sock: Stream,
    content: tuple[str | Documents, Documents],
    options: ReplOptions,
    put_up_walls: Callable[[], None],
    give_way: Callable[[], None] = lambda: None,
) -> NoReturn:
    """Answer frames until the host closes the socket, which ends the process at once.

    The walls go up after SIGINT has its handler, which they protect, and before there is a thread,
    which Landlock would not cover. The process gives way to others from the first frame on, not
    before: beside REPLs that use all cores it would else take seconds until it is ready.

    Raises:
        OSError: a wall could not be put up.
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
    link.send(wire.encode("ready", {}))
    frame = link.wait(todo)
    give_way()
    # Not a `threading.Thread`: model code would find it listed among its own.
    _thread.start_new_thread(end_with_host, (sock,))
    while True:
        worker.handle(frame)
        frame = link.wait(todo)
