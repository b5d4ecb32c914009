"""A `str` whose characters stay where they lie, in a mapped file. Runs in a REPL's holder.

CPython keeps an ASCII string as a header with the characters right behind it. So a file that
begins with room for a header, holds ASCII text and a zero byte after it, is a string as soon as
the header is filled in. Nothing is decoded and nothing copied, which for a large text is most of
what loading costs, and the text is in memory once instead of twice while it loads. Forks share its
pages, and since none but the first is ever written, a fork has no page tables of it to copy.

Which header an interpreter wants is taken from a string of its own; where that does not look as
expected, `ascii_text` returns None and the text is decoded.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
import sys

TEXT_START = 64  # bytes; room for any header, and keeps the characters aligned
LEAST_BYTES = 1 << 16  # a smaller text is decoded in no time
_SAMPLE = b"a text that no interpreter keeps"
_WORD = struct.Struct("@n")
_OBJECT_BYTES = 16  # reference count and type
_LENGTH, _HASH = 16, 24  # offsets, in bytes
_NO_HASH = -1
_FOR_EVER = 1 << 29  # references: never freed, and yet no number with a meaning of its own


def ascii_text(descriptor: int, file_bytes: int, text_bytes: int) -> str | None:
    """Return the ASCII text that a file holds from `TEXT_START` on, with a zero byte after it.

    The mapping stays for as long as the process lives. None if this interpreter lays out strings
    in a way that is not known here.

    Raises:
        OSError: the file cannot be mapped.
    """
    header = _header(text_bytes)
    if header is None:
        return None
    file = mmap.mmap(descriptor, file_bytes, access=mmap.ACCESS_COPY)
    first = ctypes.c_char.from_buffer(file)
    base = ctypes.addressof(first)
    _make_read_only(base + mmap.PAGESIZE, file_bytes - mmap.PAGESIZE)
    start = base + TEXT_START - len(header)
    ctypes.memmove(start, header, len(header))
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(first))  # which keeps the mapping from being closed
    return ctypes.cast(start, ctypes.py_object).value


def _header(length: int) -> bytes | None:
    """Return the header of an ASCII string of `length`, or None if it is not as expected."""
    sample = _SAMPLE.decode("ascii")
    size = sys.getsizeof("") - 1
    whole = ctypes.string_at(id(sample), size + len(_SAMPLE) + 1)
    is_known = (
        sys.implementation.name == "cpython"
        and object.__basicsize__ == _OBJECT_BYTES
        and size in (40, 48)  # from 3.12 on, and before
        and whole[size:] == _SAMPLE + b"\0"
        and _WORD.unpack_from(whole, _LENGTH) == (len(_SAMPLE),)
        and _WORD.unpack_from(whole, _HASH) == (_NO_HASH,)
    )
    if not is_known:
        return None
    header = bytearray(whole[:size])
    _WORD.pack_into(header, 0, _FOR_EVER)
    _WORD.pack_into(header, _LENGTH, length)
    return bytes(header)


def _make_read_only(start: int, size: int) -> None:
    """Split the mapping before anything is written to it: forks copy no tables of what is not."""
    if size > 0:
        protect = ctypes.CDLL(None).mprotect
        protect(ctypes.c_void_p(start), ctypes.c_size_t(size), ctypes.c_int(mmap.PROT_READ))
