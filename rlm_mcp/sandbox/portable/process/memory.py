"""The memory of a WebAssembly instance, read and written only within its bounds."""

from __future__ import annotations

import ctypes
import struct
from typing import Any

import wasmtime


class GuestError(Exception):
    """The instance has trapped, or asked for something that no honest module asks for."""


class Memory:
    """Checked access to an instance's memory; addresses have 32 bits."""

    def __init__(self, store: wasmtime.Store, memory: Any) -> None:
        self._store, self._memory = store, memory
        self.base = ctypes.addressof(memory.data_ptr(store).contents)

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return self._memory.data_len(self._store)

    def address(self, place: int, length: int) -> int:
        """Return the address of a range that lies within.

        Raises:
            GuestError: it does not.
        """
        place &= 0xFFFFFFFF
        if length < 0 or place + length > self.size:
            raise GuestError(f"{length} bytes at {place} lie outside its memory")
        return self.base + place

    def read(self, place: int, length: int) -> bytes:
        """Copy bytes out."""
        return ctypes.string_at(self.address(place, length), length)

    def write(self, place: int, data: bytes) -> None:
        """Copy bytes in."""
        ctypes.memmove(self.address(place, len(data)), data, len(data))

    def view(self, place: int, length: int) -> memoryview:
        """Return a writable view of a range."""
        array = (ctypes.c_ubyte * length).from_address(self.address(place, length))
        return memoryview(array).cast("B")

    def unpack(self, form: str, place: int) -> tuple[int, ...]:
        """Read numbers."""
        return struct.unpack(form, self.read(place, struct.calcsize(form)))

    def pack(self, form: str, place: int, *values: int) -> None:
        """Write numbers."""
        self.write(place, struct.pack(form, *values))

    def set_bits(self, place: int, bits: int) -> None:
        """Set bits of a word that the guest may look at right now."""
        word = ctypes.c_uint32.from_address(self.address(place, 4))
        word.value |= bits

    def grow(self, pages: int) -> None:
        """Add pages of 64 KiB.

        Raises:
            GuestError: there is no room.
        """
        try:
            self._memory.grow(self._store, pages)
        except wasmtime.WasmtimeError as error:
            raise GuestError(f"its memory cannot grow by {pages} pages") from error
