"""The portable sandbox where it goes its own way: what is put back, gathered, refused, chosen."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import anyio
import pytest

from rlm_mcp.errors import IsolationError, SandboxBusyError, SandboxError, TooLargeError
from rlm_mcp.sandbox.choice import make_sandbox
from rlm_mcp.sandbox.host.room import Room
from rlm_mcp.sandbox.host.text import TextContext
from rlm_mcp.sandbox.portable import module as modules
from rlm_mcp.sandbox.portable.sandbox import PortableSandbox
from rlm_mcp.sandbox.types import CallReply, CellResult, Repl, ReplCall, ReplOptions
from rlm_mcp.sandbox.walls import seccomp
from rlm_mcp.service.opening import open_service
from tests.overtime import with_enough_time
from tests.serving import settings_in

TEXT = TextContext.of("alpha\nbeta\n")
DEAF = "sum(range(10**15))"  # in C, where no interrupt is looked for
PUT_BACK = "All variables are as they were before this cell"


@pytest.fixture(scope="module")
async def sandbox() -> AsyncGenerator[PortableSandbox]:
    async with PortableSandbox() as opened:
        yield opened


@pytest.fixture
async def repl(sandbox: PortableSandbox) -> AsyncGenerator[Repl]:
    with anyio.fail_after(180):
        async with sandbox.open_repl(TEXT, ReplOptions()) as opened:
            yield opened


async def shout(call: ReplCall) -> CallReply:
    return CallReply(text=call.prompt.upper())


async def run(repl: Repl, code: str, *, seconds: float = 60) -> CellResult:
    return await repl.execute(code, timeout_seconds=seconds, on_call=shout)


def was_put_back(done: CellResult) -> bool:
    return done.error is not None and PUT_BACK in done.error.message


async def run_over(repl: Repl, code: str, *, before: str) -> CellResult:
    """Run a cell that does not end until it is put back.

    Where it is interrupted before its last line, or does not come to be put back before its process
    is ended, it is run again, each time after the cell `before`.
    """

    async def both(seconds: float) -> CellResult:
        await run(repl, before)
        return await run(repl, code, seconds=seconds)

    return await with_enough_time(both, was_put_back)


async def test_its_level_is_partial_and_its_layers_are_named(sandbox: PortableSandbox) -> None:
    isolation = await sandbox.isolation()

    assert isolation.level == "partial"
    assert isolation.layers[0] == "wasm"
    assert "limits" in isolation.layers
    assert {"seccomp", "landlock"} >= set(isolation.layers[1:-1])


def threads_of(repl: Repl) -> list[int]:
    """The threads of the process around a REPL's instance."""
    around = cast("Any", repl)._process.process
    return [int(path.name) for path in Path(f"/proc/{around._popen.pid}/task").iterdir()]


@pytest.mark.skipif(sys.platform != "linux", reason="each thread has a priority on Linux")
async def test_a_repl_gives_way_once_it_may_run_code_and_not_while_it_opens(repl: Repl) -> None:
    threads = threads_of(repl)
    before = {os.getpriority(os.PRIO_PROCESS, thread) for thread in threads}
    await run(repl, "1")
    after = {os.getpriority(os.PRIO_PROCESS, thread) for thread in threads}

    ours = os.getpriority(os.PRIO_PROCESS, 0)
    assert before == {ours}
    assert after == {ours, min(19, ours + 5)}


async def test_no_repl_opens_where_more_is_asked_for_than_it_holds(
    sandbox: PortableSandbox,
) -> None:
    found = await sandbox.isolation()
    with pytest.raises(IsolationError, match="full"):
        async with PortableSandbox(min_isolation="full", isolation=found).open_repl(
            TEXT, ReplOptions()
        ):
            pass


# --- a cell that is ended is put back ---


