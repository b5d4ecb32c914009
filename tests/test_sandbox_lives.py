"""Cells that run over, REPLs that die, servers that are killed: what is told and what is left."""

from __future__ import annotations

import gc
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from rlm_mcp.errors import SandboxDiedError, SandboxError
from rlm_mcp.sandbox.choice import OwnedSandbox
from rlm_mcp.sandbox.host.context_file import write_text
from rlm_mcp.sandbox.host.fork_client import Keep
from rlm_mcp.sandbox.host.sandbox import ProcessSandbox
from rlm_mcp.sandbox.host.text import TextContext
from rlm_mcp.sandbox.types import CallReply, CellResult, Repl, ReplCall, ReplOptions, Walls
from tests.overtime import with_enough_time
from tests.walls import IS_PORTABLE, a_sandbox, native_alone

TEXT = TextContext.of("alpha\nbeta\n")
OPTIONS = ReplOptions(memory_bytes=256 << 20)


@pytest.fixture(scope="module", params=["portable"] if IS_PORTABLE else ["walled", "plain"])
async def sandbox(request: pytest.FixtureRequest) -> AsyncGenerator[OwnedSandbox]:
    walls = Walls(seccomp=request.param == "walled")
    async with a_sandbox(walls=walls, min_isolation="process") as opened:
        yield opened


@pytest.fixture
async def repl(sandbox: OwnedSandbox) -> AsyncGenerator[Repl]:
    with anyio.fail_after(180):
        async with sandbox.open_repl(TEXT, OPTIONS) as opened:
            yield opened


async def echo(call: ReplCall) -> CallReply:
    return CallReply(text=call.prompt)


async def run(repl: Repl, code: str, *, seconds: float = 60) -> CellResult:
    return await repl.execute(code, timeout_seconds=seconds, on_call=echo)


async def run_over(repl: Repl, code: str) -> CellResult:
    """Run a cell that does not end until it is stopped in its last line."""
    last = code.splitlines()[-1]
    return await with_enough_time(
        lambda seconds: run(repl, code, seconds=seconds),
        lambda done: (
            done.lost_variables or (done.error is not None and last in done.error.traceback)
        ),
    )


