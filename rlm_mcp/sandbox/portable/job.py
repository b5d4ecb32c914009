"""Windows: a job object round the process of an instance. It has not been run on Windows.

The job ends its processes when its last handle is closed, by us or by the end of the server, and
allows one process of bounded memory and nothing of the desktop. Layouts and numbers are those of
`winnt.h`; a test compares the sizes.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

MOST_BYTES = 6 << 30  # an instance and its checkpoint take less
EXTENDED_LIMITS, UI_RESTRICTIONS = 9, 4  # classes of information
KILL_ON_CLOSE, PROCESS_MEMORY, ACTIVE_PROCESSES, DIE_ON_EXCEPTION = 0x2000, 0x100, 0x8, 0x400
ALL_UI = 0xFF
SET_QUOTA, TERMINATE = 0x0100, 0x0001


class BasicLimits(ctypes.Structure):
    """JOBOBJECT_BASIC_LIMIT_INFORMATION."""

    _fields_ = (
        ("PerProcessUserTimeLimit", ctypes.c_int64),
        ("PerJobUserTimeLimit", ctypes.c_int64),
        ("LimitFlags", ctypes.c_uint32),
        ("MinimumWorkingSetSize", ctypes.c_size_t),
        ("MaximumWorkingSetSize", ctypes.c_size_t),
        ("ActiveProcessLimit", ctypes.c_uint32),
        ("Affinity", ctypes.c_size_t),
        ("PriorityClass", ctypes.c_uint32),
        ("SchedulingClass", ctypes.c_uint32),
    )


class ExtendedLimits(ctypes.Structure):
    """JOBOBJECT_EXTENDED_LIMIT_INFORMATION."""

    _fields_ = (
        ("BasicLimitInformation", BasicLimits),
        ("IoInfo", ctypes.c_uint64 * 6),
        ("ProcessMemoryLimit", ctypes.c_size_t),
        ("JobMemoryLimit", ctypes.c_size_t),
        ("PeakProcessMemoryUsed", ctypes.c_size_t),
        ("PeakJobMemoryUsed", ctypes.c_size_t),
    )


@dataclass(frozen=True)
class Job:
    """A job that holds one process; closing it ends the process."""

    kernel32: Any
    handle: int

    def close(self) -> None:
        """Close the handle, which ends what is in the job."""
        self.kernel32.CloseHandle(ctypes.c_void_p(self.handle))


def windows_library() -> Any:
    """Load kernel32, whose handles are pointers."""
    loader: Any = getattr(ctypes, "WinDLL")  # noqa: B009  # on Windows alone
    kernel32 = loader("kernel32", use_last_error=True)
    for name in ("CreateJobObjectW", "OpenProcess"):
        getattr(kernel32, name).restype = ctypes.c_void_p
    return kernel32


def put_into_job(pid: int, kernel32: Any) -> Job:
    """Put a process into a job of its own. Blocking.

    Raises:
        OSError: Windows refuses, for instance inside a job that allows none within it.
    """
    handle: int = _checked(kernel32.CreateJobObjectW(None, None), "CreateJobObjectW")
    job = Job(kernel32, handle)
    try:
        _limit(job)
        process = _checked(kernel32.OpenProcess(SET_QUOTA | TERMINATE, 0, pid), "OpenProcess")
        try:
            _checked(
                kernel32.AssignProcessToJobObject(
                    ctypes.c_void_p(handle), ctypes.c_void_p(process)
                ),
                "AssignProcessToJobObject",
            )
        finally:
            kernel32.CloseHandle(ctypes.c_void_p(process))
    except OSError:
        job.close()
        raise
    return job


def _limit(job: Job) -> None:
    limits = ExtendedLimits()
    limits.BasicLimitInformation.LimitFlags = (
        KILL_ON_CLOSE | PROCESS_MEMORY | ACTIVE_PROCESSES | DIE_ON_EXCEPTION
    )
    limits.BasicLimitInformation.ActiveProcessLimit = 1
    limits.ProcessMemoryLimit = MOST_BYTES
    for kind, value in ((EXTENDED_LIMITS, limits), (UI_RESTRICTIONS, ctypes.c_uint32(ALL_UI))):
        done = job.kernel32.SetInformationJobObject(
            ctypes.c_void_p(job.handle), kind, ctypes.byref(value), ctypes.sizeof(value)
        )
        _checked(done, "SetInformationJobObject")


def _checked(result: Any, call: str) -> Any:
    if not result:
        get_last_error: Any = getattr(ctypes, "get_last_error", lambda: 0)  # on Windows alone
        raise OSError(get_last_error(), f"{call} failed with error {get_last_error()}")
    return result
