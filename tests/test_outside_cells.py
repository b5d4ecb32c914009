"""Cells that lie to the host or take all, in a server of its own: what they and others are told.

The code reaches into its own process, as any code there can: the host believes none of it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from rlm_mcp.sandbox.host.process import thread_count
from rlm_mcp.sandbox.walls.limits import MAX_THREADS
from rlm_mcp.testing.scripted_model import open_scripted_model
from tests.http_serving import ANN, BOB, Site
from tests.sandbox_attempts import FLAGS, PRELUDE, Attempt
from tests.sandbox_battery import MARKS, descendants
from tests.serving import cell, settings_in, text_of, turns
from tests.test_http_process import FEW, open_program
from tests.test_outside import Users
from tests.test_sandbox_shares import SPINNING, THREADS
from tests.walls import environment, native_alone

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")

MOST_ANSWER_CHARS = 1_000_000
REACH = """
desk = llm_query.__self__._desk
around = type(desk).ask.__globals__
wire, Request = around["wire"], around["Request"]
def send(kind, fields, *blobs): desk._send(wire.encode(kind, fields, *blobs))
"""
DONE = """
fields = dict(cell=desk._cell, chars=1, error=False, line=None, final=False, json=False,
              known=False, restored=False, cited=[])
"""
LARGE = "b'x' * (40 << 20)"
# What a cell sends in place of its own end.
ENDS = {
    "an output without end": f"send('done', fields, {LARGE}, b'')",
    "a length that lies": "send('done', fields | dict(chars=1 << 52), b'x', b'')",
    "a blob to keep": f"send('done', fields, b'', {LARGE})",
    "a type": f"send('done', fields | dict(error=True), b'', b'', {LARGE}, b'', b'')",
    "a message": f"send('done', fields | dict(error=True), b'', b'', b'E', {LARGE}, b'')",
    "a traceback": f"send('done', fields | dict(error=True), b'', b'', b'E', b'', {LARGE})",
    "a final": f"send('done', fields | dict(final=True), b'', b'', {LARGE}, b'str')",
    "a final that is no JSON": "send('done', fields | dict(final=True, json=True), b'', b'',"
    " b'{', b'dict')",
    "passages that are none": "send('done', fields | dict(cited=[9, 1 << 52, 3]), b'', b'', b'x')",
    "a line that is none": "send('done', fields | dict(line='x'), b'', b'')",
    "too few texts": "send('done', fields, b'')",
    "a kind that is none": "send('exec', dict(cell=1))",
    "JSON that is deep": "desk._send(wire.HEADER.pack(100_000, 0) + b'[' * 100_000)",
    "bytes that are no frame": "desk._send(b'\\xff' * 100)",
}
# What the process answers to a look: the first text is replaced in frames of that kind.
LOOKS = ("variables", "slice", "kept")
LYING = """
def lie(kind, fields, *blobs, real=wire.encode):
    if kind == {kind!r}: blobs = ({large}, *blobs[1:])
    return real(kind, fields, *blobs)