def descendants() -> dict[int, str]:
    """Return the processes that descend from this one, zombies too."""
    parents: dict[int, tuple[int, str]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                name, _, rest = (entry / "stat").read_text().rpartition(")")
            except OSError:
                continue
            parents[int(entry.name)] = (int(rest.split()[1]), name.partition("(")[2])
    ours = {os.getpid()}
    while more := {pid for pid, (parent, _) in parents.items() if parent in ours} - ours:
        ours |= more
    return {pid: parents[pid][1] for pid in ours - {os.getpid()}}


def descriptors() -> list[str]:
    """Return what this process has open."""

    def targets() -> Iterator[str]:
        for entry in Path("/proc/self/fd").iterdir():
            try:
                yield str(entry.readlink()).partition(":[")[0]
            except OSError:  # the one of the listing itself
                continue

    return sorted(targets())


def descriptors_before() -> list[str]:
    """Return what this process has open once what earlier tests left behind is collected."""
    gc.collect()
    return descriptors()


def temporary_files() -> list[str]:
    """Return the files of ours in the temporary directory."""
    return sorted(path.name for path in Path(tempfile.gettempdir()).glob("rlm-mcp*"))


# --- time ---


async def test_a_cell_that_runs_over_is_interrupted_and_keeps_its_variables(repl: Repl) -> None:
    await run(repl, "kept = [7]")
    result = await run_over(repl, "while True: pass")
    assert (result.timed_out, result.lost_variables) == (True, False)
    assert result.error is not None
    assert result.error.type == "TimeoutError"
    assert re.search(r"longer than \d+(\.\d)? s", result.error.message)
    assert "while True: pass" in result.error.traceback
    assert (await run(repl, "kept")).output == "[7]\n"


@pytest.mark.parametrize(
    "code",
    [
        "import time; time.sleep(60)",
        "import re; re.match('(a+)+$', 'a' * 40 + 'b')",
        pytest.param(
            "import threading; threading.Event().wait()",
            marks=native_alone("a wait for another thread says at once what to do"),
        ),
        pytest.param(
            "import queue; queue.SimpleQueue().get()",
            marks=native_alone("a wait for another thread ends the interpreter, which is put back"),
        ),
        "import asyncio; asyncio.run(asyncio.sleep(60))",
        "import subprocess, sys; print('x' * 10)\nwhile True: print('y' * 1000)",
    ],
)
async def test_an_interrupt_reaches_whatever_a_cell_waits_in(repl: Repl, code: str) -> None:
    await run(repl, "kept = 7")
    result = await run_over(repl, code)
    assert (result.timed_out, result.lost_variables) == (True, False)
    assert (await run(repl, "kept")).output == "7\n"


DEAF = "sum(range(10**15))"  # in C, where no interrupt is looked for


async def run_deaf(repl: Repl, code: str) -> CellResult:
    """Run a cell that has to be killed until it is: before its last line it can be interrupted."""
    return await with_enough_time(
        lambda seconds: run(repl, code, seconds=seconds), lambda done: done.lost_variables
    )


@native_alone("it is put back to before the cell, in the same process")
async def test_a_cell_that_is_deaf_to_the_interrupt_is_killed_and_small_variables_survive(
    repl: Repl,
) -> None:
    await run(repl, "small = {'a': [1, 2]}; big = 'x' * 1_000_000; f = lambda: 1")
    result = await run_deaf(repl, f"late = 1\n{DEAF}")
    assert (result.timed_out, result.lost_variables) == (True, True)
    assert result.error is not None
    assert "Restored as before this cell: small." in result.error.message
    assert (await run(repl, "small, 'big' in globals(), 'late' in globals()")).output == (
        "({'a': [1, 2]}, False, False)\n"
    )
    assert (await run(repl, "context[:5]")).output == "'alpha'\n"


async def test_an_interrupt_amid_calls_breaks_no_frame(repl: Repl) -> None:
    code = "n = 0\nwhile True:\n  assert llm_query('x' * 100_000) == 'x' * 100_000\n  n += 1"
    for _ in range(5):
        result = await run(repl, code, seconds=0.05)
        assert (result.timed_out, result.lost_variables) == (True, False)
    assert (await run(repl, "llm_query('still here')")).output == "'still here'\n"


# --- death ---


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import os; os._exit(3)", "the code ended it with status 3"),
        ("import ctypes; ctypes.string_at(1)", "ended by signal 11"),
        ("import os\nfor fd in range(3, 64):\n  try: os.close(fd)\n  except OSError: pass", ""),
    ],
)
@native_alone("what ends the interpreter puts it back to before the cell")
async def test_a_repl_that_dies_is_replaced_and_the_reason_is_told(
    repl: Repl, code: str, why: str
) -> None:
    await run(repl, "x = 1; y = (i for i in [])")
    result = await run(repl, code)
    assert (result.lost_variables, result.timed_out) == (True, False)
    assert result.error is not None
    assert (result.error.type, why in result.error.message) == ("REPLDied", True)
    assert (await run(repl, "x, 'y' in globals()")).output == "(1, False)\n"


@native_alone("there are no threads that go on between cells")
async def test_a_repl_that_dies_between_cells_is_replaced_by_the_next(repl: Repl) -> None:
    code = "import os, threading, sys\n"
    code += "go = threading.Event()\ndef end(): go.wait(); os._exit(0)\n"
    code += "threading.Thread(target=end).start()"
    await run(repl, f"{code}\nkept = 1")
    first = await run(repl, "go.set(); import time; time.sleep(9)")
    assert first.lost_variables
    assert [variable.name for variable in await repl.variables()] == ["kept"]


@native_alone("nothing is pickled where a cell ends the interpreter")
async def test_variables_that_cannot_be_restored_are_left_out(repl: Repl) -> None:
    code = "class P:\n  def __reduce__(self): return (eval, ('1 / 0',))\np = P(); good = 2"
    await run(repl, code)
    result = await run(repl, "import os; os._exit(0)")
    assert result.error is not None
    assert "before this cell: good." in result.error.message


# --- cancellation ---


