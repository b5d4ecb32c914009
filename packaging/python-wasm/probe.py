"""Runs a freshly built module once and writes down what only running it shows.

`python probe.py MODULE` prints JSON: which words of memory an interrupt sets, how far the
characters of a `str` and the bytes of a `bytes` lie behind its start, and what is imported.
"""

from __future__ import annotations

import ctypes
import json
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn

import wasmtime

SIGINT = 2
STACK_BYTES = 32 << 20


class Probe:
    """An instance that is given nothing: what is called here needs nothing of the outside."""

    def __init__(self, path: Path) -> None:
        self._store = wasmtime.Store()
        module = wasmtime.Module(self._store.engine, path.read_bytes())
        self.imports = sorted({one.name for one in module.imports})
        given = [wasmtime.Func(self._store, one.type, _refuse) for one in module.imports]
        self._exports = wasmtime.Instance(self._store, module, given).exports(self._store)

    def call(self, name: str, *arguments: int) -> int:
        """Call an exported function."""
        said: Any = self._exports[name](self._store, *arguments)  # pyright: ignore[reportCallIssue]
        return said & 0xFFFFFFFF if isinstance(said, int) else 0

    def memory(self) -> bytes:
        """Copy all memory."""
        memory: Any = self._exports["memory"]
        return ctypes.string_at(memory.data_ptr(self._store), memory.data_len(self._store))

    def facts(self) -> dict[str, object]:
        """Find out what the host of a REPL must know."""
        self.call("PyGILState_Ensure")
        text = self.call("PyUnicode_New", 8, 127)
        data = self.call("PyBytes_FromStringAndSize", 0, 8)
        return {
            "imports": self.imports,
            "text_header_bytes": self.call("PyUnicode_AsUTF8", text) - text,
            "bytes_header_bytes": self.call("PyBytes_AsString", data) - data,
            "interrupt_words": self._interrupt_words(),
        }

    def _interrupt_words(self) -> list[tuple[int, int]]:
        """Find the words that `PyErr_SetInterruptEx` sets, and the bits of each."""
        before = self.memory()
        self.call("PyErr_SetInterruptEx", SIGINT)
        after = self.memory()
        words = zip(memoryview(before).cast("I"), memoryview(after).cast("I"), strict=True)
        return [(4 * at, old ^ new) for at, (old, new) in enumerate(words) if old != new]


def _refuse(*_: object) -> NoReturn:
    raise PermissionError("a probe is given nothing")


def main() -> None:
    """Print the facts of a module."""
    facts: list[dict[str, object]] = []
    threading.stack_size(STACK_BYTES)
    thread = threading.Thread(target=lambda: facts.append(Probe(Path(sys.argv[1])).facts()))
    thread.start()
    thread.join()
    sys.stdout.write(json.dumps(facts[0]))


if __name__ == "__main__":
    main()
