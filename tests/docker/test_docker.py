"""The Docker sandbox with a real daemon: what its containers cannot do, how they end, the server.

Skipped, with the reason, where no daemon answers. `DOCKER_HOST` says where one is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import anyio
import pytest

from rlm_mcp.errors import SandboxError
from rlm_mcp.sandbox.docker.command import LABEL
from rlm_mcp.sandbox.docker.sandbox import DockerSandbox
from rlm_mcp.sandbox.host.text import TextContext
from rlm_mcp.sandbox.types import CallReply, CellResult, Repl, ReplCall, ReplOptions
from tests.docker import image
from tests.overtime import with_enough_time
from tests.serving import cell, open_served, turns
from tests.walls import DOCKER_IMAGE

TEXT = TextContext.of("alpha\nbeta\n")
SMALL = ReplOptions(memory_bytes=64 << 20)


def docker(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module", autouse=True)
def made_image() -> None:
    """Make the image that all use, unless that was done."""
    try:
        found = docker("image", "inspect", DOCKER_IMAGE)
    except OSError as error:
        pytest.skip(f"no docker command: {error}")
    if found.returncode:
        if "No such image" not in found.stderr:
            pytest.skip(f"no Docker daemon: {found.stderr.strip()}")
        image.make(DOCKER_IMAGE)


@pytest.fixture(scope="module")
async def sandbox() -> AsyncGenerator[DockerSandbox]:
    async with DockerSandbox(DOCKER_IMAGE) as opened:
        yield opened


@pytest.fixture
async def repl(sandbox: DockerSandbox) -> AsyncGenerator[Repl]:
    with anyio.fail_after(240):
        async with sandbox.open_repl(TEXT, SMALL) as opened:
            yield opened


async def echo(call: ReplCall) -> CallReply:
    return CallReply(text=call.prompt)


async def run(repl: Repl, code: str, *, seconds: float = 60) -> CellResult:
    return await repl.execute(code, timeout_seconds=seconds, on_call=echo)


async def running() -> list[str]:
    command = ["docker", "ps", "--quiet", "--filter", f"label={LABEL}"]
    done = await anyio.run_process(command)
    return done.stdout.decode().split()


async def test_its_level_and_layers_are_found_by_trying(sandbox: DockerSandbox) -> None:
    isolation = await sandbox.isolation()

    assert isolation.level == "partial"
    assert isolation.layers == (
        "docker",
        "seccomp",
        "no new privileges",
        "no capabilities",
        "limits",
    )
    assert isolation.missing == ()


@pytest.mark.parametrize(
    ("code", "output"),
    [
        ("import os; os.getuid(), os.getgid()", "(65534, 65534)\n"),
        ("import os; [os.path.exists(p) for p in ('/work', '/home', '/dev/shm')]", None),
        ("import socket; sorted(name for _, name in socket.if_nameindex())", "['lo']\n"),
        (
            "try:\n  open('/tmp_x', 'w')\nexcept OSError as error: print(error.strerror)",
            "Read-only file system\n",
        ),
        ("import os; sorted(os.environ.keys() & {'PATH', 'HOME'})", "['HOME', 'PATH']\n"),
        (
            "import socket\ntry:\n  socket.create_connection(('127.0.0.1', 1), 5)\n"
            "except OSError as error: print(error.strerror)",
            "Connection refused\n",
        ),
    ],
)
async def test_a_container_holds_nothing_of_the_host(
    repl: Repl, code: str, output: str | None
) -> None:
    result = await run(repl, code)

    assert result.error is None, result.error.traceback
    assert result.output == (output or "[False, False, False]\n")


async def test_memory_is_limited_and_its_end_is_the_models_to_repair(repl: Repl) -> None:
    result = await run(repl, "kept = 1\nlen(bytearray(1 << 30))")

    assert result.error is not None
    assert result.error.type == "MemoryError"
    assert (await run(repl, "kept")).output == "1\n"


async def test_processes_are_counted_and_end_with_their_container(sandbox: DockerSandbox) -> None:
    code = """