async def test_cancelling_a_cell_interrupts_it_and_keeps_the_repl(repl: Repl) -> None:
    started = anyio.Event()

    async def begin(_call: ReplCall) -> CallReply:
        started.set()
        return CallReply(text="go")

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(
                lambda: repl.execute(
                    "kept = 7; llm_query('')\nwhile True: pass", timeout_seconds=60, on_call=begin
                )
            )
            await started.wait()
            tasks.cancel_scope.cancel()
        result = await run(repl, "kept")
        assert (result.output, result.lost_variables) == ("7\n", False)
        await run(repl, "import os; os._exit(0)")
        assert (await run(repl, "kept")).output == "7\n"  # handed over, though nothing changed it


@native_alone("it is put back to before the cell, in the same process")
async def test_cancelling_a_cell_that_does_not_listen_kills_it(repl: Repl) -> None:
    started = anyio.Event()

    async def begin(_call: ReplCall) -> CallReply:
        started.set()
        return CallReply(text="go")

    await run(repl, "small = 1")
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(
                lambda: repl.execute(
                    # Wherever the interrupt falls, the cell goes on and is deaf again.
                    "while True:\n  try:\n    llm_query('')\n    "
                    + DEAF
                    + "\n  except BaseException: pass",
                    timeout_seconds=60,
                    on_call=begin,
                )
            )
            await started.wait()
            tasks.cancel_scope.cancel()
        result = await run(repl, "small")
    assert (result.output, result.lost_variables) == ("1\n", True)


async def test_cancelling_a_cell_that_waits_for_a_core_harms_no_repl() -> None:
    with anyio.fail_after(60):
        async with a_sandbox(cores=1) as sandbox, AsyncExitStack() as stack:
            first, second = [
                await stack.enter_async_context(sandbox.open_repl(TEXT, OPTIONS)) for _ in range(2)
            ]
            await run(second, "kept = iter('kept')")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(run, first, "while True: pass")
                tasks.start_soon(run, second, "while True: pass")
                await anyio.wait_all_tasks_blocked()
                tasks.cancel_scope.cancel()
            result = await run(second, "''.join(kept)")
    assert (result.output, result.lost_variables) == ("'kept'\n", False)


async def test_many_texts_are_loaded_at_once() -> None:
    said: set[str] = set()

    async def ask(sandbox: OwnedSandbox, number: int) -> None:
        text = TextContext.of(f"text {number % 10}")
        async with sandbox.open_repl(text, OPTIONS) as repl:
            said.add((await run(repl, "context")).output)

    with anyio.fail_after(60):
        async with a_sandbox() as sandbox, anyio.create_task_group() as tasks:
            for number in range(30):
                tasks.start_soon(ask, sandbox, number)
    assert said == {f"'text {number}'\n" for number in range(10)}


async def test_cancelling_a_waiting_call_cancels_its_handler(repl: Repl) -> None:
    started, ended = anyio.Event(), anyio.Event()

    async def wait(_call: ReplCall) -> CallReply:
        started.set()
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()
        raise AssertionError

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(
                lambda: repl.execute("llm_query('')", timeout_seconds=60, on_call=wait)
            )
            await started.wait()
            tasks.cancel_scope.cancel()
        assert ended.is_set()
        assert (await run(repl, "1")).output == "1\n"


# --- what is left ---


async def test_nothing_is_left_when_the_sandbox_is_closed() -> None:
    open_before, files_before = descriptors_before(), temporary_files()
    processes_before = set(descendants())
    with anyio.fail_after(60):
        async with a_sandbox() as sandbox, AsyncExitStack() as stack:
            repls = [
                await stack.enter_async_context(
                    sandbox.open_repl(TextContext.of(f"text {n % 3}" * 1000), OPTIONS)
                )
                for n in range(9)
            ]
            await run(repls[0], "import os; os._exit(0)")
            await run(repls[1], DEAF, seconds=0.1)
            async with anyio.create_task_group() as tasks:
                for repl in repls:
                    tasks.start_soon(run, repl, "import time\nwhile True: time.sleep(1)")
                await anyio.wait_all_tasks_blocked()
                tasks.cancel_scope.cancel()
    assert set(descendants()) == processes_before
    assert descriptors() == open_before
    assert temporary_files() == files_before


