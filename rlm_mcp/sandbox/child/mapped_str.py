"""A `str` whose characters stay where they lie, in a mapped file. Runs in a REPL's holder.

CPython keeps an ASCII string as a header with the characters right behind it. So a file that
begins with room for a header, holds ASCII text and a zero byte after it, is a string as soon as
the header is filled in. Nothing is decoded and nothing copied, which for a large text is most of
what loading costs, and the text is in memory once instead of twice while it loads. Forks share its
pages, and since none but the first is ever written, a fork has no page tables of it to copy.

Which header an interpreter wants is taken from a string of its own. Where that does not look as
expected, or the interpreter is one that was not tried, `ascii_text` returns None and the text is
decoded.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
import sys

from rlm_mcp.sandbox.layout import TEXT_START

LEAST_BYTES = 1 << 16  # a smaller text is decoded in no time
_SAMPLE = b"a text that no interpreter keeps"
_WORD = struct.Struct("@n")
_TRIED = ((3, 11), (3, 12), (3, 13))  # a later interpreter decodes until it was tried too
_OBJECT_BYTES = 16  # reference count and type
_HEADER_BYTES = (40, 48)  # from 3.12 on, and before
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
    """Return the header of an ASCII string of `length`, or None where this interpreter is new."""
    sample = _SAMPLE.decode("ascii")
    size = sys.getsizeof("") - 1
    is_tried = sys.implementation.name == "cpython" and sys.version_info[:2] in _TRIED
    if not is_tried or object.__basicsize__ != _OBJECT_BYTES:  # it is larger without a GIL
        return None
    return header_like(ctypes.string_at(id(sample), size + len(_SAMPLE) + 1), size, length)


def header_like(sample: bytes, size: int, length: int) -> bytes | None:
    """Return a header of `size` bytes as a sample string has it, but for a string of `length`.

    None if the sample, header and characters, does not look as expected.
    """
    is_known = (
        size in _HEADER_BYTES
        and sample[size:] == _SAMPLE + b"\0"
        and _WORD.unpack_from(sample, _LENGTH) == (len(_SAMPLE),)
        and _WORD.unpack_from(sample, _HASH) == (_NO_HASH,)
    )
    if not is_known:
        return None
    header = bytearray(sample[:size])
    _WORD.pack_into(header, 0, _FOR_EVER)
    _WORD.pack_into(header, _LENGTH, length)
    return bytes(header)


def _make_read_only(start: int, size: int) -> None:
    """Split the mapping before anything is written to it: forks copy no tables of what is not."""
    if size > 0:
        protect = ctypes.CDLL(None).mprotect
        protect(ctypes.c_void_p(start), ctypes.c_size_t(size), ctypes.c_int(mmap.PROT_READ))