kept = 7
wire.encode = lie
"""
FINALS = {
    "a long text": "FINAL('x' * 60_000_000)",
    "a text whose length lies": "class S(str):\n    def __len__(self): return 1\n"
    "FINAL(S('x' * 60_000_000))",
    "a name without end": "globals()['n' * 1_000_000] = 1",
    "a hundred thousand variables": "globals().update((f'n{n}', n) for n in range(100_000))",
    "an error without end": "raise ValueError('x' * 60_000_000)",
    "an output without end": "print('x' * 60_000_000)",
}


@pytest.fixture(scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[tuple[Users, int]]:
    """Two users of one server, and its process."""
    directory = tmp_path_factory.mktemp("served")
    async with open_scripted_model(turns(cell("FINAL(1)"))) as model:
        variables = {
            "RLM_MCP_BASE_URL": model.base_url,
            "RLM_MCP_HTTP_TOKENS": f"ann={ANN},bob={BOB}",
        }
        known = {**FEW, **variables, **environment()}
        async with open_program(directory, environment=known) as program:
            site = Site(program.url, model, settings_in(directory))
            async with site.open_client(ANN) as ann, site.open_client(BOB) as bob:
                yield Users(ann, bob, directory / "data", site), program.process.pid


@pytest.fixture
def users(served: tuple[Users, int]) -> Users:
    return served[0]


async def said_to(users: Users, code: str) -> str:
    """What Ann is told of a cell; it is short, and the server answers her and Bob after it."""
    handle = (await users.ann.call("rlm_context_add", text="some text"))["handle"]
    made = await users.ann.raw("rlm_exec", code=code, contexts=[handle], timeout_seconds=60)
    said = text_of(made)
    assert len(said) < MOST_ANSWER_CHARS
    assert "internal_error" not in said
    if not made.is_error:
        done: dict[str, Any] = made.structured_content or {}
        after = await users.run(users.ann, "print('alive')", run_id=done["run_id"])
        assert after["output"] == "alive\n"
    assert (await users.run(users.bob, "print(len(context))"))["output"] == "9\n"
    return said


@native_alone("the code reaches into the native child's modules")
@pytest.mark.parametrize("name", ["rlm_query", "os.system"])
async def test_a_call_that_is_not_allowed_is_refused_whoever_makes_it(
    users: Users, name: str
) -> None:
    said = await said_to(users, f"{REACH}print(desk.ask(Request({name!r}), 'x'))")
    assert "rlm_query is turned off for this run" in said or "broke the protocol" in said


@native_alone("the code reaches into the native child's modules")
@pytest.mark.parametrize("what", ENDS)
async def test_an_end_that_is_forged_is_bounded_or_ends_the_repl(users: Users, what: str) -> None:
    await said_to(users, f"{REACH}{DONE}{ENDS[what]}\nwhile True: llm_query('x')")


@native_alone("the code reaches into the native child's modules")
@pytest.mark.parametrize("kind", LOOKS)
async def test_a_look_that_is_answered_with_too_much_ends_the_repl(users: Users, kind: str) -> None:
    code = REACH + LYING.format(kind=kind, large=LARGE)
    said = await said_to(users, code)
    assert "x" * 100_000 not in said


@pytest.mark.parametrize("what", FINALS)
async def test_what_a_cell_hands_over_is_cut_or_refused(users: Users, what: str) -> None:
    await said_to(users, FINALS[what])


@native_alone("there are no threads")
async def test_threads_of_one_user_are_limited_and_cost_another_nothing(users: Users) -> None:
    many = await users.run(users.ann, THREADS, timeout_seconds=60)
    assert 200 < int(many["output"]) < MAX_THREADS
    mine = await users.run(users.bob, "print(42)")
    assert mine["output"] == "42\n"
    after = await users.run(users.ann, "stop.set(); print('alive')", run_id=many["run_id"])
    assert (after["output"], after["note"]) == ("alive\n", None)


def burns_no_core(pid: int) -> bool:
    """Whether a process is stopped, or gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] == "T"


def wait_until_stopped(pids: list[int]) -> None:
    """Look at processes until each is stopped, or gone."""
    until_time = time.monotonic() + 60
    while not all(map(burns_no_core, pids)):
        assert time.monotonic() < until_time
        time.sleep(0.02)


def with_threads(server: int) -> list[int]:
    """The processes below the server that have at least four threads beside their first."""
    return [pid for pid in descendants(server) if thread_count(pid) > 4]


@native_alone("there are no threads that go on between cells")
async def test_a_run_that_is_over_burns_no_core(served: tuple[Users, int]) -> None:
    users, server = served
    run = await users.run(users.ann, SPINNING)
    spinning = await anyio.to_thread.run_sync(with_threads, server)
    assert spinning
    await anyio.to_thread.run_sync(wait_until_stopped, spinning)
    again = await users.run(users.ann, "print(kept)", run_id=run["run_id"])
    assert (again["output"], again["note"]) == ("7\n", None)
    await anyio.to_thread.run_sync(wait_until_stopped, spinning)


@native_alone("there are neither sockets nor memory maps")
@pytest.mark.parametrize("attempt", FLAGS, ids=lambda attempt: attempt.name)
async def test_flags_and_advice_that_nobody_needs_are_refused(
    users: Users, attempt: Attempt
) -> None:
    done = await users.run(users.ann, PRELUDE + attempt.code)
    assert not MARKS & set(done["output"].split())
