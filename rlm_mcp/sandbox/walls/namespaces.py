"""Namespaces: a world with no network, no other process and an empty file system.

Entered once by the warm process, before it starts a thread, and inherited by every REPL. Root
needs no user namespace, and has its user id taken away instead; others get one.
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
    """Leave the host's network, IPC, host name, mounts and process ids; children follow.

    Raises:
        OSError: the kernel, or a policy such as AppArmor's or a container's, refuses.
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


def empty_root(architecture: str) -> None:
    """Replace every mount by one empty, read-only directory.

    Raises:
        OSError: mounting is refused here.
    """
    _mount(b"none", b"/", b"none", _PRIVATE | _RECURSIVE)
    _mount(
        b"tmpfs", b"/tmp", b"tmpfs", _NO_SUID | _NO_DEV | _NO_EXEC, b"size=4k,mode=755"
    )  # a mount point that exists
    old = Path("/tmp/old")  # noqa: S108  # in the mount just made
    old.mkdir()
    call = ctypes.c_long(_PIVOT_ROOT[architecture])
    _check(_libc().syscall(call, b"/tmp", b"/tmp/old"))
    os.chdir("/")
    _check(_libc().umount2(b"/old", _DETACH))
    Path("/old").rmdir()
    flags = _REMOUNT | _READ_ONLY | _NO_SUID | _NO_DEV | _NO_EXEC
    _mount(b"none", b"/", b"none", flags)


def drop_capabilities_and_user(architecture: str) -> None:
    """Give up root, where this process has it, and every capability.

    Raises:
        OSError: there is no other user here, as in some containers, or the kernel refuses.
    """
    for capability in range(64):
        _libc().prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # those that do not exist are refused
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    nothing = (ctypes.c_uint32 * 6)()
    _check(_libc().syscall(ctypes.c_long(_CAPSET[architecture]), header, nothing))


def give_up_privileges() -> None:
    """Promise to gain none by exec, and close this process's memory to others.

    Raises:
        OSError: the kernel refuses.
    """
    _check(_libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _check(_libc().prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0))


def die_with_parent() -> None:
    """Ask for SIGKILL when the thread that forked this process ends."""
    _check(_libc().prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0))


def use_small_pages() -> None:
    """Leave large pages to texts: a REPL's own memory grows by what it needs."""
    _libc().prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0)  # no wall: an older kernel may refuse


def _mount(source: bytes, target: bytes, kind: bytes, flags: int, data: bytes = b"") -> None:
    _check(_libc().mount(source, target, kind, ctypes.c_ulong(flags), data))


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
