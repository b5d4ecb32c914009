"""The walls around a REPL: which there are, which stand here, and the order they go up in.

Namespaces are entered by the warm process before it starts a thread; privileges are given up when
everything that needs files is in memory; limits, Landlock and seccomp go up in each REPL before
its first instruction of model code. Seccomp is the wall, the others stand behind it.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rlm_mcp.sandbox.types import Walls
from rlm_mcp.sandbox.walls import landlock, limits, namespaces, seccomp

REPL_NICENESS = 10
OOM_SCORE = 1000  # when memory runs out, REPLs go first


@dataclass
class Standing:
    """Which walls stand, and why the others do not, each in a few words."""

    layers: list[str] = field(default_factory=list[str])
    missing: list[str] = field(default_factory=list[str])

    def note(self, layer: str, error: str) -> None:
        """Add a layer; with an error, to those that are missing."""
        if error:
            self.missing.append(f"{layer}: {error}")
        else:
            self.layers.append(layer)


def enter_namespaces(walls: Walls, standing: Standing) -> bool:
    """Enter namespaces; True if a child must be forked, which is the first process in there."""
    architecture = seccomp.machine()
    if not walls.namespaces or architecture is None:
        standing.note("namespaces", "not asked for" if architecture else "unknown architecture")
        return False
    try:
        namespaces.enter(architecture)
    except OSError as error:
        standing.note("namespaces", f"the system refuses them ({error.strerror})")
        return False
    return True


def give_up_files(standing: Standing, *, in_namespaces: bool) -> None:
    """Leave the file system, root and every capability, in the warm process."""
    architecture = seccomp.machine()
    with contextlib.suppress(OSError):  # a read-only /proc; the kernel's default order holds then
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE), "ascii")
    if in_namespaces and architecture is not None:
        standing.note("namespaces", _error_of(lambda: namespaces.empty_root(architecture)))
    if architecture is not None:
        dropped = _error_of(lambda: namespaces.drop_capabilities_and_user(architecture))
        if dropped:
            standing.note("unprivileged user", dropped)
    namespaces.give_up_privileges()


def find_standing(walls: Walls, standing: Standing) -> Walls:
    """Put the walls of a REPL up in a child that is thrown away; return those that stood."""
    has_landlock = walls.landlock and _stands("landlock", landlock.restrict, standing)
    if not walls.landlock:
        standing.note("landlock", "not asked for")
    has_seccomp = walls.seccomp and _stands("seccomp", _install_seccomp, standing)
    if not walls.seccomp:
        standing.note("seccomp", "not asked for")
    return Walls(seccomp=has_seccomp, landlock=has_landlock, namespaces=walls.namespaces)


def confine_repl(walls: Walls, memory_bytes: int, mapped: int) -> None:
    """Put up the walls of this REPL; what follows may be anybody's code.

    Raises:
        OSError: one that stood before does not stand now.
    """
    namespaces.die_with_parent()
    namespaces.use_small_pages()
    with contextlib.suppress(OSError):  # a lower priority is never refused, but by odd policies
        os.nice(REPL_NICENESS)
    limits.limit(memory_bytes, mapped)
    if walls.landlock:
        landlock.restrict()
    if walls.seccomp:
        _install_seccomp()


def _install_seccomp() -> None:
    architecture = seccomp.machine()
    if architecture is None:
        raise OSError(0, "no list of system calls for this architecture")
    seccomp.install(seccomp.program(architecture), architecture)


def _stands(layer: str, put_up: Callable[[], None], standing: Standing) -> bool:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        # Whatever happens in here, this copy of the process must not go on.
        try:
            os.write(writer, (_error_of(put_up) or "stands").encode())
        finally:
            os._exit(0)
    os.close(writer)
    said = os.read(reader, 1000).decode("utf-8", "replace")
    os.close(reader)
    os.waitpid(child, 0)
    standing.note(layer, "" if said == "stands" else said or "the trial ended early")
    return said == "stands"


def _error_of(step: Callable[[], None]) -> str:
    try:
        step()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def ignore_interrupts() -> None:
    """Leave SIGINT to REPLs: a terminal's Ctrl-C is the host's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
