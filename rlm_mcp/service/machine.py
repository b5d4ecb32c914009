"""What the machine, or the container that we run in, has to give. All of it blocks."""

from __future__ import annotations

import os
import sys
from pathlib import Path

MIN_PLACES = 4
# Runs wait for models most of the time, so that a core serves many.
PLACES_A_CORE = 16
_MEMINFO = Path("/proc/meminfo")
# A container's memory limit, with cgroups of version 2 and 1.
_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def places(repl_bytes: int) -> int:
    """Say how many runs may work at once.

    As many as can all use their whole allowance without the machine running out
    of memory, and no more than keep its cores busy.

    Args:
        repl_bytes: the memory allowance of one REPL, its text not counted.
    """
    usable = PLACES_A_CORE * cores()
    memory = total_bytes()
    if memory is not None:
        usable = min(usable, memory // repl_bytes)
    return max(MIN_PLACES, usable)


def cores() -> int:
    """Count the processors that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def total_bytes() -> int | None:
    """Return the memory of the machine or container in bytes; None where it is not known."""
    known = [memory_bytes("MemTotal"), *map(_limit, _LIMITS)]
    return min((size for size in known if size is not None), default=None)


def memory_bytes(name: str) -> int | None:
    """Read a line of /proc/meminfo, such as `MemAvailable`; None where there is no such line."""
    for line in _read(_MEMINFO).splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None


def _limit(path: Path) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdecimal() else None  # "max" is none


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""