async def test_nothing_outlives_the_last_repl_of_a_sandbox_that_was_not_entered() -> None:
    before, processes = descriptors_before(), set(descendants())
    with anyio.fail_after(60):
        async with a_sandbox().open_repl(TEXT, OPTIONS) as repl:
            assert (await run(repl, "1")).output == "1\n"
    assert (descriptors(), set(descendants())) == (before, processes)


async def test_a_source_that_lies_about_its_size_leaves_nothing_behind() -> None:
    class Liar(TextContext):
        @property
        def byte_lengths(self) -> tuple[int, ...]:
            return (99,)

    before = descriptors_before()
    with anyio.fail_after(60):
        async with a_sandbox() as sandbox:
            with pytest.raises(SandboxError, match="gave 3 bytes of 99"):
                async with sandbox.open_repl(Liar(("abc",)), OPTIONS):
                    pass
    assert descriptors() == before


class Halves(TextContext):
    """A large text that is read in two parts; the second may fail."""

    fails = False

    def chunks_between(self, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        place = 0
        for chunk in self.chunks():
            if start <= place < end:
                yield place, chunk
            place += len(chunk)
        if self.fails and start:
            raise OSError(28, "No space left on device")


@native_alone("the text goes through a socket, in order")
async def test_a_large_text_is_written_in_two_parts_and_either_may_fail() -> None:
    before = descriptors_before()
    with anyio.fail_after(60):
        async with a_sandbox() as sandbox:
            for text in ("a" * (17 << 20), "a" * (17 << 20) + "ü"):
                async with sandbox.open_repl(Halves((text,)), OPTIONS) as repl:
                    assert (
                        await run(repl, "len(context), context[-1], len(set(context))")
                    ).output == (f"({len(text)}, {text[-1]!r}, {len(set(text))})\n")
            broken = Halves(("b" * (17 << 20),))
            object.__setattr__(broken, "fails", True)
            with pytest.raises(SandboxError, match="No space left on device"):
                async with sandbox.open_repl(broken, OPTIONS):
                    pass
    assert descriptors() == before


async def test_cancelling_while_a_text_is_filled_in_leaves_nothing_behind() -> None:
    filling = anyio.Event()

    class Slow:
        key = "slow"
        names = ("slow",)
        byte_lengths = (3,)
        char_lengths = (3,)
        is_list = False
        prefix = ""

        def chunks(self) -> Iterator[bytes]:
            anyio.from_thread.run_sync(filling.set)
            while True:
                anyio.from_thread.run(anyio.lowlevel.checkpoint)
                yield b""

    before = descriptors_before()
    with anyio.fail_after(60):
        async with a_sandbox() as sandbox:
            await sandbox.isolation()

            async def fill() -> None:
                async with sandbox.open_repl(Slow(), OPTIONS):
                    pass

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(fill)
                await filling.wait()
                tasks.cancel_scope.cancel()
            async with sandbox.open_repl(TextContext.of("abc"), OPTIONS) as repl:
                assert (await run(repl, "context")).output == "'abc'\n"
    assert descriptors() == before


async def test_a_text_that_is_not_read_to_its_end_is_closed_in_the_thread_that_read_it() -> None:
    """What a source holds open, such as a database, must not be closed on the event loop."""
    filling = anyio.Event()
    threads: list[tuple[str, int]] = []

    class Endless(TextContext):
        def chunks(self) -> Iterator[bytes]:
            threads.append(("reads", threading.get_ident()))
            anyio.from_thread.run_sync(filling.set)
            try:
                while True:
                    yield b""
            finally:
                threads.append(("closes", threading.get_ident()))

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write_text, Endless(("text",)))
            await filling.wait()
            tasks.cancel_scope.cancel()

    (_, reader), closing = threads
    assert closing == ("closes", reader)
    assert reader != threading.get_ident()


# --- the fork server ---


@native_alone("each REPL holds its text")
async def test_repls_over_equal_texts_share_one_holder_and_others_do_not() -> None:
    with anyio.fail_after(60):
        async with a_sandbox() as sandbox, AsyncExitStack() as stack:
            for text in ("one", "one", "two"):
                await stack.enter_async_context(sandbox.open_repl(TextContext.of(text), OPTIONS))
            alive = len(descendants())
            await stack.enter_async_context(sandbox.open_repl(TextContext.of("one"), OPTIONS))
            assert len(descendants()) == alive + 1
            await stack.enter_async_context(sandbox.open_repl(TextContext.of("three"), OPTIONS))
            assert len(descendants()) == alive + 3