@pytest.mark.parametrize(
    ("code", "kind", "why"),
    [
        (DEAF, "TimeoutError", "ignored the interrupt"),
        ("import signal; signal.signal(2, signal.SIG_IGN)\nwhile True: pass", "TimeoutError", ""),
        (
            "while True:\n  try:\n    while True: pass\n  except BaseException: pass",
            "TimeoutError",
            "",
        ),
        (
            "import sys; sys.setrecursionlimit(10**8)\ndef f(): return f()\nf()",
            "RecursionError",
            "too deep",
        ),
        ("import os; os.abort()", "SystemError", "aborted"),
        ("import os; os._exit(3)", "SystemExit", "ended the interpreter"),
    ],
)
async def test_what_ends_the_interpreter_leaves_everything_as_it_was_before(
    repl: Repl, code: str, kind: str, why: str
) -> None:
    before = "small = [1]; large = 'x' * 3_000_000; f = lambda: small; globals().pop('late', 0)"
    await run(repl, before)
    code = f"late = 1\nprint('seen')\n{code}"
    over = kind == "TimeoutError"
    result = await (run_over(repl, code, before=before) if over else run(repl, code))

    assert result.error is not None
    assert (result.error.type, result.lost_variables) == (kind, False)
    assert why in result.error.message
    assert PUT_BACK in result.error.message
    after = await run(repl, "f(), len(large), 'late' in globals(), context[:5], llm_query('a')")
    assert after.output == "([1], 3000000, False, 'alpha', 'A')\n"


async def test_memory_that_grew_in_a_cell_that_is_ended_is_given_back(repl: Repl) -> None:
    # Where the last one was interrupted before its last line, its memory stayed: more than can be
    # put back, so the next one loses all variables, and the one behind it starts small again.
    code = f"big = bytearray(300_000_000)\n{DEAF}"
    for _ in range(2):
        ended = await run_over(repl, code, before="x = 1; big = None")
        assert was_put_back(ended)
    last = await run(repl, "len(bytearray(600_000_000)), x")
    assert (last.error, last.output) == (None, "(600000000, 1)\n")


async def test_a_look_that_is_given_up_takes_nothing_and_interrupts_no_later_cell(
    repl: Repl,
) -> None:
    slow = (
        "import time\n"
        "class Slow:\n"
        "    def __repr__(self):\n"
        "        until = time.monotonic() + 6\n"
        "        while time.monotonic() < until:\n"
        "            try:\n"
        "                while time.monotonic() < until: pass\n"
        "            except KeyboardInterrupt:\n"
        "                pass\n"
        "        return 'slow'\n"
        "kept, slow = [1], Slow()"
    )
    assert (await run(repl, slow)).error is None
    with pytest.raises(SandboxBusyError):
        await repl.read_variable("slow")
    busy = "until = time.monotonic() + 3\nwhile time.monotonic() < until: pass\nkept, type(slow)"
    done = await run(repl, busy)
    assert (done.error, done.lost_variables) == (None, False)
    assert done.output.startswith("([1], <class")


async def test_a_look_that_ends_the_interpreter_leaves_everything_as_it_was(repl: Repl) -> None:
    deep = (
        "class Deep:\n"
        "    def __repr__(self):\n"
        "        import re\n"
        "        value = []\n"
        "        for _ in range(10**6): value = [value]\n"
        "        import sys; sys.setrecursionlimit(10**9)\n"
        "        return repr(value)\n"
        "kept, deep = [1], Deep()"
    )
    assert (await run(repl, deep)).error is None
    shown = await repl.read_variable("deep")
    assert "ended the interpreter" in shown.text
    done = await run(repl, "kept, type(deep)")
    assert (done.error, done.lost_variables) == (None, False)


async def test_small_variables_survive_a_killed_process(repl: Repl) -> None:
    await run(repl, "small = {'a': 1}")
    process: Any = vars(repl)["_process"]
    process.process.kill()
    result = await run(repl, "small")

    assert result.lost_variables
    assert "Restored as before this cell: small" in str(result.error)
    assert (await run(repl, "small, context")).output == "({'a': 1}, 'alpha\\nbeta\\n')\n"


# --- texts ---


@pytest.mark.parametrize("text", ["", "abc", "é" * 5, "a€" * 5, "😀a" * 5, "é" * 700_000 + "€"])
async def test_a_text_of_any_width_is_the_same_str(sandbox: PortableSandbox, text: str) -> None:
    async with sandbox.open_repl(TextContext.of(text), ReplOptions()) as repl:
        code = f"t = {text[:20]!r}; context[:20] == t, hash(context[:20]) == hash(t), len(context)"
        assert (await run(repl, code)).output == f"(True, True, {len(text)})\n"
        code = "import hashlib; hashlib.sha1(context.encode()).hexdigest() and context.isascii()"
        assert (await run(repl, code)).output == f"{text.isascii()}\n"


