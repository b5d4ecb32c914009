"""Looking at variables takes nothing from a REPL, whatever they are; each look is bounded."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

import anyio
import pytest

from rlm_mcp.errors import SandboxBusyError
from rlm_mcp.sandbox.host.text import TextContext
from rlm_mcp.sandbox.types import CallReply, CellResult, Repl, ReplCall, ReplOptions
from rlm_mcp.service.saved_variables import save_variables
from rlm_mcp.store.runs.records import SavedVariable
from tests.walls import a_sandbox, native_alone

TEXT = TextContext.of("a line of text\n")
OPTIONS = ReplOptions(memory_bytes=4 << 30)
LARGE = """
index = {number: str(number) for number in range(3_000_000)}
rows = ("x" * 28 + "\\n") * 3_000_000
rows = rows.split("\\n")
kept = "small"
"""
MISBEHAVING = {
    "slow": "def __repr__(self): import time; time.sleep(100)",
    "endless": "def __repr__(self):\n    while True: pass",
    "exits": "def __repr__(self): raise SystemExit",
    "interrupts": "def __repr__(self): raise KeyboardInterrupt",
    "ends the cell": "def __repr__(self): FINAL('x')",
    "fills the memory": "def __repr__(self): return 'x' * (1 << 40)",
    "recurses": "def __repr__(self): return repr(self)",
    "is long": "def __repr__(self): return 'x' * 50_000_000",
    "has a slow length": "def __len__(self): import time; time.sleep(100)",
    "has a slow class": "@property\n  def __class__(self): import time; time.sleep(100)",
    "reduces slowly": "def __reduce__(self): import time; time.sleep(100)",
    "reduces and exits": "def __reduce__(self): raise SystemExit",
    "has slow state": "def __getstate__(self): import time; time.sleep(100)",
    "has a slow hash": "def __hash__(self): import time; time.sleep(100)",
}


LONG = "is long"
OF_NATIVE = pytest.param(LONG, marks=native_alone("what it takes is measured by the clock"))


async def _no_calls(_: ReplCall) -> CallReply:
    return CallReply(error="none")


async def execute(repl: Repl, code: str, seconds: float = 60) -> CellResult:
    return await repl.execute(code, timeout_seconds=seconds, on_call=_no_calls)


@asynccontextmanager
async def opened() -> AsyncGenerator[Repl]:
    async with a_sandbox() as sandbox, sandbox.open_repl(TEXT, OPTIONS) as repl:
        yield repl


async def saved(repl: Repl) -> dict[str, SavedVariable]:
    kept: list[SavedVariable] = []
    await save_variables(repl, kept, after_cell=True)
    return {variable.name: variable for variable in kept}


@contextmanager
def busy_core() -> Generator[None]:
    """Keep a core busy, the one that this process then runs on with its children."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()
        os.sched_setaffinity(0, cores)


@native_alone("what it takes is measured by the clock")
async def test_large_variables_are_looked_at_in_a_few_milliseconds_of_work() -> None:
    async with opened() as repl:
        assert (await execute(repl, LARGE)).error is None
        before = "import time; started = time.process_time()"
        assert (await execute(repl, before)).error is None
        found = await saved(repl)
        spent = await execute(repl, "(time.process_time() - started) * 1000")
    assert float(spent.output) < 20
    assert {name: found[name].size for name in ("index", "rows", "kept")} == {
        "index": 3_000_000,
        "rows": 3_000_001,
        "kept": 5,
    }
    values = {name: variable.value for name, variable in found.items()}
    assert (values["index"], values["rows"], values["kept"]) == (None, None, "small")


@native_alone("what it takes is measured by the clock")
@pytest.mark.skipif(sys.platform != "linux", reason="it takes all but one core away")
async def test_large_variables_survive_looks_on_one_busy_core() -> None:
    with busy_core():
        async with opened() as repl:
            assert (await execute(repl, LARGE)).error is None
            for _ in range(10):
                assert (await saved(repl))["kept"].value == "small"
                part = await repl.read_variable("index", start=1_000, limit=20)
                assert len(part.text) == 20
                assert part.end < part.total
                result = await execute(repl, "print(len(index), len(rows), kept)")
                assert (result.output, result.error) == ("3000000 3000001 small\n", None)