@native_alone("each REPL holds its text")
async def test_texts_that_nobody_uses_are_let_go_when_there_are_too_many() -> None:
    with anyio.fail_after(60):
        async with ProcessSandbox(keep=Keep(idle_texts=2)) as sandbox:
            await sandbox.isolation()
            counts: list[int] = []
            for number in range(6):
                text = TextContext.of(f"text {number}")
                async with sandbox.open_repl(text, OPTIONS) as repl:
                    assert (await run(repl, "context")).output == f"'text {number}'\n"
                # Two for each holder; its process may be a zombie for a moment longer.
                counts.append(len(descriptors()))
            assert counts[-1] == counts[-2] == counts[-3]


@native_alone("there is no fork server")
async def test_a_killed_fork_server_is_an_error_of_its_cells_and_the_next_works() -> None:
    def kill_all() -> None:
        for pid in descendants():
            os.kill(pid, signal.SIGKILL)

    with anyio.fail_after(60):
        async with ProcessSandbox() as sandbox, sandbox.open_repl(TEXT, OPTIONS) as repl:
            await run(repl, "small = 1")

            async def kill(_call: ReplCall) -> CallReply:
                await anyio.to_thread.run_sync(kill_all)
                return CallReply(text="")

            result = await repl.execute("llm_query('')", timeout_seconds=9, on_call=kill)
            assert result.lost_variables
            assert result.error is not None
            assert "the process that held the text is gone" in result.error.message
            assert (await run(repl, "small, context")).output == "(1, 'alpha\\nbeta\\n')\n"
            async with sandbox.open_repl(TextContext.of("next"), OPTIONS) as other:
                assert (await run(other, "context")).output == "'next'\n"


@native_alone("there is no fork server")
async def test_repls_that_open_while_everything_is_killed_open_after_all() -> None:
    before, processes = descriptors_before(), set(descendants())
    said: list[str] = []
    killed = anyio.Event()

    def kill_all() -> None:
        for pid in descendants():
            with suppress(ProcessLookupError):  # it was the child of another
                os.kill(pid, signal.SIGKILL)

    async def use(sandbox: OwnedSandbox, number: int) -> None:
        async with sandbox.open_repl(TextContext.of(f"text {number % 5}"), OPTIONS) as repl:
            await killed.wait()
            await run(repl, "1")  # lost, if it was open before
            said.append((await run(repl, "context")).output)

    with anyio.fail_after(60):
        async with a_sandbox() as sandbox:
            await sandbox.isolation()
            async with anyio.create_task_group() as tasks:
                for number in range(20):
                    tasks.start_soon(use, sandbox, number)
                await anyio.wait_all_tasks_blocked()
                await anyio.to_thread.run_sync(kill_all)
                killed.set()
    assert sorted(said) == sorted(f"'text {number % 5}'\n" for number in range(20))
    assert (descriptors(), set(descendants())) == (before, processes)


HOST = """
import anyio, sys
from rlm_mcp.sandbox.host.sandbox import ProcessSandbox
from rlm_mcp.sandbox.host.text import TextContext
from rlm_mcp.sandbox.types import CallReply, ReplOptions
async def main():
    async def tell(call):
        print("spinning", flush=True)
        return CallReply()
    async with ProcessSandbox() as sandbox:
        async with sandbox.open_repl(TextContext.of("x"), ReplOptions()) as repl:
            code = "llm_query('')\\nwhile True: pass"
            await repl.execute(code, timeout_seconds=600, on_call=tell)
anyio.run(main)
"""


@native_alone("a test of the whole server says so")
async def test_a_killed_server_leaves_no_process_behind() -> None:
    def start_and_kill() -> list[int]:
        with subprocess.Popen([sys.executable, "-c", HOST], stdout=subprocess.PIPE) as host:
            assert host.stdout is not None
            assert host.stdout.readline() == b"spinning\n"
            ours = [os.pidfd_open(pid) for pid in descendants() if pid != host.pid]
            host.kill()
        return ours

    handles = await anyio.to_thread.run_sync(start_and_kill)
    assert len(handles) >= 4  # the warm process and its guard, two holders or more, a REPL
    try:
        with anyio.fail_after(2):
            for handle in handles:
                await anyio.wait_readable(handle)
    finally:
        for handle in handles:
            os.close(handle)