async def test_documents_are_a_list_whatever_their_characters(sandbox: PortableSandbox) -> None:
    texts = ["aé", "b😀", "", "c"]
    async with sandbox.open_repl(TextContext.of(texts), ReplOptions()) as repl:
        assert (await run(repl, f"context == {texts!r}, context_names[1]")).output == (
            "(True, 'document 1')\n"
        )


@dataclass(frozen=True)
class HugeSource:
    """Says that it is huge, and is never read."""

    key: str = "huge"
    names: Sequence[str] = ("huge",)
    byte_lengths: Sequence[int] = (1 << 31,)
    char_lengths: Sequence[int] = (1 << 31,)
    is_list: bool = False
    prefix: str = ""

    def chunks(self) -> Iterator[bytes]:
        raise AssertionError("it is read")


async def test_a_text_over_two_gibibytes_is_refused_unread(sandbox: PortableSandbox) -> None:
    with pytest.raises(TooLargeError, match="less than 2 GiB"):
        sandbox.check(HugeSource())
    with pytest.raises(TooLargeError, match="less than 2 GiB"):
        async with sandbox.open_repl(HugeSource(), ReplOptions()):
            pass


# --- calls without threads ---


@pytest.mark.parametrize(
    "code",
    [
        "with ThreadPoolExecutor(9) as pool: got = list(pool.map(llm_query, prompts))",
        "with ThreadPoolExecutor(9) as pool: fs = [pool.submit(llm_query, p) for p in prompts]\n"
        "got = [f.result() for f in fs]",
        "with ThreadPoolExecutor(9) as pool:\n"
        "  fs = {pool.submit(llm_query, p): p for p in prompts}\n"
        "  got = sorted(f.result() for f in as_completed(fs))",
        "with ThreadPoolExecutor(9) as pool:\n"
        "  fs = [pool.submit(llm_query, p, 'x' * 2000) for p in prompts]\n"
        "got = [f.result()[-1] for f in fs]",
        "with ThreadPoolExecutor(9) as pool:\n"
        "  fs = [pool.submit(llm_query, p, model='sub') for p in prompts]\n"
        "got = [f.result() for f in fs]",
        "from multiprocessing.pool import ThreadPool\n"
        "with ThreadPool(9) as pool: got = pool.map(llm_query, prompts)",
        "async def ask():\n  jobs = [asyncio.to_thread(llm_query, p) for p in prompts]\n"
        "  return await asyncio.gather(*jobs)\ngot = asyncio.run(ask())",
    ],
)
async def test_calls_that_an_executor_is_given_go_out_as_one_batch(repl: Repl, code: str) -> None:
    sizes: list[int] = []

    async def note(call: ReplCall) -> CallReply:
        sizes.append(call.batch_size)
        return CallReply(text=call.prompt.upper())

    head = "import asyncio\nfrom concurrent.futures import ThreadPoolExecutor, as_completed\n"
    code = f"{head}prompts = ['a', 'b', 'c']\n{code}\nprint(got)"
    result = await repl.execute(code, timeout_seconds=20, on_call=note)

    assert (result.output, result.error) == ("['A', 'B', 'C']\n", None)
    assert sizes == [3, 3, 3]


async def test_functions_of_the_models_own_run_one_after_another_in_an_executor(
    repl: Repl,
) -> None:
    code = "from concurrent.futures import ThreadPoolExecutor\n"
    code += "with ThreadPoolExecutor() as pool: print(list(pool.map(lambda x: llm_query(x), 'ab')))"
    assert (await run(repl, code)).output == "['A', 'B']\n"


async def test_what_would_wait_for_another_thread_for_ever_says_so(repl: Repl) -> None:
    result = await run(repl, "import threading\nthreading.Event().wait()")
    assert result.error is not None
    assert "llm_query_batch" in result.error.message


# --- memory, and what is not installed ---