@pytest.mark.parametrize("kind", [*(kind for kind in MISBEHAVING if kind != LONG), OF_NATIVE])
async def test_a_look_at_a_value_that_misbehaves_costs_nothing(kind: str) -> None:
    make = f"class Odd:\n  {MISBEHAVING[kind]}\nodd = Odd()\nlisted = [odd]\nkept = 7"
    with anyio.fail_after(180):
        async with opened() as repl:
            assert (await execute(repl, make)).error is None
            for name in ("odd", "listed", "kept"):
                text = await repl.read_variable(name, limit=1_000)
                assert len(text.text) <= 1_000
            assert {each.name for each in await repl.variables()} >= {"odd", "listed", "kept"}
            assert (await saved(repl))["kept"].value == "7"
            result = await execute(repl, "print(kept, type(odd).__name__)")
    assert (result.output, result.error, result.lost_variables) == ("7 Odd\n", None, False)


@native_alone("it is put back to before the cell, in the same process")
async def test_a_repr_that_cannot_be_stopped_is_refused_and_ends_with_the_next_cell() -> None:
    make = """
import collections, itertools
class Odd:
    def __repr__(self):
        collections.deque(itertools.count(), maxlen=0)  # in C, where no interrupt is seen
odd, kept = Odd(), 7
"""
    with anyio.fail_after(180):
        async with opened() as repl:
            assert (await execute(repl, make)).error is None
            with pytest.raises(SandboxBusyError, match="busy with the `repr`"):
                await repl.read_variable("odd")
            with pytest.raises(SandboxBusyError):
                await repl.variables()
            result = await execute(repl, "print(kept)")
    assert (result.output, result.lost_variables) == ("7\n", True)


async def test_a_look_that_is_cancelled_costs_nothing() -> None:
    make = "import time\nclass Odd:\n  def __repr__(self): time.sleep(100)\nodd, kept = Odd(), 7"
    with anyio.fail_after(180):
        async with opened() as repl:
            assert (await execute(repl, make)).error is None
            for _ in range(3):
                with anyio.move_on_after(0.2):
                    await repl.read_variable("odd")
                assert (await repl.read_variable("kept")).text == "7"
            result = await execute(repl, "print(kept)")
    assert (result.output, result.lost_variables) == ("7\n", False)


async def test_what_follows_a_cell_is_bounded_by_the_time_of_the_cell() -> None:
    hidden = """
class Odd:
    def __reduce__(self):
        while True: pass
Odd.__module__ = "collections"
kept = 7
"""
    with anyio.fail_after(180):
        async with opened() as repl:
            assert (await execute(repl, hidden)).error is None
            result = await execute(repl, "odd = [Odd()]", seconds=0.5)
            assert not result.lost_variables
            after = await execute(repl, "print(kept)")
    assert after.output == "7\n"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("class E(Exception):\n  def __str__(self):\n    while 1: pass\nraise E", "longer than"),
        ("class E(Exception):\n  def __str__(self): raise SystemExit\nraise E", "cannot be shown"),
        ("class S(str):\n  def __len__(self): return 1\nFINAL(S('x' * 60_000_000))", "is too long"),
        ("raise NameError(name='x' * 10_000_000)", "NameError"),
        ("raise ValueError('x' * 10_000_000)", "characters cut"),
        ("e = SyntaxError('x'); e.lineno = -5\nraise e", "SyntaxError"),
        ("e = SyntaxError('x'); e.lineno = 'no'\nraise e", "SyntaxError"),
        ("exec('x = 1', {}, None); raise type('E' * 100_000, (Exception,), {})('x')", "EEE"),
    ],
)  # fmt: skip
async def test_an_error_that_misbehaves_is_told_in_bounds(code: str, said: str) -> None:
    with anyio.fail_after(180):
        async with opened() as repl:
            assert (await execute(repl, "kept = 7")).error is None
            result = await execute(repl, code, seconds=2 if "while 1" in code else 60)
            after = await execute(repl, "print(kept)")
    assert result.error is not None
    assert said in result.error.traceback
    assert len(result.error.traceback) < 40_000
    assert (after.output, result.lost_variables) == ("7\n", False)