@native_alone("its own test says so")
async def test_a_sandbox_whose_interpreter_is_gone_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    sandbox = ProcessSandbox(min_isolation="process")
    isolation = await sandbox.isolation()
    assert isolation.level == "process"
    assert "/nonexistent/python" in isolation.missing[0]
    with pytest.raises(SandboxError, match="cannot start '/nonexistent/python'"):
        async with sandbox.open_repl(TEXT, OPTIONS):
            pass


@native_alone("its own test says so")
async def test_a_repl_that_cannot_be_replaced_is_an_error_of_the_sandbox(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sandbox = ProcessSandbox(min_isolation="process", walls=Walls(seccomp=False))
    with anyio.fail_after(60):
        async with sandbox.open_repl(TEXT, OPTIONS) as repl:
            monkeypatch.setattr(sys, "executable", "/nonexistent/python")
            with pytest.raises(SandboxDiedError, match="a new one could not be started"):
                await run(repl, "import os; os._exit(0)")


# --- many at once ---


async def test_a_hundred_busy_repls_leave_the_host_responsive_and_nothing_behind() -> None:
    """Half of them spin, half sleep; answers to the host are counted, not timed."""
    before, processes = descriptors_before(), set(descendants())
    busy = ("while True: pass", "import time\nwhile True: time.sleep(1)")
    with anyio.fail_after(120):
        async with a_sandbox() as sandbox, AsyncExitStack() as stack:
            repls = [
                await stack.enter_async_context(sandbox.open_repl(TEXT, OPTIONS))
                for _ in range(100)
            ]
            asked = await stack.enter_async_context(sandbox.open_repl(TEXT, OPTIONS))
            async with anyio.create_task_group() as tasks:
                for number, repl in enumerate(repls):
                    tasks.start_soon(
                        lambda repl=repl, code=busy[number % 2]: repl.execute(
                            code, timeout_seconds=60, on_call=echo
                        )
                    )
                await anyio.wait_all_tasks_blocked()
                with anyio.fail_after(60):
                    for number in range(5):
                        assert (await run(asked, f"{number} + 1")).output == f"{number + 1}\n"
                tasks.cancel_scope.cancel()
    assert (descriptors(), set(descendants())) == (before, processes)


@native_alone("each REPL holds its text")
async def test_a_text_whose_idle_holder_was_killed_is_loaded_anew() -> None:
    def kill_youngest() -> None:
        os.kill(max(descendants()), signal.SIGKILL)

    with anyio.fail_after(60):
        async with a_sandbox() as sandbox:
            async with sandbox.open_repl(TEXT, OPTIONS) as repl:
                await run(repl, "1")
            before = descriptors_before()
            for _ in range(3):
                await anyio.to_thread.run_sync(kill_youngest)
                async with sandbox.open_repl(TEXT, OPTIONS) as repl:
                    assert (await run(repl, "context[:5]")).output == "'alpha'\n"
            assert descriptors() == before


@native_alone("there are no threads")
async def test_cancelling_reaches_a_cell_that_waits_while_its_thread_reads(repl: Repl) -> None:
    code = "import threading\nkept = 7\n"
    code += "def ask():\n  try: llm_query('thread')\n  except RuntimeError: pass\n"
    code += "t = threading.Thread(target=ask)\nt.start()\n"
    code += "while not budget()['asked']: pass\nllm_query('cell')"
    asked: dict[str, anyio.Event] = {"thread": anyio.Event(), "cell": anyio.Event()}

    async def never(call: ReplCall) -> CallReply:
        if call.name == "budget":
            return CallReply(text=json.dumps({"asked": asked["thread"].is_set()}))
        asked[call.prompt].set()
        await anyio.sleep_forever()
        raise AssertionError

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: repl.execute(code, timeout_seconds=60, on_call=never))
            await asked["cell"].wait()
            tasks.cancel_scope.cancel()
        result = await run(repl, "t.join(); kept")
    assert (result.output, result.lost_variables) == ("7\n", False)
