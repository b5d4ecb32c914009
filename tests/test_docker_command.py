"""The Docker sandbox over a `docker` command of ours, which runs the same REPL without a container.

The real one is tried in `tests/docker`, where there is a daemon.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from rlm_mcp.errors import IsolationError, SandboxError
from rlm_mcp.sandbox.choice import make_sandbox
from rlm_mcp.sandbox.docker import launcher
from rlm_mcp.sandbox.docker.command import run_command
from rlm_mcp.sandbox.docker.sandbox import DockerSandbox
from rlm_mcp.sandbox.host.text import TextContext
from rlm_mcp.sandbox.types import CallReply, CellResult, Isolation, Repl, ReplCall, ReplOptions
from rlm_mcp.service.doctor import check_all
from tests import fake_docker
from tests.serving import settings_in

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it needs /proc and memfd_create")

TEXT = TextContext.of("alpha\nbeta\n")
UNTRIED = Isolation("process", (), ("docker: none",))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command stands and what it notes."""
    fake_docker.install(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_DOCKER", str(tmp_path))
    return tmp_path


@asynccontextmanager
async def opened_over(text: TextContext) -> AsyncGenerator[Repl]:
    sandbox = DockerSandbox(min_isolation="process", isolation=UNTRIED)
    with anyio.fail_after(120):
        async with sandbox, sandbox.open_repl(text, ReplOptions()) as repl:
            yield repl


@pytest.fixture
async def repl(folder: Path) -> AsyncGenerator[Repl]:
    async with opened_over(TEXT) as opened:
        yield opened


async def shout(call: ReplCall) -> CallReply:
    return CallReply(text=call.prompt.upper())


async def run(repl: Repl, code: str, *, seconds: float = 60) -> CellResult:
    return await repl.execute(code, timeout_seconds=seconds, on_call=shout)


async def output(repl: Repl, code: str) -> str:
    result = await run(repl, code)
    assert result.error is None, result.error.traceback
    return result.output


def is_there(process: int) -> bool:
    return Path(f"/proc/{process}").exists()


def asked(folder: Path) -> list[str]:
    return (folder / "asked").read_text().splitlines()


def test_a_container_has_no_network_no_rights_and_nothing_to_write_to() -> None:
    command = run_command("docker", "repl-1", "python:3.13", 1 << 30, "pass")

    assert command[0:2] == ["docker", "run"]
    said = " ".join(command)
    for wall in (
        "--network none",
        "--ipc none",
        "--read-only",
        "--cap-drop ALL",
        "--security-opt no-new-privileges",
        "--pids-limit 300",
        f"--memory {1 << 30} --memory-swap {1 << 30}",
        "--user 65534:65534",
        "--log-driver none",
        "--pull never",
    ):
        assert wall in said
    assert command[-5:] == ["python:3.13", "-I", "-B", "-c", "pass"]


async def test_cells_calls_and_variables_work_over_standard_input_and_output(repl: Repl) -> None:
    assert await output(repl, "x = len(context)\ncontext, context_names") == (
        "('alpha\\nbeta\\n', ['context'])\n"
    )
    assert await output(repl, "llm_query('a'), llm_query_batch(['b', 'c'])") == (
        "('A', ['B', 'C'])\n"
    )
    assert [(each.name, each.preview) for each in await repl.variables()] == [("x", "11")]
    assert (await repl.read_variable("x")).text == "11"


@pytest.mark.parametrize("text", ["", "é€😀" * 500_000, ["aé", "", "c"]])
async def test_a_text_of_any_kind_arrives_as_it_is(folder: Path, text: str | list[str]) -> None:
    async with opened_over(TextContext.of(text)) as repl:
        code = "import hashlib, json\nhashlib.sha1(json.dumps(context).encode()).hexdigest()"
        there = await output(repl, code.replace("context", "list(context)"))
    assert there == repr(hashlib.sha1(json.dumps(list(text)).encode()).hexdigest()) + "\n"


async def test_a_cell_over_its_time_is_interrupted_and_keeps_its_variables(repl: Repl) -> None:
    await run(repl, "x = 1")
    late = await run(repl, "while True: pass", seconds=0.5)

    assert (late.timed_out, late.lost_variables) == (True, False)
    assert await output(repl, "x") == "1\n"


async def test_a_cell_that_ignores_interrupts_loses_its_container(
    repl: Repl, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher.DockerProcess, "grace_seconds", 1.0)
    await run(repl, "small = [1]")
    late = await run(repl, "sum(range(10**15))", seconds=0.5)

    assert (late.timed_out, late.lost_variables) == (True, True)
    assert await output(repl, "small, context[:5]") == "([1], 'alpha')\n"
    orders = [order.rpartition(" ")[0] for order in asked(folder) if order != "run"]
    assert orders == ["kill --signal INT", "kill --signal INT", "kill"]


async def test_what_was_started_is_gone_when_the_repl_is_closed(folder: Path) -> None:
    async with opened_over(TEXT) as repl:
        processes = int(await output(repl, "import os\nos.getppid()"))
        assert is_there(processes)
    assert not is_there(processes)


async def test_a_process_that_ends_by_itself_is_replaced_and_its_end_is_told(repl: Repl) -> None:
    ended = await run(repl, "import os\nos._exit(3)")

    assert ended.lost_variables
    assert "status 3" in str(ended.error)
    assert await output(repl, "context[:5]") == "'alpha'\n"


async def test_a_repl_that_waits_is_frozen_and_woken_in_turn(repl: Any, folder: Path) -> None:
    await output(repl, "x = 1")
    repl.pause()
    assert await output(repl, "x") == "1\n"
    await repl.close()

    orders = [order.split()[0] for order in asked(folder)]
    assert orders.index("pause") < orders.index("unpause")


async def test_bytes_are_carried_through_pipes_where_a_socket_cannot_be_handed_over() -> None:
    ours, theirs = socket.socketpair()
    echo = "import os\nwhile data := os.read(0, 1 << 16): os.write(1, data)"
    start = partial(launcher.spawn, [sys.executable, "-c", echo], theirs, pumped=True)
    popen = await anyio.to_thread.run_sync(start)

    def there() -> None:
        ours.sendall(b"x" * 1_000_000)
        ours.shutdown(socket.SHUT_WR)

    def back() -> bytes:
        with ours.makefile("rb") as read:
            return read.read()

    with ours:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, there)
            assert await anyio.to_thread.run_sync(back) == b"x" * 1_000_000
    assert await anyio.to_thread.run_sync(popen.wait) == 0
    assert popen.stderr is not None
    popen.stderr.close()


