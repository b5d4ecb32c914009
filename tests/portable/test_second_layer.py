"""What is put round a portable process on macOS and Windows, with stand-ins for what they have.

Neither was run there: these tests try our side, with a `sandbox-exec` that confines nothing and a
`kernel32` that notes what it is asked.
"""

from __future__ import annotations

import ctypes
import shlex
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from rlm_mcp.sandbox.host import seatbelt
from rlm_mcp.sandbox.host.text import TextContext
from rlm_mcp.sandbox.portable import job, launcher
from rlm_mcp.sandbox.portable import module as modules
from rlm_mcp.sandbox.portable.process import confine
from rlm_mcp.sandbox.portable.sandbox import PortableSandbox
from rlm_mcp.sandbox.types import CallReply, ReplCall, ReplOptions

TEXT = TextContext.of("abc")


class Kernel32:
    """Notes its calls; `refuses` names the one that fails."""

    def __init__(self, refuses: str = "") -> None:
        self.asked: list[str] = []
        self.limits: list[Any] = []
        self._refuses = refuses

    def __getattr__(self, name: str) -> Any:
        def call(*given: Any) -> int:
            self.asked.append(name)
            if name == "SetInformationJobObject":
                self.limits.append((given[1], bytes(given[2]._obj)))
            return 0 if name == self._refuses else 7

        return call


async def answer(_call: ReplCall) -> CallReply:
    return CallReply(text="")


async def length_of(sandbox: PortableSandbox) -> str:
    with anyio.fail_after(120):
        async with sandbox, sandbox.open_repl(TEXT, ReplOptions()) as repl:
            result = await repl.execute("len(context)", timeout_seconds=60, on_call=answer)
    return result.output


def seatbelt_stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program, noted = folder / "sandbox-exec", folder / "profile"
    program.write_text(
        f'#!/bin/sh\nprintf %s "$2" > {shlex.quote(str(noted))}\nshift 2\nexec "$@"\n'
    )
    program.chmod(0o755)
    monkeypatch.setattr(seatbelt, "SANDBOX_EXEC", str(program))
    return noted


async def test_a_process_starts_behind_seatbelt_which_lets_it_read_what_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = seatbelt_stand_in(tmp_path, monkeypatch)
    sandbox = PortableSandbox(layer="seatbelt", keep_ready=False)

    assert await length_of(sandbox) == "3\n"
    isolation = await sandbox.isolation()
    assert isolation.layers[:2] == ("wasm", "seatbelt")
    module = await sandbox.prepare()
    profile = await anyio.Path(noted).read_text()
    for line in (
        "(deny default)",
        "(allow dynamic-code-generation)",
        f'(subpath "{module.compiled.parent}")',
        f'(subpath "{module.library}")',
    ):
        assert line in profile


async def test_without_seatbelt_the_wall_stands_alone_and_its_absence_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seatbelt, "SANDBOX_EXEC", str(tmp_path / "no-such-program"))
    sandbox = PortableSandbox(layer="seatbelt", keep_ready=False)

    assert await length_of(sandbox) == "3\n"
    isolation = await sandbox.isolation()
    assert isolation.level == "partial"
    assert "seatbelt" not in isolation.layers
    assert isolation.missing[-1].startswith("seatbelt: cannot start")


async def test_a_process_is_put_into_a_job_that_ends_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel32 = Kernel32()
    monkeypatch.setattr(launcher, "windows_library", lambda: kernel32)
    sandbox = PortableSandbox(layer="job", keep_ready=False)

    assert await length_of(sandbox) == "3\n"
    assert (await sandbox.isolation()).layers[:2] == ("wasm", "job")
    assert kernel32.asked.count("AssignProcessToJobObject") == 2  # the self-test's, and the REPL's
    assert kernel32.asked.count("CloseHandle") == 4  # of each process and each job


async def test_a_job_that_windows_refuses_is_told_and_leaves_no_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel32 = Kernel32(refuses="AssignProcessToJobObject")
    monkeypatch.setattr(launcher, "windows_library", lambda: kernel32)
    sandbox = PortableSandbox(layer="job", keep_ready=False)

    assert await length_of(sandbox) == "3\n"
    isolation = await sandbox.isolation()
    assert "job" not in isolation.layers
    assert "AssignProcessToJobObject failed" in isolation.missing[-1]


def test_a_job_allows_one_process_of_bounded_memory_and_ends_it_when_it_is_closed() -> None:
    kernel32 = Kernel32()
    job.put_into_job(4711, kernel32).close()

    assert kernel32.asked == [
        "CreateJobObjectW",
        "SetInformationJobObject",
        "SetInformationJobObject",
        "OpenProcess",
        "AssignProcessToJobObject",
        "CloseHandle",
        "CloseHandle",
    ]
    (kind, limits), (ui_kind, ui) = kernel32.limits
    assert (kind, len(limits), ui_kind, ui) == (9, 144, 4, b"\xff\0\0\0")  # as `winnt.h` has them
    told = job.ExtendedLimits.from_buffer_copy(limits)
    assert told.BasicLimitInformation.LimitFlags == 0x2000 | 0x400 | 0x100 | 0x8
    assert told.BasicLimitInformation.ActiveProcessLimit == 1
    assert told.ProcessMemoryLimit == job.MOST_BYTES


def test_the_process_asks_windows_for_no_further_processes_and_tells_a_refusal() -> None:
    no_children = vars(confine)["_no_child_processes"]
    kernel32 = Kernel32()
    no_children(kernel32)
    assert kernel32.asked == ["SetProcessMitigationPolicy"]
    with pytest.raises(OSError, match="refuses the policy"):
        no_children(Kernel32(refuses="SetProcessMitigationPolicy"))


def test_the_interpreter_of_windows_is_the_base_one_since_a_job_holds_one_process() -> None:
    assert modules.interpreter("win32") == vars(sys)["_base_executable"]
    assert modules.interpreter("darwin") == sys.executable
    assert ctypes.sizeof(job.BasicLimits) == 64
