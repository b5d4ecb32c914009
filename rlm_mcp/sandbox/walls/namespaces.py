"""Namespaces: no network, no other processes and an empty file system.

The warm process enters them once, before it starts a thread, and every REPL inherits them. Root
needs no user namespace and changes to another user instead; other users get one.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path

NOBODY = 65534
_NEW_NS, _NEW_UTS, _NEW_IPC = 0x0002_0000, 0x0400_0000, 0x0800_0000
_NEW_USER, _NEW_PID, _NEW_NET = 0x1000_0000, 0x2000_0000, 0x4000_0000
_READ_ONLY, _NO_SUID, _NO_DEV, _NO_EXEC = 1, 2, 4, 8
_REMOUNT, _RECURSIVE, _PRIVATE = 0x20, 0x4000, 0x40000
_SMALL = b"size=4k,mode=755"
_DETACH = 2
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_UNSHARE = {"x86_64": 272, "aarch64": 97}
_CAPSET = {"x86_64": 126, "aarch64": 91}
_CAPABILITY_VERSION = 0x2008_0522
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 4, 24, 38
_PR_SET_THP_DISABLE = 41
_SIGKILL = 9


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def enter(architecture: str) -> None:
    """Leave the host's network, IPC, host name, mounts and process ids; children inherit this.

    Raises:
        OSError: the kernel or a policy (AppArmor, a container's) refuses.
    """
    user, group = os.geteuid(), os.getegid()
    flags = _NEW_NET | _NEW_IPC | _NEW_UTS | _NEW_NS | _NEW_PID
    if user:
        flags |= _NEW_USER
    _check(_libc().syscall(ctypes.c_long(_UNSHARE[architecture]), ctypes.c_long(flags)))
    if user:
        Path("/proc/self/setgroups").write_text("deny", "ascii")
        Path("/proc/self/uid_map").write_text(f"{NOBODY} {user} 1", "ascii")
        Path("/proc/self/gid_map").write_text(f"{NOBODY} {group} 1", "ascii")


def enter_user_namespace(architecture: str) -> None:
    """Enter a user namespace of this process's own, without any right in it.

    The kernel counts threads by user and user namespace: so RLIMIT_NPROC bounds those of one REPL.

    Raises:
        OSError: the kernel or a policy refuses.
    """
    _check(_libc().syscall(ctypes.c_long(_UNSHARE[architecture]), ctypes.c_long(_NEW_USER)))
    _drop_capabilities(architecture)


def empty_root(architecture: str) -> None:
    """Replace every mount by one empty, read-only directory.

    Raises:
        OSError: mounting is refused.
    """
    _mount(b"none", b"/", b"none", _PRIVATE | _RECURSIVE)
    # An existing mount point.
    _mount(b"tmpfs", b"/tmp", b"tmpfs", _NO_SUID | _NO_DEV | _NO_EXEC, _SMALL)
    old = Path("/tmp/old")  # noqa: S108  # inside the new mount
    old.mkdir()
    call = ctypes.c_long(_PIVOT_ROOT[architecture])
    _check(_libc().syscall(call, b"/tmp", b"/tmp/old"))
    os.chdir("/")
    _check(_libc().umount2(b"/old", _DETACH))
    Path("/old").rmdir()
    flags = _REMOUNT | _READ_ONLY | _NO_SUID | _NO_DEV | _NO_EXEC
    _mount(b"none", b"/", b"none", flags)


def drop_capabilities_and_user(architecture: str) -> None:
    """Give up root, if this process has it, and every capability.

    Raises:
        OSError: the user does not exist here, as in some containers, or the kernel refuses.
    """
    for capability in range(64):
        # The kernel refuses numbers that it does not know.
        _libc().prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    _drop_capabilities(architecture)


def _drop_capabilities(architecture: str) -> None:
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    nothing = (ctypes.c_uint32 * 6)()
    _check(_libc().syscall(ctypes.c_long(_CAPSET[architecture]), header, nothing))


def give_up_privileges() -> None:
    """Set no_new_privs, and make this process's memory unreadable to others.

    Raises:
        OSError: the kernel refuses.
    """
    _check(_libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _check(_libc().prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0))


def die_with_parent() -> None:
    """Request SIGKILL for when the thread that forked this process ends."""
    _check(_libc().prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0))


def use_small_pages() -> None:
    """Turn off large pages: a REPL's own memory then grows only as needed."""
    _libc().prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0)  # not a wall: an older kernel may refuse


def _mount(source: bytes, target: bytes, kind: bytes, flags: int, data: bytes = b"") -> None:
    _check(_libc().mount(source, target, kind, ctypes.c_ulong(flags), data))


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
