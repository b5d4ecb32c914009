"""Which process owns a run, and whether that process is surely dead."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc")


class _Owner(NamedTuple):
    """A process, distinguished from one with the same number at another time or place.

    `started` is in clock ticks since boot; `boot` and `namespace` say where numbers are counted.
    Empty where the platform does not say.
    """

    pid: str
    started: str
    boot: str
    namespace: str


def owner_id() -> str:
    """Return an id of this process that no other process ever has; blocks for file reads."""
    pid = os.getpid()
    return ":".join(_Owner(str(pid), _started(pid), _boot(), _namespace()))


def is_surely_dead(owner: str) -> bool:
    """Return whether the process with this id is known to be dead; blocks for file reads.

    False when it is alive, and also when that is unknown here: another machine or container
    shares the file, or the platform has no start times. For those, leases decide.
    """
    other = _known_here(owner)
    return other is not None and _started(int(other.pid)) != other.started


def is_surely_alive(owner: str) -> bool:
    """Return whether the process with this id is known to be alive; blocks for file reads.

    False when it is dead, and also when that is unknown here.
    """
    other = _known_here(owner)
    return other is not None and _started(int(other.pid)) == other.started


def _known_here(owner: str) -> _Owner | None:
    """Parse an id of a process on this machine."""
    parts = owner.split(":")
    if len(parts) != len(_Owner._fields):
        return None
    other = _Owner(*parts)
    is_whole = other.started and other.boot and other.namespace and other.pid.isdecimal()
    is_here = (other.boot, other.namespace) == (_boot(), _namespace())
    return other if is_whole and is_here else None


def _started(pid: int) -> str:
    # Field 22 of proc_pid_stat(5); the name before it may hold spaces and parentheses.
    fields = _read(_PROC / str(pid) / "stat").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 and fields[0] != "Z" else ""


def _boot() -> str:
    return _read(_PROC / "sys/kernel/random/boot_id").strip()


def _namespace() -> str:
    try:
        return str((_PROC / "self/ns/pid").readlink()).strip("pid:[]")
    except OSError:
        return ""


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
