"""The walls around a REPL: which there are, which hold here, and the order of putting them up.

The warm process enters namespaces before it starts a thread, and gives up privileges when
everything that needs files is in memory. Each REPL gets limits, Landlock and seccomp before its
first instruction of model code. Seccomp is the main wall; the others are defence in depth.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rlm_mcp.sandbox.types import THREAD_LIMIT, Walls
from rlm_mcp.sandbox.walls import landlock, limits, namespaces, seccomp

REPL_NICENESS = 10  # lower than that of the warm process by this
LOWEST_PRIORITY = 19
OOM_SCORE = 1000  # when memory runs out, REPLs go first


@dataclass
class WallReport:
    """Which walls hold, and why the others do not, each in a few words."""

    layers: list[str] = field(default_factory=list[str])
    missing: list[str] = field(default_factory=list[str])

    def note(self, layer: str, error: str) -> None:
        """Add a layer; with an error, to the missing ones."""
        if error:
            self.missing.append(f"{layer}: {error}")
        else:
            self.layers.append(layer)


def enter_namespaces(walls: Walls, report: WallReport) -> bool:
    """Enter namespaces; True if the caller must fork, to become the first process inside."""
    architecture = seccomp.machine()
    if not walls.namespaces or architecture is None:
        report.note("namespaces", "not asked for" if architecture else "unknown architecture")
        return False
    try:
        namespaces.enter(architecture)
    except OSError as error:
        report.note("namespaces", f"the system refuses them ({error.strerror})")
        return False
    return True


def give_up_files(report: WallReport, *, in_namespaces: bool) -> None:
    """Give up the file system, root and every capability, in the warm process."""
    architecture = seccomp.machine()
    with contextlib.suppress(OSError):  # /proc is read-only: the kernel's default order applies
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE), "ascii")
    if in_namespaces and architecture is not None:
        report.note("namespaces", _error_of(lambda: namespaces.empty_root(architecture)))
    if architecture is not None:
        dropped = _error_of(lambda: namespaces.drop_capabilities_and_user(architecture))
        if dropped:
            report.note("unprivileged user", dropped)
    namespaces.give_up_privileges()


def try_walls(walls: Walls, report: WallReport) -> Walls:
    """Try the walls of a REPL in a child that is thrown away; return those that hold."""
    has_landlock = walls.landlock and _holds("landlock", landlock.restrict, report)
    if not walls.landlock:
        report.note("landlock", "not asked for")
    has_seccomp = walls.seccomp and _holds("seccomp", seccomp.restrict, report)
    if not walls.seccomp:
        report.note("seccomp", "not asked for")
    has_thread_limit = walls.thread_limit and _holds(THREAD_LIMIT, _limit_threads, report)
    return Walls(has_seccomp, has_landlock, walls.namespaces, has_thread_limit)


def confine_repl(walls: Walls, memory_bytes: int, mapped: int) -> None:
    """Put up the walls of this REPL; untrusted code may run afterwards.

    Raises:
        OSError: a wall that held in the trial failed.
    """
    if walls.thread_limit:
        _limit_threads()
    namespaces.die_with_parent()
    namespaces.use_small_pages()
    limits.limit(memory_bytes, mapped)
    if walls.landlock:
        landlock.restrict()
    if walls.seccomp:
        seccomp.restrict()


def repl_niceness() -> int:
    """Return the niceness that a REPL takes on, as one that seccomp allows: it is never below 0."""
    return max(0, min(LOWEST_PRIORITY, os.getpriority(os.PRIO_PROCESS, 0) + REPL_NICENESS))


def give_way(niceness: int) -> None:
    """Lower the priority of this process for good; nothing lets it rise again."""
    with contextlib.suppress(OSError):  # only unusual policies refuse a lower priority
        os.setpriority(os.PRIO_PROCESS, 0, niceness)


def _limit_threads() -> None:
    architecture = seccomp.machine()
    if architecture is None:
        raise OSError(0, "unknown architecture")
    namespaces.enter_user_namespace(architecture)
    namespaces.give_up_privileges()  # again: entering a user namespace clears it
    limits.limit_threads()


def _holds(layer: str, put_up: Callable[[], None], report: WallReport) -> bool:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        # Whatever happens here, this copy of the process must end.
        try:
            os.write(writer, (_error_of(put_up) or "holds").encode())
        finally:
            os._exit(0)
    os.close(writer)
    said = os.read(reader, 1000).decode("utf-8", "replace")
    os.close(reader)
    os.waitpid(child, 0)
    report.note(layer, "" if said == "holds" else said or "the trial process died")
    return said == "holds"


def _error_of(step: Callable[[], None]) -> str:
    try:
        step()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def ignore_interrupts() -> None:
    """Ignore SIGINT, except in REPLs: a terminal's Ctrl-C is for the host."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
