"""One instance of the module: a Python that is entered, filled, interrupted, and put back."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import wasmtime

from rlm_mcp.sandbox.portable.process.imports import Imports, Outside
from rlm_mcp.sandbox.portable.process.memory import GuestError, Memory

PAGE_BYTES = 1 << 16
MAX_ANSWER_BYTES = 64 << 20
MOST_TEXT_BYTES = (1 << 31) - 64  # a `str` or `bytes` of 32-bit Python holds less than 2 GiB
_WIDEST = {0: 0x7F, 1: 0xFF, 2: 0xFFFF, 4: 0x10FFFF}


@dataclass(frozen=True)
class Facts:
    """What the build found out of the module's memory."""

    text_header_bytes: int
    bytes_header_bytes: int
    interrupt_words: Sequence[tuple[int, int]]

    @classmethod
    def of(cls, said: dict[str, Any]) -> Facts:
        """Take them out of what the build wrote down."""
        return cls(said["text_header_bytes"], said["bytes_header_bytes"], said["interrupt_words"])


Code = tuple[wasmtime.Engine, wasmtime.Module]
ReadInto = Callable[[memoryview], None]


@dataclass(frozen=True)
class Checkpoint:
    """A copy of all memory but the text, and where the stack was."""

    size: int
    copy: ctypes.Array[ctypes.c_char]
    stack: int


