"""The walls as data: the list of system calls, Landlock's ruleset, Seatbelt's profile, levels."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import anyio
import pytest

from rlm_mcp.sandbox.host import seatbelt
from rlm_mcp.sandbox.host.process import PlainProcess
from rlm_mcp.sandbox.walls import landlock, seccomp
from rlm_mcp.sandbox.walls.seccomp import CHECKED, PLAIN

ALLOWED, KILLED, EPERM, ENOSYS, ENOTTY = 0x7FFF0000, 0x80000000, 0x50001, 0x50026, 0x50019
X86, ARM = 0xC000003E, 0xC00000B7


def decide(architecture: str, number: int, *arguments: int, audit: int | None = None) -> int:
    """Run the filter, as the kernel would."""
    given = [*arguments, *[0] * (6 - len(arguments))]
    data = {0: number, 4: audit or seccomp.AUDIT_ARCHITECTURES[architecture]}
    for at, value in enumerate(given):
        data[16 + 8 * at], data[20 + 8 * at] = value & 0xFFFFFFFF, value >> 32
    program, at, register = seccomp.program(architecture), 0, 0
    while True:
        code, if_true, if_false, operand = program[at]
        at += 1
        if code == 0x20:
            register = data[operand]
        elif code == 0x06:
            return operand
        else:
            tests = {0x15: register == operand, 0x35: register >= operand, 0x45: register & operand}
            at += if_true if tests[code] else if_false


@pytest.mark.parametrize(
    ("name", "arguments", "decision"),
    [
        ("clone", (0x3D0F00,), ALLOWED),  # what pthread_create asks for
        ("clone", (17,), EPERM),
        ("clone", (0x3D0F00 | 0x10000000,), EPERM),
        ("clone3", (), ENOSYS),
        ("mmap", (0, 4096, 3), ALLOWED),
        ("mmap", (0, 4096, 7), EPERM),
        ("mprotect", (0, 4096, 4), EPERM),
        ("mprotect", (0, 4096, 1), ALLOWED),
        ("rt_sigaction", (2,), EPERM),
        ("rt_sigaction", (15,), ALLOWED),
        ("ioctl", (0, 0x5421), ALLOWED),
        ("ioctl", (0, 0x5412), ENOTTY),
        ("fcntl", (0, 4), ALLOWED),
        ("fcntl", (0, 1033), EPERM),
        ("prctl", (15,), ALLOWED),
        ("prctl", (1,), EPERM),
        ("prlimit64", (0, 7, 0), ALLOWED),
        ("prlimit64", (0, 7, 1 << 40), EPERM),
        ("prlimit64", (0, 7, 8), EPERM),
        ("prlimit64", (4, 7, 0), EPERM),
        ("socketpair", (1,), ALLOWED),
        ("socketpair", (2,), EPERM),
        ("sendto", (3, 0, 1, 0, 0), ALLOWED),
        ("sendto", (3, 0, 1, 0, 1 << 32), EPERM),
        ("recvfrom", (3, 0, 1, 0, 5), EPERM),
        ("sendto", (3, 0, 1, 0x4040, 0), ALLOWED),
        ("sendto", (3, 0, 1, 1, 0), EPERM),  # MSG_OOB
        ("sendto", (3, 0, 1, 0x8000, 0), EPERM),  # MSG_MORE
        ("recvfrom", (3, 0, 1, 0x142, 0), ALLOWED),
        ("recvfrom", (3, 0, 1, 0x2000, 0), EPERM),  # MSG_ERRQUEUE
        ("recvfrom", (3, 0, 1, 1, 0), EPERM),
        ("setpriority", (0, 0, 10), ALLOWED),  # of itself
        ("setpriority", (0, 0, -5), EPERM),
        ("setpriority", (0, 7, 10), EPERM),  # of another process
        ("setpriority", (0, 1 << 32, 10), EPERM),
        ("setpriority", (1, 0, 10), EPERM),  # of its group
        ("setpriority", (2, 0, 10), EPERM),  # of its user
        ("madvise", (0, 4096, 4), ALLOWED),
        ("madvise", (0, 4096, 12), EPERM),  # MADV_MERGEABLE
        ("madvise", (0, 4096, 100), EPERM),  # MADV_HWPOISON
    ],
)
@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
def test_a_call_with_arguments_is_decided_by_them(
    architecture: str, name: str, arguments: tuple[int, ...], decision: int
) -> None:
    number = CHECKED[name].numbers[0 if architecture == "x86_64" else 1]
    assert number is not None
    assert decide(architecture, number, *arguments) == decision


@pytest.mark.parametrize(("architecture", "column"), [("x86_64", 0), ("aarch64", 1)])
def test_calls_are_refused_but_for_those_listed(architecture: str, column: int) -> None:
    listed = {numbers[column] for numbers in PLAIN.values()}
    checked = {rule.numbers[column] for rule in CHECKED.values()}
    for number in range(600):
        if number in listed:
            assert decide(architecture, number) == ALLOWED
        elif number not in checked:
            assert decide(architecture, number) == EPERM


def test_a_foreign_architecture_is_killed() -> None:
    assert decide("x86_64", 0, audit=ARM) == KILLED
    assert decide("x86_64", 0, audit=0x40000003) == KILLED  # 32 bits
    assert decide("x86_64", 0x40000000) == KILLED  # x32
    assert decide("aarch64", 63, audit=X86) == KILLED


HEADERS = {0: Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), 1: Path("/usr/include/asm-generic/unistd.h")}  # fmt: skip  # noqa: E501


@pytest.mark.parametrize("column", HEADERS)
def test_the_numbers_are_those_of_the_kernels_headers(column: int) -> None:
    if not HEADERS[column].exists():
        pytest.skip(f"no {HEADERS[column]} here")
    found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", HEADERS[column].read_text())
    numbers = {name: int(number) for name, number in found}
    for name, pair in PLAIN.items():
        if pair[column] is not None:
            assert numbers[name] == pair[column], name
    for name, rule in CHECKED.items():
        assert numbers[name] == rule.numbers[column], name


def test_landlock_handles_every_right_that_its_version_knows() -> None:
    sizes = {abi: len(landlock.ruleset(abi)) for abi in range(1, 8)}
    assert sizes == {1: 8, 2: 8, 3: 8, 4: 16, 5: 16, 6: 24, 7: 24}
    assert landlock.ruleset(1) == (0x1FFF).to_bytes(8, "little")
    assert landlock.ruleset(5)[:8] == (0xFFFF).to_bytes(8, "little")
    assert landlock.ruleset(6)[8:] == (3).to_bytes(8, "little") * 2


# --- macOS, as far as it can be tried elsewhere ---


def test_seatbelt_denies_what_it_does_not_name() -> None:
    profile = seatbelt.profile(["/opt/python", '/odd "name"\\'], "/opt/python/bin/python3")
    lines = profile.splitlines()
    assert lines[:2] == ["(version 1)", "(deny default)"]
    assert '  (subpath "/odd \\"name\\"\\\\"))' in lines
    assert '(allow process-exec (literal "/opt/python/bin/python3"))' in lines
    assert profile.count("(") == profile.count(")")
    for word in ("network", "process-fork", "file-write*", "mach-lookup"):
        assert word not in profile


def test_a_command_is_put_behind_seatbelt() -> None:
    command = seatbelt.behind_seatbelt([sys.executable, "-c", "x"], "/package")
    assert command[:2] == ["/usr/bin/sandbox-exec", "-p"]
    assert command[3:] == [str(Path(sys.executable).resolve()), "-c", "x"]
    assert '(subpath "/package")' in command[2]


async def test_a_watched_process_is_killed_when_it_takes_too_much() -> None:
    code = "x = bytearray(b'x') * 100_000_000; input()"
    command = [sys.executable, "-c", code]
    popen = await anyio.to_thread.run_sync(partial(subprocess.Popen, command, stdin=-1))
    with popen:
        process = PlainProcess(popen, 50_000_000)
        assert process.is_watched
        with anyio.fail_after(60):
            await process.watch()
            assert await process.end() == ("it was killed, most likely for using too much memory")
    assert await anyio.to_thread.run_sync(seatbelt.resident_bytes, popen.pid) == 0


def test_the_host_half_can_be_imported_where_there_is_no_posix() -> None:
    code = """if True:
        import anyio, anyio._backends._asyncio, asyncio, sys, subprocess, tempfile
        for name in ("fcntl", "resource"):
            sys.modules[name] = None
        sys.platform = "win32"
        from rlm_mcp.errors import IsolationError
        from rlm_mcp.sandbox.host.sandbox import ProcessSandbox
        from rlm_mcp.sandbox.host.text import TextContext
        from rlm_mcp.sandbox.types import ReplOptions
        async def main():
            sandbox = ProcessSandbox(min_isolation="process")
            try:
                async with sandbox.open_repl(TextContext.of("x"), ReplOptions()):
                    pass
            except IsolationError as error:
                print(error.fix)
        anyio.run(main)
    """
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert ended.stdout.strip() == (
        b"Install it, or run the server in WSL or in a Linux container."
    ), ended.stderr
