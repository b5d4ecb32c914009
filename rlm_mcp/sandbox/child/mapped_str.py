"""A `str` whose characters stay in a mapped file. Runs in a REPL's holder.

CPython stores an ASCII string as a header directly followed by its characters. So a file with room
for a header, then ASCII text, then a zero byte, is a string once the header is filled in. Nothing
is decoded or copied, which is most of the cost of loading a large text, and while it loads the text
is in memory once instead of twice. Forks share its pages, and since only the first page is ever
written, a fork has no page tables of it to copy.

The header is copied from a string of this interpreter. Where that does not look as expected, or the
interpreter's version was not tested, `ascii_text` returns None and the text is decoded.

This is the one module that relies on private parts of CPython: the layout of `PyASCIIObject`, the
unset hash, and that a large reference count is never freed. `tests/test_private_parts.py` has a
test for each, which fails first when one of them changes.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import sys

from rlm_mcp.sandbox.layout import TEXT_START

LEAST_BYTES = 1 << 16  # smaller texts are decoded: it takes no measurable time
_SAMPLE = b"a text that no interpreter interns"
_WORD = struct.Struct("@n")
_TESTED = ((3, 11), (3, 12), (3, 13))  # other versions decode
_OBJECT_BYTES = 16  # reference count and type
_HEADER_BYTES = (40, 48)  # from 3.12 on, and before
_LENGTH, _HASH = 16, 24  # offsets, in bytes
_NO_HASH = -1
_FAILED = ctypes.c_void_p(-1).value  # MAP_FAILED
_NEVER_FREED = 1 << 29  # references; below the numbers that mean "immortal" from 3.12 on


def ascii_text(descriptor: int, file_bytes: int, text_bytes: int) -> str | None:
    """Return the ASCII text that a file holds from `TEXT_START` on, with a zero byte after it.

    The mapping stays until the process ends. None if this interpreter's layout of strings was not
    tested.

    Raises:
        OSError: the file cannot be mapped.
    """
    header = _header(text_bytes)
    if header is None:
        return None
    start = _mapped(descriptor, file_bytes) + TEXT_START - len(header)
    ctypes.memmove(start, header, len(header))
    return ctypes.cast(start, ctypes.py_object).value


def _header(length: int) -> bytes | None:
    """Return the header of an ASCII string of `length`; None if this interpreter was not tested."""
    sample = _SAMPLE.decode("ascii")
    size = sys.getsizeof("") - 1
    is_tested = sys.implementation.name == "cpython" and sys.version_info[:2] in _TESTED
    if not is_tested or object.__basicsize__ != _OBJECT_BYTES:  # larger in a build without the GIL
        return None
    return header_like(ctypes.string_at(id(sample), size + len(_SAMPLE) + 1), size, length)


def header_like(sample: bytes, size: int, length: int) -> bytes | None:
    """Return the header of a sample string, changed to a string of `length`.

    Args:
        sample: the bytes of the sample string: header, characters, a zero byte.
        size: bytes of the header.

    Returns None if the sample does not look as expected.
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
    _WORD.pack_into(header, 0, _NEVER_FREED)
    _WORD.pack_into(header, _LENGTH, length)
    return bytes(header)


def _mapped(descriptor: int, size: int) -> int:
    """Map a file for good, its first page writable in a copy of it; return the address.

    Mapped read-only first: what may be written counts as memory that the machine must have, and the
    text may be larger. And forks copy no page tables of what nobody writes.

    Raises:
        OSError: the file cannot be mapped.
    """
    library = ctypes.CDLL(None, use_errno=True)
    library.mmap.restype = ctypes.c_void_p
    whole = (ctypes.c_size_t(size), mmap.PROT_READ, mmap.MAP_PRIVATE, descriptor, ctypes.c_long(0))
    address = library.mmap(None, *whole)
    if address is None or address == _FAILED:
        raise _last_error()
    page = (ctypes.c_void_p(address), ctypes.c_size_t(mmap.PAGESIZE))
    if library.mprotect(*page, mmap.PROT_READ | mmap.PROT_WRITE):
        raise _last_error()
    return address


def _last_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
