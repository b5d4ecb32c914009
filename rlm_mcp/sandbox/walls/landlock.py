"""Landlock: denies all paths, TCP ports, abstract sockets and signals to other processes, for good.

The ruleset handles every right the running kernel knows and allows none. It holds even if the list
of system calls has a hole. Linux 5.13 and later; the ABI number tells which rights the kernel knows
(https://docs.kernel.org/userspace-api/landlock.html).
"""

from __future__ import annotations

import ctypes
import os
import struct

_CREATE_RULESET, _RESTRICT_SELF = 444, 446  # the same number on every architecture
_FILE_RIGHTS_BY_ABI = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
_NETWORK_ABI, _NETWORK_RIGHTS = 4, 0b11  # bind and connect, TCP
_SCOPE_ABI, _SCOPES = 6, 0b11  # abstract UNIX sockets, signals


def abi() -> int:
    """Return the kernel's Landlock ABI version; 0 if it has none."""
    return max(_call(_CREATE_RULESET, None, 0, 1), 0)


def restrict() -> None:
    """Deny this thread and what it starts every right Landlock handles. Needs no_new_privs.

    Raises:
        OSError: the kernel has no Landlock, or refuses the ruleset.
    """
    version = abi()
    if not version:
        raise OSError(ctypes.get_errno(), "the kernel has no Landlock")
    attributes = ctypes.create_string_buffer(ruleset(version))
    descriptor = _call(_CREATE_RULESET, attributes, len(ruleset(version)), 0)
    if descriptor < 0:
        raise _error()
    try:
        if _call(_RESTRICT_SELF, descriptor, 0, 0):
            raise _error()
    finally:
        os.close(descriptor)


def ruleset(version: int) -> bytes:
    """Encode `struct landlock_ruleset_attr` for an ABI version."""
    files = sum(rights for since, rights in _FILE_RIGHTS_BY_ABI.items() if version >= since)
    packed = struct.pack("=Q", files)
    if version >= _NETWORK_ABI:
        packed += struct.pack("=Q", _NETWORK_RIGHTS)
    if version >= _SCOPE_ABI:
        packed += struct.pack("=Q", _SCOPES)
    return packed


def _call(number: int, *arguments: ctypes.Array[ctypes.c_char] | int | None) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    given = [
        ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments
    ]
    return libc.syscall(ctypes.c_long(number), *given)


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
