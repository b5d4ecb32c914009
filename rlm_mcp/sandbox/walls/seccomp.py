"""The system calls that a REPL may make; the main wall.

An allow-list whose default is EPERM: Python code sees a refused call as a `PermissionError` and
continues. It allows no call that takes a path, no socket to anywhere, no new process (only
threads), no executable memory, no signal to another process. Calls of a foreign architecture or
with x32 numbers kill the process. Linux on x86-64 and aarch64 (a test checks the aarch64 numbers
against the kernel's header; it has not been run there).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# name: number on x86-64, number on aarch64 (None if it does not exist there)
PLAIN: Mapping[str, tuple[int, int | None]] = {
    "read": (0, 63),
    "write": (1, 64),
    "readv": (19, 65),
    "writev": (20, 66),
    "pread64": (17, 67),
    "close": (3, 57),
    "fstat": (5, 80),
    "lseek": (8, 62),
    "munmap": (11, 215),
    "brk": (12, 214),
    "mremap": (25, 216),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "poll": (7, None),
    "ppoll": (271, 73),
    "select": (23, None),
    "pselect6": (270, 72),
    "epoll_create1": (291, 20),
    "epoll_ctl": (233, 21),
    "epoll_wait": (232, None),
    "epoll_pwait": (281, 22),
    "eventfd2": (290, 19),
    "dup": (32, 23),
    "dup2": (33, None),
    "dup3": (292, 24),
    "pipe2": (293, 59),
    "getpid": (39, 172),
    "getppid": (110, 173),
    "gettid": (186, 178),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "futex": (202, 98),
    "futex_waitv": (449, 449),
    "set_robust_list": (273, 99),
    "get_robust_list": (274, 100),
    "set_tid_address": (218, 96),
    "rseq": (334, 293),
    "arch_prctl": (158, None),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "getcpu": (309, 168),
    "membarrier": (324, 283),
    "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "gettimeofday": (96, 169),
    "time": (201, None),
    "times": (100, 153),
    "getrusage": (98, 165),
    "uname": (63, 160),
    "getrandom": (318, 278),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "restart_syscall": (219, 128),
    "getrlimit": (97, 163),
    "umask": (95, 166),
}


@dataclass(frozen=True)
class Check:
    """A condition on one argument of a call.

    `is_one_of` and `differs_from` compare the low 32 bits, `lacks_bits` and `has_bits` test them;
    `is_null` wants all 64 bits to be zero.
    """

    argument: int
    is_one_of: tuple[int, ...] = ()
    differs_from: int | None = None
    lacks_bits: int = 0
    has_bits: int = 0
    is_null: bool = False


@dataclass(frozen=True)
class Rule:
    """A call allowed only if all checks hold; otherwise it fails with `error`."""

    numbers: tuple[int, int | None]
    checks: tuple[Check, ...]
    error: int = errno.EPERM


_NO_ADDRESS = Check(4, is_null=True)
# MSG_DONTWAIT and MSG_NOSIGNAL; MSG_PEEK, MSG_DONTWAIT and MSG_WAITALL. No MSG_OOB.
_SEND_FLAGS, _RECEIVE_FLAGS = Check(3, lacks_bits=~0x4040), Check(3, lacks_bits=~0x142)
# NORMAL, RANDOM, SEQUENTIAL, WILLNEED, DONTNEED, FREE, HUGEPAGE, NOHUGEPAGE
_ADVICE = Check(2, is_one_of=(0, 1, 2, 3, 4, 8, 14, 15))
_ITSELF = Check(1, is_null=True)
_NOT_BELOW_NORMAL = Check(2, lacks_bits=~0x1F)  # a niceness of 0 to 31
_NOT_EXECUTABLE = (Check(2, lacks_bits=0x4),)  # PROT_EXEC

CHECKED: Mapping[str, Rule] = {
    # CLONE_THREAD, and none of the CLONE_NEW* flags
    "clone": Rule((56, 220), (Check(0, has_bits=0x0001_0000), Check(0, lacks_bits=0x7E02_0000))),
    "clone3": Rule((435, 435), (Check(0, is_one_of=()),), errno.ENOSYS),  # glibc then uses clone
    "mmap": Rule((9, 222), _NOT_EXECUTABLE),
    "mprotect": Rule((10, 226), _NOT_EXECUTABLE),
    # A cell cannot replace the handler of the host's interrupt.
    "rt_sigaction": Rule((13, 134), (Check(0, differs_from=2),)),
    # FIOCLEX, FIONBIO, FIONCLEX
    "ioctl": Rule((16, 29), (Check(1, is_one_of=(0x5451, 0x5421, 0x5450)),), errno.ENOTTY),
    # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC
    "fcntl": Rule((72, 25), (Check(1, is_one_of=(0, 1, 2, 3, 4, 1030)),)),
    # PR_SET_NAME, PR_SET_VMA
    "prctl": Rule((157, 167), (Check(0, is_one_of=(15, 0x53564D41)),)),
    # reading this process's own limits
    "prlimit64": Rule((302, 261), (Check(0, is_one_of=(0,)), Check(2, is_null=True))),
    # asyncio wakes itself through a socket pair; without an address it reaches nobody else
    "socketpair": Rule((53, 199), (Check(0, is_one_of=(1,)),)),
    "sendto": Rule((44, 206), (_NO_ADDRESS, _SEND_FLAGS)),
    "recvfrom": Rule((45, 207), (_NO_ADDRESS, _RECEIVE_FLAGS)),
    "madvise": Rule((28, 233), (_ADVICE,)),
    # of the thread that calls, and by RLIMIT_NICE only downwards
    "setpriority": Rule((141, 140), (Check(0, is_one_of=(0,)), _ITSELF, _NOT_BELOW_NORMAL)),
}

AUDIT_ARCHITECTURES = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}
_SECCOMP_CALL = {"x86_64": 317, "aarch64": 277}
_X32_BIT = 0x4000_0000
_ALLOW = 0x7FFF_0000
_KILL = 0x8000_0000
_ERRNO = 0x0005_0000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, operand


def machine() -> str | None:
    """Return the name of this machine's architecture; None if the list does not cover it."""
    name = {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
    return name if name in AUDIT_ARCHITECTURES else None


def program(architecture: str) -> list[Instruction]:
    """Return the filter for an architecture, in classic BPF over `struct seccomp_data`."""
    column = 0 if architecture == "x86_64" else 1
    code: list[Instruction] = [
        (_LOAD, 0, 0, 4),
        (_EQUAL, 1, 0, AUDIT_ARCHITECTURES[architecture]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),
    ]
    if architecture == "x86_64":
        code += [(_AT_LEAST, 0, 1, _X32_BIT), (_RETURN, 0, 0, _KILL)]
    for numbers in PLAIN.values():
        number = numbers[column]
        if number is not None:
            code += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    for rule in CHECKED.values():
        number = rule.numbers[column]
        if number is not None:
            body = _rule_body(rule)
            code += [(_EQUAL, 0, len(body), number), *body]
    return [*code, (_RETURN, 0, 0, _ERRNO | errno.EPERM)]


def _rule_body(rule: Rule) -> list[Instruction]:
    refuse = (_RETURN, 0, 0, _ERRNO | rule.error)
    body: list[Instruction] = []
    for check in rule.checks:
        body += _check(check, refuse)
    return [*body, (_RETURN, 0, 0, _ALLOW)]


def _check(check: Check, refuse: Instruction) -> list[Instruction]:
    low, high = 16 + 8 * check.argument, 20 + 8 * check.argument
    load = (_LOAD, 0, 0, low)
    if check.is_null:
        return [load, (_EQUAL, 1, 0, 0), refuse, (_LOAD, 0, 0, high), (_EQUAL, 1, 0, 0), refuse]
    if check.differs_from is not None:
        return [load, (_EQUAL, 0, 1, check.differs_from), refuse]
    if check.has_bits:
        return [load, (_ANY_BIT, 1, 0, check.has_bits), refuse]
    if check.lacks_bits:
        return [load, (_ANY_BIT, 0, 1, check.lacks_bits & 0xFFFF_FFFF), refuse]
    last = len(check.is_one_of)
    tests = [(_EQUAL, last - at, 0, value) for at, value in enumerate(check.is_one_of)]
    return [load, *tests, refuse]


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def install(code: Sequence[Instruction], architecture: str) -> None:
    """Install a filter on all threads of this process, for good. Needs no_new_privs.

    Raises:
        OSError: the kernel refuses the filter.
    """
    packed = b"".join(struct.pack("=HBBI", *instruction) for instruction in code)
    buffer = ctypes.create_string_buffer(packed, len(packed))
    given = _Program(len(code), ctypes.cast(buffer, ctypes.c_void_p))
    libc = ctypes.CDLL(None, use_errno=True)
    set_mode_filter, on_all_threads = ctypes.c_long(1), ctypes.c_long(1)
    call = ctypes.c_long(_SECCOMP_CALL[architecture])
    if libc.syscall(call, set_mode_filter, on_all_threads, ctypes.byref(given)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def restrict() -> None:
    """Allow this process only the system calls that a REPL needs, for good.

    Raises:
        OSError: the list does not cover this machine, or the kernel refuses the filter.
    """
    architecture = machine()
    if architecture is None:
        raise OSError(0, "no list of system calls for this architecture")
    install(program(architecture), architecture)
