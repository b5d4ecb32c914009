"""What the machine, or the container that we run in, has to give. All of it blocks.

Read by hand, not with psutil: that does not know a container's limits, and would be one more
compiled dependency for a few lines of /proc/meminfo.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

MIN_PLACES = 4
# Runs wait for models most of the time, so that a core serves many.
PLACES_A_CORE = 16
WANTED_DESCRIPTORS = 65_536
FEW_DESCRIPTORS = 256  # what a server for one person needs
MAX_CONNECTIONS = 8192
_OWN_DESCRIPTORS = 64  # of the database, the log, the warm process
_ROOMY = 512  # where there are more than this, the rest is for connections
_DESCRIPTORS_A_REPL = 4  # its socket and its process, and those of the holder of its text
_MEMINFO = Path("/proc/meminfo")
# A container's memory limit, with cgroups of version 2 and 1.
_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)

# What Docker and Podman lay into each container.
_CONTAINER_MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"))


def places(repl_bytes: int) -> int:
    """Say how many runs may work at once.

    As many as can all use their whole allowance without the machine running out
    of memory, and no more than keep its cores busy.

    Args:
        repl_bytes: the memory allowance of one REPL, its text not counted.
    """
    usable = min(PLACES_A_CORE * cores(), share_descriptors().places)
    memory = total_bytes()
    if memory is not None:
        usable = min(usable, max(MIN_PLACES, memory // repl_bytes))
    return usable


@dataclass(frozen=True)
class Descriptors:
    """How the files and sockets that this process may have open are shared out.

    Args:
        limit: of all of them.
        connections: of clients over HTTP.
        calls: to models at once.
        places: runs at work at once, and as many cells of callers beside them.
        kept: REPLs that wait for a further question.
    """

    limit: int
    connections: int
    calls: int
    places: int
    kept: int

    @classmethod
    def of(cls, limit: int) -> Descriptors:
        """Share out so many."""
        rest = max(0, limit - _OWN_DESCRIPTORS)
        return cls(
            limit,
            connections=max(8, rest // 3, min(MAX_CONNECTIONS, limit - _ROOMY)),
            calls=max(2, rest // 6),
            places=max(2, rest // (6 * _DESCRIPTORS_A_REPL)),
            kept=max(1, rest // (6 * _DESCRIPTORS_A_REPL)),
        )


def share_descriptors() -> Descriptors:
    """Ask for as many descriptors as there may be, and share them out."""
    if sys.platform == "win32":  # it has no such limit
        return Descriptors.of(WANTED_DESCRIPTORS)
    import resource  # noqa: PLC0415  # not everywhere

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = WANTED_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, WANTED_DESCRIPTORS)
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return Descriptors.of(max(soft, most))


def cores() -> int:
    """Count the processors that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def is_container() -> bool:
    """Whether this process is in a container of Docker, Podman or Buildah."""
    return any(mark.exists() for mark in _CONTAINER_MARKS)


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