class Instance:
    """A Python in WebAssembly. One thread runs it; `interrupt` and `trap` come from another."""

    def __init__(self, code: Code, facts: Facts, memory_bytes: int, outside: Outside) -> None:
        self._code, self._facts, self._memory_bytes = code, facts, memory_bytes
        self._outside = outside
        self._text = (0, 0)  # where it lies, and how long it is
        self._room: ctypes.Array[ctypes.c_char] | None = None  # used again for each checkpoint
        self._open()

    def _open(self) -> None:
        engine, module = self._code
        self._store = wasmtime.Store(engine)
        self._store.set_limits(memory_size=self._memory_bytes, instances=1, memories=1, tables=1)
        self._store.set_epoch_deadline(1)
        imports = self.imports = Imports(self._outside, self._allocate)
        linker = wasmtime.Linker(engine)
        linker.allow_shadowing = True  # some functions are imported twice
        for wanted in module.imports:
            handler = imports.handler(wanted.name or "")
            linker.define_func(wanted.module, wanted.name or "", wanted.type, handler)  # pyright: ignore[reportArgumentType]  # all of them are functions
        self._exports: Any = linker.instantiate(self._store, module).exports(self._store)
        self.memory = imports.memory = Memory(self._store, self._exports["memory"])

    def limit(self, memory_bytes: int) -> None:
        """Bound its memory; more than that is a `MemoryError` inside."""
        self._memory_bytes = memory_bytes
        self._store.set_limits(memory_size=memory_bytes, instances=1, memories=1, tables=1)

    def grow_to(self, size: int) -> None:
        """Give it so many bytes of memory, where it has fewer.

        Raises:
            GuestError: there is no room.
        """
        self.memory.grow(max(size - self.memory.size, 0) // PAGE_BYTES)

    @property
    def stack(self) -> int:
        """Where its stack is; beside its memory, all that changes."""
        return self._exports["__stack_pointer"].value(self._store)

    @stack.setter
    def stack(self, place: int) -> None:
        self._exports["__stack_pointer"].set_value(self._store, wasmtime.Val.i32(place))

    # --- calling ---

    def _call(self, name: str, *arguments: int) -> int:
        try:
            said = self._exports[name](self._store, *arguments)
        except (wasmtime.Trap, wasmtime.WasmtimeError) as error:
            raise GuestError(_last_line(error)) from None
        return said & 0xFFFFFFFF if isinstance(said, int) else 0

    def _allocate(self, alignment: int, size: int) -> int:
        return self._call("cabi_realloc", 0, 0, alignment, size)

    def _lowered(self, data: bytes) -> tuple[int, int]:
        place = self._allocate(1, max(len(data), 1))  # the guest frees it, whatever its length
        self.memory.write(place, data)
        return place, len(data)

    def enter(self, kind: str, data: bytes) -> bytes:
        """Run what the guest does for a kind of request; return its answer.

        Raises:
            GuestError: it trapped. Its memory is not to be used before `restore`.
        """
        self._store.set_epoch_deadline(1)
        place = self._call("enter", *self._lowered(kind.encode()), *self._lowered(data))
        where, length = self.memory.unpack("<II", place)
        if length > MAX_ANSWER_BYTES:
            raise GuestError(f"it answered with {length} bytes")
        answer = self.memory.read(where, length)
        self._call("cabi_post_enter", place)
        return answer

    # --- the text, which goes where the guest's own `str` keeps it ---

    def fill_text(self, name: str, characters: int, width: int, read_into: ReadInto) -> None:
        """Make a `str` named `name` in `builtins`, of 1, 2 or 4 bytes a character; 0 is ASCII.

        Raises:
            MemoryError: there is no room for it.
        """
        size = characters * max(width, 1)
        _check_size(size)
        header = self._facts.text_header_bytes + (0 if width == 0 else 8)
        with_length = ("PyUnicode_New", characters, _WIDEST[width])
        self._fill(name, with_length, (header, size), read_into)

    def fill_bytes(self, name: str, size: int, read_into: ReadInto) -> None:
        """Make a `bytes` named `name` in `builtins`.

        Raises:
            MemoryError: there is no room for it.
        """
        _check_size(size)
        asked = ("PyBytes_FromStringAndSize", 0, size)
        self._fill(name, asked, (self._facts.bytes_header_bytes, size), read_into)

    def _fill(
        self, name: str, made_by: tuple[str, int, int], body: tuple[int, int], read_into: ReadInto
    ) -> None:
        header, size = body
        state = self._call("PyGILState_Ensure")
        value = self._call(*made_by)
        if not value:
            raise MemoryError
        if size:  # an empty `str` or `bytes` is one that all share
            self._text = (value + header, size)
            read_into(self.memory.view(value + header, size))
        at, _ = self._lowered(b"builtins\0" + name.encode() + b"\0")
        builtins = self._call("PyModule_GetDict", self._call("PyImport_AddModule", at))
        self._call("PyDict_SetItemString", builtins, at + len(b"builtins\0"), value)
        self._call("Py_DecRef", value)
        self._call("PyGILState_Release", state)

    # --- stopping it, from another thread ---

    def interrupt(self) -> None:
        """Do what `PyErr_SetInterruptEx(SIGINT)` does; the guest sees it at its next check."""
        for place, bits in self._facts.interrupt_words:
            self.memory.set_bits(place, bits)

    def trap(self) -> None:
        """End what runs, wherever it is."""
        self._code[0].increment_epoch()

    # --- going back ---

    def checkpoint(self, most_bytes: int) -> Checkpoint | None:
        """Copy all memory but the text; None where that is more than `most_bytes`."""
        size, base, (start, length) = self.memory.size, self.memory.base, self._text
        if size - length > most_bytes:
            return None
        if self._room is None or len(self._room) < size - length:
            self._room = ctypes.create_string_buffer(size - length + (8 << 20))
        room = ctypes.addressof(self._room)
        ctypes.memmove(room, base, start)
        ctypes.memmove(room + start, base + start + length, size - start - length)
        return Checkpoint(size, self._room, self.stack)

    def restore(self, kept: Checkpoint) -> None:
        """Go on as it was at a checkpoint, after a trap; in a fresh instance if it has grown."""
        old, (start, length) = self.memory, self._text
        former = (self._store, self._exports)  # which hold the old memory until it is copied
        if old.size != kept.size:
            self._open()
            self.grow_to(kept.size)
            ctypes.memmove(self.memory.base + start, old.base + start, length)
        room, base = ctypes.addressof(kept.copy), self.memory.base
        ctypes.memmove(base, room, start)
        ctypes.memmove(base + start + length, room + start, kept.size - start - length)
        self.stack = kept.stack
        del former


def _check_size(size: int) -> None:
    if size > MOST_TEXT_BYTES:
        raise MemoryError(f"a text of {size:,} bytes: the portable sandbox holds less than 2 GiB")


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1].strip()
