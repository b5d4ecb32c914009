"""No REPL takes more than its share: threads, cores, processes that are stopped or left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from rlm_mcp.sandbox.host.process import thread_count
from rlm_mcp.sandbox.host.repl import ChildRepl
from rlm_mcp.sandbox.host.sandbox import ProcessSandbox
from rlm_mcp.sandbox.host.text import TextContext
from rlm_mcp.sandbox.types import CallReply, CellResult, Repl, ReplCall, ReplOptions, Walls
from rlm_mcp.sandbox.walls.confine import REPL_NICENESS
from rlm_mcp.sandbox.walls.limits import MAX_THREADS
from tests.sandbox_battery import descendants
from tests.waiting import until
from tests.walls import native_alone

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the walls are Linux's")

TEXT = TextContext.of("a line of text\n")
THREADS = """
import threading
threading.stack_size(1 << 16)
stop, started = threading.Event(), 0
try:
    while started < 3_000:
        threading.Thread(target=stop.wait, daemon=True).start()
        started += 1
except RuntimeError:
    pass
print(started)
"""
SPINNING = """
import threading
def spin():
    while True: pass
for _ in range(4): threading.Thread(target=spin, daemon=True).start()
kept = 7
"""


async def _no_calls(_: ReplCall) -> CallReply:
    return CallReply(error="none")


async def execute(repl: Repl, code: str, seconds: float = 30) -> CellResult:
    return await repl.execute(code, timeout_seconds=seconds, on_call=_no_calls)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@native_alone("there are no threads")
async def test_the_threads_of_each_repl_are_limited_by_themselves() -> None:
    async with ProcessSandbox() as sandbox:
        assert "thread limit" in (await sandbox.isolation()).layers
        options = ReplOptions()
        async with sandbox.open_repl(TEXT, options) as one, sandbox.open_repl(TEXT, options) as two:
            for repl in (one, two):
                assert 200 < int((await execute(repl, THREADS)).output) < MAX_THREADS
                after = await execute(repl, "stop.set(); print('alive')")
                assert (after.output, after.lost_variables) == ("alive\n", False)


@native_alone("there are no threads")
@pytest.mark.parametrize(
    "walls",
    [Walls(thread_limit=False), Walls(seccomp=False, landlock=False, namespaces=False)],
    ids=["forked", "plain"],
)
async def test_where_the_kernel_does_not_count_threads_the_host_does(walls: Walls) -> None:
    sandbox = ProcessSandbox(walls=walls, min_isolation="process")
    with anyio.fail_after(60):
        async with sandbox, sandbox.open_repl(TEXT, ReplOptions()) as repl:
            result = await execute(repl, THREADS + "stop.wait()")
            assert result.lost_variables
            assert (await execute(repl, "print(1)")).output == "1\n"


@native_alone("there are no threads")
async def test_a_paused_repl_uses_no_core_and_can_be_looked_at_and_used() -> None:
    with anyio.fail_after(60):
        async with ProcessSandbox() as sandbox, sandbox.open_repl(TEXT, ReplOptions()) as repl:
            assert isinstance(repl, ChildRepl)
            before = set(descendants())
            assert (await execute(repl, SPINNING)).error is None
            pid = await anyio.to_thread.run_sync(lambda: max(before, key=thread_count))
            repl.pause()
            assert (await repl.read_variable("kept")).text == "7"
            looked = await anyio.to_thread.run_sync(cpu_seconds, pid)
            await anyio.sleep(0.5)
            assert await anyio.to_thread.run_sync(cpu_seconds, pid) - looked < 0.1
            assert (await execute(repl, "print(kept)")).output == "7\n"


@native_alone("there is no fork server")
@pytest.mark.parametrize("kind", ["holder", "warm"])
async def test_a_stopped_process_is_noticed_and_replaced(kind: str) -> None:
    other = TextContext.of("another text\n")
    with anyio.fail_after(60):
        async with ProcessSandbox() as sandbox:
            await sandbox.isolation()
            async with sandbox.open_repl(TEXT, ReplOptions()):
                pids = descendants()
            stopped = sorted(pids)[:2] if kind == "warm" else sorted(pids)[2:]
            for pid in stopped:
                with suppress(ProcessLookupError):  # the REPL has ended
                    os.kill(pid, signal.SIGSTOP)
            source = TEXT if kind == "holder" else other
            with anyio.fail_after(60):
                async with sandbox.open_repl(source, ReplOptions()) as repl:
                    assert (await execute(repl, "print(len(context))")).output.strip().isdigit()


HOST = """
import anyio, sys
from rlm_mcp.sandbox.host.sandbox import ProcessSandbox
from rlm_mcp.sandbox.types import ReplOptions, Walls
from rlm_mcp.sandbox.host.text import TextContext
async def main(plain):
    walls = Walls(seccomp=False) if plain else Walls()
    async with ProcessSandbox(walls=walls, min_isolation="process") as sandbox:
        async with sandbox.open_repl(TextContext.of("x"), ReplOptions()):
            print("open", flush=True)
            await anyio.sleep_forever()
anyio.run(main, sys.argv[1] == "plain")
"""


@native_alone("its own test says so")
@pytest.mark.parametrize("kind", ["forked", "plain"])
async def test_stopped_children_end_with_a_host_that_is_killed(kind: str) -> None:
    command = [sys.executable, "-c", HOST, kind]
    process = await anyio.open_process(command, stdout=subprocess.PIPE, stderr=None)
    try:
        assert process.stdout is not None
        with anyio.fail_after(60):
            await process.stdout.receive()
        children = set(descendants(process.pid))
        assert children
        for pid in children:
            os.kill(pid, signal.SIGSTOP)
    finally:
        process.kill()
        await process.wait()
    await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))


@native_alone("its processes give way in their own way")
async def test_all_repls_together_count_as_one_beside_the_server() -> None:
    """Linux shares the processor among sessions before it looks at priorities."""
    async with ProcessSandbox(min_isolation="process") as sandbox, AsyncExitStack() as stack:
        for number in range(3):
            source = TextContext.of(f"text {number}")
            repl = await stack.enter_async_context(sandbox.open_repl(source, ReplOptions()))
            await execute(repl, "1")
        pids = await anyio.to_thread.run_sync(descendants, os.getpid())
        sessions = {os.getsid(pid) for pid in pids}
    assert len(pids) >= 4
    assert len(sessions) == 1
    assert os.getsid(0) not in sessions


@native_alone("its processes give way in their own way")
async def test_a_repl_gives_way_once_it_may_run_code_and_not_while_it_opens() -> None:
    async with ProcessSandbox() as sandbox, sandbox.open_repl(TEXT, ReplOptions()) as repl:
        known = descendants()
        before = {os.getpriority(os.PRIO_PROCESS, pid) for pid in known}
        result = await execute(repl, "import threading\nprint(threading.get_native_id() > 0)")
        assert result.output == "True\n"
        after = {os.getpriority(os.PRIO_PROCESS, pid) for pid in known}
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    assert before == {ours}
    assert after == {ours, max(0, min(19, ours + REPL_NICENESS))}
