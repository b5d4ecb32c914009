"""Model code tries to leave its REPL, in every way we know; nothing outside may show it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import anyio
import pytest

from rlm_mcp.errors import IsolationError, SandboxError
from rlm_mcp.sandbox.host import fork_client
from rlm_mcp.sandbox.host.sandbox import ProcessSandbox
from rlm_mcp.sandbox.types import ReplOptions, Walls
from rlm_mcp.sandbox.walls import seccomp
from tests.sandbox_attempts import ATTEMPTS, FILES, NETWORK
from tests.sandbox_battery import NOBODY, TEXT, open_arena, run_attempts
from tests.walls import IS_PORTABLE, native_alone

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the walls are Linux's")

ALL = sorted({attempt.group for attempt in ATTEMPTS})
QUICK = ["files", "environment and processes", "network and IPC", "kernel surface"]


def environment() -> dict[str, str]:
    """Return what an interpreter needs to find this project and its packages."""
    root = Path(__file__).parent.parent
    packages = [path for path in sys.path if path.endswith("site-packages")]
    given = {"PYTHONPATH": os.pathsep.join([str(root), *packages]), "LANG": "C.UTF-8"}
    if IS_PORTABLE:
        home = {"HOME": str(Path.home()), "RLM_TEST_SANDBOX": "portable"}
        return {**given, **home, "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", "")}
    return given


def python_for_nobody() -> str | None:
    """Return an interpreter that an ordinary user can run, with this project's packages."""
    for python in (sys.executable, "/usr/local/bin/python3", "/usr/bin/python3"):
        trial = [python, "-c", "import anyio, sys; print(sys.version_info >= (3, 11))"]
        try:
            found = subprocess.run(
                trial, env=environment(), user=NOBODY, group=NOBODY, capture_output=True, check=True
            )
        except (OSError, subprocess.CalledProcessError):
            continue
        if found.stdout.strip() == b"True":
            return python
    return None


async def battery(
    walls: Walls, groups: list[str], *, user: int | None = None, python: str = sys.executable
) -> dict[str, Any]:
    """Run the battery in a process of its own; its standard output holds nothing but the result."""
    asked = json.dumps({"walls": asdict(walls), "groups": groups})
    with anyio.fail_after(1500):  # hundreds of REPLs, on a busy machine
        ended = await anyio.run_process(
            [python, "-m", "tests.sandbox_battery", asked],
            env=environment(),
            user=user,
            group=user,
            extra_groups=None if user is None else [],
            cwd="/",
            check=False,
        )
    assert ended.returncode == 0, ended.stderr.decode()
    assert ended.stderr == b""
    return json.loads(ended.stdout)


def test_there_are_enough_attempts_of_every_kind() -> None:
    assert Counter(attempt.group for attempt in ATTEMPTS).total() >= 150
    assert set(QUICK) < set(ALL)


async def test_no_attempt_leaves_a_repl_behind_all_walls() -> None:
    result = await battery(Walls(), ALL)
    assert result["escapes"] == {}
    assert result["left"] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@native_alone("its walls are other ones")
async def test_no_attempt_leaves_a_repl_of_an_ordinary_user() -> None:
    python = await anyio.to_thread.run_sync(python_for_nobody)
    if python is None:
        pytest.skip("no interpreter here that an ordinary user may run")
    result = await battery(Walls(), QUICK, user=NOBODY, python=python)
    assert (result["user"], result["escapes"], result["left"]) == (NOBODY, {}, [])


@native_alone("its walls are other ones")
async def test_seccomp_alone_holds_against_every_quick_attempt() -> None:
    result = await battery(Walls(landlock=False, namespaces=False), QUICK)
    assert (result["level"], result["escapes"]) == ("partial", {})
    assert result["layers"] == ["seccomp", "thread limit", "limits"]


@native_alone("its walls are other ones")
async def test_the_attempts_are_real_since_they_succeed_without_walls() -> None:
    no_walls = Walls(seccomp=False, landlock=False, namespaces=False)
    with open_arena() as arena:
        async with ProcessSandbox(walls=no_walls, min_isolation="process") as sandbox:
            found = await run_attempts(sandbox, arena, [*FILES[:14], *NETWORK[:6]])
    assert len(found) > 5
    assert "outside" in found


@native_alone("its walls are other ones")
async def test_without_seccomp_no_model_code_runs() -> None:
    async with ProcessSandbox(walls=Walls(seccomp=False)) as sandbox:
        assert (await sandbox.isolation()).level == "process"
        with pytest.raises(IsolationError, match="seccomp: not asked for") as caught:
            async with sandbox.open_repl(TEXT, ReplOptions()):
                pass
    assert "RLM_MCP_MIN_ISOLATION" in caught.value.fix


@pytest.mark.parametrize("denied", ["landlock", "namespaces"])
@native_alone("its walls are other ones")
async def test_a_wall_that_is_missing_makes_the_level_partial_and_is_named(denied: str) -> None:
    async with ProcessSandbox(walls=Walls(**{denied: False})) as sandbox:
        isolation = await sandbox.isolation()
    assert isolation.level == "partial"
    assert isolation.missing == (f"{denied}: not asked for",)
    assert denied not in isolation.layers


@native_alone("its walls are other ones")
async def test_full_isolation_is_refused_where_a_wall_is_missing() -> None:
    async with ProcessSandbox(walls=Walls(landlock=False), min_isolation="full") as sandbox:
        with pytest.raises(IsolationError, match="the minimum is 'full'"):
            async with sandbox.open_repl(TEXT, ReplOptions()):
                pass


@native_alone("its walls are other ones")
async def test_walls_that_could_not_be_tried_in_time_are_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with ProcessSandbox() as sandbox:
        with monkeypatch.context() as hurried:
            hurried.setattr(fork_client, "START_SECONDS", 0)
            with pytest.raises(SandboxError, match="did not start"):
                await sandbox.isolation()
        later = await sandbox.isolation()
    assert later.level in ("partial", "full")


DENYING = """
import sys, anyio
from rlm_mcp.sandbox.walls import namespaces, seccomp
from rlm_mcp.sandbox.host.sandbox import ProcessSandbox
numbers = [int(word) for word in sys.argv[1:]]
refusals = [line for number in numbers for line in ((0x15, 0, 1, number), (0x06, 0, 0, 0x50001))]
namespaces.give_up_privileges()
seccomp.install([(0x20, 0, 0, 0), *refusals, (0x06, 0, 0, 0x7FFF0000)], "x86_64")
async def main():
    async with ProcessSandbox() as sandbox:
        isolation = await sandbox.isolation()
    print(isolation.level, isolation.missing)
anyio.run(main)
"""


@pytest.mark.skipif(seccomp.machine() != "x86_64", reason="numbers of calls are x86-64's")
@pytest.mark.parametrize(
    ("denied", "said"),
    [
        (
            [272],
            "partial ('namespaces: the system refuses them (Operation not permitted)',"
            " 'thread limit: Operation not permitted')",
        ),
        ([444], "partial ('landlock: the kernel has no Landlock',)"),
        ([155], "partial ('namespaces: Operation not permitted',)"),
        ([317], "process ('seccomp: Operation not permitted',)"),
    ],
)
@native_alone("its walls are other ones")
async def test_what_the_system_denies_is_found_and_named(denied: list[int], said: str) -> None:
    with anyio.fail_after(60):
        command = [sys.executable, "-c", DENYING, *map(str, denied)]
        ended = await anyio.run_process(command, env=environment(), check=False)
    assert ended.stdout.decode().strip() == said, ended.stderr.decode()
