"""Resource limits of a REPL's process, on every platform that has them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from pathlib import Path

if sys.platform != "win32":  # the host imports this everywhere
    import resource

STACK_BYTES = 8 << 20
OPEN_FILES = 64
MAX_THREADS = 256
CPU_SECONDS = 6 * 3600  # of a REPL's whole life: a backstop behind the time limits of its cells
_M_ARENA_MAX = -8


def mapped_bytes() -> int:
    """Return the size of this process's address space in bytes; 0 if unknown."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    except (OSError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def share_arenas() -> None:
    """Make threads share glibc's memory arenas: each takes 64 MiB of address space."""
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_M_ARENA_MAX, 2)


def limit(memory_bytes: int, mapped: int) -> None:
    """Limit memory to `memory_bytes` more than `mapped`; no file writes, no core dumps."""
    if mapped:
        _set(resource.RLIMIT_AS, mapped + memory_bytes)
    _set(resource.RLIMIT_CPU, CPU_SECONDS)
    _set(resource.RLIMIT_CORE, 0)
    _set(resource.RLIMIT_FSIZE, 0)
    _set(resource.RLIMIT_NOFILE, OPEN_FILES)
    _set(resource.RLIMIT_STACK, STACK_BYTES)
    for name in ("RLIMIT_MEMLOCK", "RLIMIT_MSGQUEUE", "RLIMIT_NICE"):  # Linux
        if hasattr(resource, name):
            _set(getattr(resource, name), 0)


def limit_threads() -> None:
    """Limit the threads of this user in this user namespace, which this process has to itself."""
    _set(resource.RLIMIT_NPROC, MAX_THREADS)


def _set(what: int, value: int) -> None:
    with contextlib.suppress(ValueError, OSError):  # a lower limit is already in force
        resource.setrlimit(what, (value, value))