import os, time
count = 0
while count < 1000:
    try:
        if os.fork() == 0: time.sleep(600); os._exit(0)
    except OSError: break
    count += 1
count < 400
"""
    with anyio.fail_after(120):
        async with sandbox.open_repl(TEXT, ReplOptions()) as repl:
            assert (await run(repl, code)).output == "True\n"


async def test_a_cell_over_its_time_is_interrupted_or_replaced(repl: Repl) -> None:
    await run(repl, "x = 1")
    late = await run(repl, "while True: pass", seconds=0.5)
    assert (late.timed_out, late.lost_variables) == (True, False)
    assert (await run(repl, "x")).output == "1\n"

    late = await with_enough_time(
        lambda seconds: run(repl, "sum(range(10**15))", seconds=seconds),
        lambda done: done.lost_variables,
    )
    assert (late.timed_out, late.lost_variables) == (True, True)
    assert (await run(repl, "x, context[:5]")).output == "(1, 'alpha')\n"


HOLDING = """
import sys, anyio
from rlm_mcp.sandbox.docker.sandbox import DockerSandbox
from rlm_mcp.sandbox.host.text import TextContext
from rlm_mcp.sandbox.types import CallReply, ReplOptions
async def call(call):
    print("spins", flush=True)
    return CallReply(text="")
async def main():
    async with DockerSandbox(sys.argv[1]) as sandbox:
        async with sandbox.open_repl(TextContext.of("abc"), ReplOptions()) as repl:
            code = "llm_query('x')\\nsum(range(10**15))"
            await repl.execute(code, timeout_seconds=600, on_call=call)
anyio.run(main)
"""


async def test_no_container_outlives_a_server_that_is_killed() -> None:
    before = set(await running())
    with anyio.fail_after(180):
        async with await anyio.open_process([sys.executable, "-c", HOLDING, DOCKER_IMAGE]) as held:
            assert held.stdout is not None
            assert (await held.stdout.receive()).startswith(b"spins")
            mine = set(await running()) - before
            assert len(mine) == 1
            held.kill()
        await anyio.run_process(["docker", "wait", *mine], check=False)
        assert not mine & set(await running())


async def test_an_image_that_is_not_there_is_named_with_the_command_that_fetches_it() -> None:
    with pytest.raises(SandboxError, match="No such image") as caught:
        await DockerSandbox("no-such-image:1").require_isolation()
    assert caught.value.fix == "Fetch it: docker pull no-such-image:1"


async def test_the_server_answers_and_tells_its_layers(tmp_path: Path) -> None:
    code = "at = context.find('4711')\nprint(llm_query('q'))"
    script = turns(cell(code), "FINAL_VAR(at)", sub=lambda _: "yes")
    with anyio.fail_after(300):
        async with open_served(
            tmp_path, script, sandbox="docker", docker_image=DOCKER_IMAGE, min_isolation="partial"
        ) as served:
            run = await served.call(
                "rlm_query", question="Where?", text="the needle is 4711", wait_seconds=120
            )
            status = await served.call("rlm_status")

    assert (run["status"], run["answer"]) == ("completed", "14")
    assert status["sandbox"]["isolation"] == "partial"
    assert status["sandbox"]["layers"][0] == "docker"


async def test_doctor_tells_level_and_layers(tmp_path: Path) -> None:
    environment = {
        "RLM_MCP_SANDBOX": "docker",
        "RLM_MCP_DOCKER_IMAGE": DOCKER_IMAGE,
        "RLM_MCP_DATA_DIR": str(tmp_path),
    }
    command = [sys.executable, "-m", "rlm_mcp", "doctor", "--json"]
    with anyio.fail_after(180):
        done = await anyio.run_process(command, env={**os.environ, **environment}, check=False)
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["isolation"]["state"] == "ok"
    assert checks["isolation"]["found"].startswith("partial: docker, seccomp")
