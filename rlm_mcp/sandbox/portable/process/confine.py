"""The second layer: what is put round the process whose instance is the wall.

On Linux the list of system calls and Landlock of the native wall, when the module is loaded; on
macOS a Seatbelt profile, on Windows a job, both of which the host puts round it, and a policy that
the process sets itself (neither was run there).
Each is defence in depth: where one is missing the wall still holds, and its absence is reported.
"""

from __future__ import annotations

import codecs
import contextlib
import ctypes
import json
import os
import sys
from collections.abc import Callable
from typing import Any

if sys.platform == "linux":
    from rlm_mcp.sandbox.walls import landlock, limits, namespaces, seccomp

NICENESS = 5  # lower than the server's priority by this
LOWEST_PRIORITY = 19
NO_CHILDREN = "no child processes"
CHILD_POLICY = 13  # PROCESS_MITIGATION_POLICY.ProcessChildProcessPolicy


def confine() -> None:
    """Put up what this system has, and report on standard output what holds."""
    for encoding in ("utf-8", "utf-16-le", "utf-32-le", "latin-1"):  # files are out of reach soon
        codecs.lookup(encoding)
    layers, missing = list[str](), list[str]()
    if sys.platform == "linux":
        for layer, put_up in (("landlock", _landlock), ("seccomp", _seccomp)):
            why = _error_of(put_up)
            if why:
                missing.append(f"{layer}: {why}")
            else:
                layers.append(layer)
    elif sys.platform == "win32":
        why = _error_of(_no_child_processes)
        if why:
            missing.append(f"{NO_CHILDREN}: {why}")
        else:
            layers.append(NO_CHILDREN)
    os.write(1, json.dumps({"layers": layers, "missing": missing}).encode() + b"\n")


def lower_priority() -> int:
    """Return the priority that the instance's thread takes on; as one that seccomp allows."""
    if sys.platform != "linux":
        return 0
    return max(0, min(LOWEST_PRIORITY, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS))


def give_way(priority: int) -> None:
    """Lower the priority of this thread, once model code may run in it."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # only unusual policies refuse a lower priority
            os.setpriority(os.PRIO_PROCESS, 0, priority)


def _landlock() -> None:
    assert sys.platform == "linux"  # noqa: S101  # for the type checker: called there alone
    limits.limit(0, 0)  # no files, no core, few descriptors; memory is limited by wasmtime
    namespaces.give_up_privileges()
    landlock.restrict()


def _seccomp() -> None:
    assert sys.platform == "linux"  # noqa: S101  # likewise
    seccomp.restrict()


def _no_child_processes(kernel32: Any = None) -> None:
    """Ask Windows to refuse further processes; has not been run there."""
    loader: Any = getattr(ctypes, "WinDLL", None)
    library = kernel32 or loader("kernel32")
    flag = ctypes.c_uint32(1)
    if not library.SetProcessMitigationPolicy(CHILD_POLICY, ctypes.byref(flag), 4):
        raise OSError(0, "Windows refuses the policy")


def _error_of(step: Callable[[], None]) -> str:
    try:
        step()
    except OSError as error:
        return error.strerror or str(error)
    return ""