# --- what is told ---


async def test_a_container_without_walls_is_refused(folder: Path) -> None:
    with anyio.fail_after(120):
        async with DockerSandbox() as sandbox:
            isolation = await sandbox.isolation()
            with pytest.raises(IsolationError, match="the minimum is 'partial'"):
                async with sandbox.open_repl(TEXT, ReplOptions()):
                    pass

    assert isolation.level == "process"
    assert any("seccomp" in each for each in isolation.missing)
    assert "self-test: model code was able to read a file" in isolation.missing


@pytest.mark.parametrize(
    ("said", "fix"),
    [
        (
            "docker: Cannot connect to the Docker daemon at unix:///x.",
            "Start Docker",
        ),
        ("docker: Error response from daemon: No such image: python:3.13-slim.", "docker pull"),
        (
            'exec: "python3": executable file not found in $PATH: unknown.',
            "RLM_MCP_DOCKER_IMAGE",
        ),
        ("something else", "docker run --rm python:3.13-slim python3 --version"),
    ],
)
async def test_why_no_container_starts_is_told_with_the_next_step(
    folder: Path, monkeypatch: pytest.MonkeyPatch, said: str, fix: str
) -> None:
    monkeypatch.setenv("FAKE_DOCKER_SAYS", said)
    with anyio.fail_after(60):
        async with DockerSandbox() as sandbox:
            isolation = await sandbox.isolation()
            with pytest.raises(SandboxError) as caught:
                await sandbox.require_isolation()

    assert said in caught.value.message
    assert fix in caught.value.fix
    assert isolation.level == "process"
    assert said in isolation.missing[0]


async def test_without_the_command_its_absence_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(SandboxError, match="the command 'docker', which is not there"):
        await DockerSandbox().prepare()


async def test_the_setting_chooses_docker_and_names_the_image(folder: Path, tmp_path: Path) -> None:
    settings = settings_in(
        tmp_path, sandbox="docker", docker_image="mine:1", min_isolation="partial"
    )
    sandbox = make_sandbox(settings.sandbox, docker_image=settings.docker_image)

    assert isinstance(sandbox, DockerSandbox)
    assert vars(sandbox)["_image"] == "mine:1"
    with pytest.raises(ValueError, match="docker_image"):
        settings_in(tmp_path, docker_image="--privileged")
    with anyio.fail_after(120):
        checks = {check.name: check async for check in check_all(settings, find_local=lambda: None)}
    assert checks["isolation"].state == "failed"
    assert "seccomp" in checks["isolation"].found