async def test_a_repl_for_which_there_is_no_memory_is_refused_in_plain_words() -> None:
    async with PortableSandbox(room=Room(250 << 20, 0.1)) as sandbox:
        async with sandbox.open_repl(TEXT, ReplOptions()):
            with pytest.raises(SandboxError, match="not enough memory for another REPL"):
                async with sandbox.open_repl(TEXT, ReplOptions()):
                    pass
        async with sandbox.open_repl(TEXT, ReplOptions()) as repl:
            assert (await run(repl, "1")).output == "1\n"


async def test_a_module_that_was_not_built_is_named_with_the_command_that_builds_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rlm_mcp_python_wasm.find_module", lambda: None)

    with pytest.raises(SandboxError, match="was not built yet") as caught:
        await PortableSandbox().require_isolation()
    assert "python3 packaging/python-wasm/build.py" in caught.value.fix


def test_a_folder_that_others_can_write_is_not_trusted_with_code(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)

    with pytest.raises(PermissionError, match="written by others"):
        vars(modules)["_make_private"](tmp_path)


# --- the choice ---


async def test_auto_takes_the_native_walls_where_they_hold() -> None:
    async with make_sandbox("auto") as sandbox:
        assert "wasm" not in (await sandbox.isolation()).layers


DENYING = """
import sys, anyio, json
from dataclasses import asdict
from rlm_mcp.sandbox.walls import namespaces, seccomp
from rlm_mcp.sandbox.choice import make_sandbox
from rlm_mcp.sandbox.host.text import TextContext
from rlm_mcp.sandbox.types import CallReply, ReplOptions
namespaces.give_up_privileges()
refusals = [line for number in (272, 317) for line in ((0x15, 0, 1, number), (0x06, 0, 0, 0x50001))]
seccomp.install([(0x20, 0, 0, 0), *refusals, (0x06, 0, 0, 0x7FFF0000)], "x86_64")
async def call(call):
    return CallReply(text="")
async def main():
    async with make_sandbox("auto") as sandbox:
        isolation = await sandbox.isolation()
        async with sandbox.open_repl(TextContext.of("abc"), ReplOptions()) as repl:
            result = await repl.execute("len(context)", timeout_seconds=20, on_call=call)
    print(json.dumps([asdict(isolation), result.output]))
anyio.run(main)
"""


@pytest.mark.skipif(seccomp.machine() != "x86_64", reason="numbers of calls are x86-64's")
async def test_auto_takes_the_portable_one_where_the_kernel_gives_no_walls() -> None:
    with anyio.fail_after(120):
        ended = await anyio.run_process([sys.executable, "-c", DENYING], check=False)
    assert ended.returncode == 0, ended.stderr.decode()
    isolation, output = json.loads(ended.stdout)

    assert (isolation["level"], output) == ("partial", "3\n")
    assert isolation["layers"] == ["wasm", "landlock", "limits"]
    assert isolation["missing"] == ["seccomp: Operation not permitted"]


DEMO = """
import os, sys
from rlm_mcp.sandbox.walls import namespaces, seccomp
namespaces.give_up_privileges()
refusals = [line for number in (272, 317) for line in ((0x15, 0, 1, number), (0x06, 0, 0, 0x50001))]
seccomp.install([(0x20, 0, 0, 0), *refusals, (0x06, 0, 0, 0x7FFF0000)], "x86_64")
os.execv(sys.executable, [sys.executable, "-m", "rlm_mcp", "demo"])
"""


@pytest.mark.skipif(seccomp.machine() != "x86_64", reason="numbers of calls are x86-64's")
async def test_the_demo_is_answered_where_the_kernel_gives_no_walls(tmp_path: Path) -> None:
    """As in a container that denies seccomp and namespaces, to what is started there too."""
    given = {**os.environ, "RLM_MCP_DATA_DIR": str(tmp_path), "RLM_MCP_SANDBOX": "auto"}
    with anyio.fail_after(300):
        done = await anyio.run_process([sys.executable, "-c", DEMO], check=False, env=given)

    assert done.returncode == 0, done.stderr.decode()
    assert "amber lantern orchard granite meadow" in done.stdout.decode()
    async with open_service(settings_in(tmp_path, data_dir=tmp_path)) as service:
        [run] = (await service.runs.list(None, 1, "")).items
        events = await service.runs.events(run.run_id, 0, 100)
    assert "wasm" in str(events)
