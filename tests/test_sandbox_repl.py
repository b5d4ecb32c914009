# ruff: noqa: E501  # cells are kept on one line where they read as a table
"""What model code sees in its REPL, and what the host sees of it."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
import anyio.lowlevel
import pytest

from rlm_mcp.errors import NotFoundError, SandboxDiedError
from rlm_mcp.sandbox.choice import OwnedSandbox
from rlm_mcp.sandbox.host.text import TextContext
from rlm_mcp.sandbox.types import (
    CallReply,
    CellResult,
    Final,
    Repl,
    ReplCall,
    ReplOptions,
    Variable,
    VariableText,
)
from tests.overtime import with_enough_time
from tests.walls import a_sandbox, native_alone

NOTHING_FOUND = "search: nothing found; the text has none of these words\n"


@pytest.fixture(scope="module")
async def sandbox() -> AsyncGenerator[OwnedSandbox]:
    async with a_sandbox() as opened:
        yield opened


@pytest.fixture
async def repl(sandbox: OwnedSandbox) -> AsyncGenerator[Repl]:
    async with open_repl(sandbox) as opened:
        yield opened


@asynccontextmanager
async def open_repl(
    sandbox: OwnedSandbox, text: str | list[str] = "alpha\nbeta\n", **options: int | bool
) -> AsyncGenerator[Repl]:
    given = replace(ReplOptions(), **options)  # pyright: ignore[reportArgumentType]  # checked by replace
    with anyio.fail_after(120):
        async with sandbox.open_repl(TextContext.of(text), given) as opened:
            yield opened


async def shout(call: ReplCall) -> CallReply:
    return CallReply(text=call.prompt.upper())


async def run(repl: Repl, code: str, *, seconds: float = 60) -> CellResult:
    return await repl.execute(code, timeout_seconds=seconds, on_call=shout)


async def output(repl: Repl, code: str) -> str:
    result = await run(repl, code)
    assert result.error is None, result.error.traceback
    return result.output


async def error_of(repl: Repl, code: str) -> str:
    result = await run(repl, code)
    assert result.error is not None, result
    return f"{result.error.type}: {result.error.message}"


# --- the text ---


async def test_one_document_is_a_str(repl: Repl) -> None:
    code = "print(type(context) is str, len(context), list(context_names))"
    assert await output(repl, code) == "True 11 ['context']\n"


@pytest.mark.parametrize("text", ["", "ä", "日本", "a😀b", "\x00\n", "Ωmega\r\n" * 1000])
async def test_text_arrives_as_it_is(sandbox: OwnedSandbox, text: str) -> None:
    async with open_repl(sandbox, text) as repl:
        assert await output(repl, f"context == {text!r}") == "True\n"


async def test_lone_surrogates_are_replaced_and_harm_nothing(sandbox: OwnedSandbox) -> None:
    async with open_repl(sandbox, "a\ud800b") as repl:
        assert await output(repl, "context") == "'a?b'\n"
        assert await output(repl, r"print('x\ud800y')") == "x?y\n"
        assert await output(repl, r"llm_query('p\ud800')") == "'P?'\n"


async def test_several_documents_read_like_a_list_of_str(sandbox: OwnedSandbox) -> None:
    documents = ["one", "", "drei ä", "vier 😀", "one"]
    async with open_repl(sandbox, documents) as repl:
        code = """
            want = ["one", "", "drei ä", "vier 😀", "one"]
            checks = [
                isinstance(context, list), len(context) == 5, list(context) == want,
                context == want, want == context, context[0] == "one", context[-1] == "one",
                context[1:4] == want[1:4], context[::-1] == want[::-1],
                "drei ä" in context, "nein" not in context,
                context.index("vier 😀") == 3, context.count("one") == 2,
                ",".join(context) == ",".join(want), sorted(context) == sorted(want),
                list(reversed(context)) == want[::-1], [*context] == want,
                context + ["x"] == want + ["x"], ["x"] + context == ["x"] + want,
                context * 2 == want * 2, max(context, key=len) == max(want, key=len),
                dict(enumerate(context)) == dict(enumerate(want)), repr(context) == repr(want),
                tuple(context) == tuple(want), set(context) == set(want), context.copy() == want,
                __import__("json").dumps(context) == __import__("json").dumps(want),
                __import__("copy").deepcopy(context) == want, (lambda *a: list(a))(*context) == want,
                list(zip(context, want)) == list(zip(want, want)), bool(context),
                [a for a, *b in [context]] == ["one"], "%s" % context == "%s" % want,
                __import__("random").choice(context) in want, sum(map(len, context)) == 18,
                __import__("statistics").median_low(map(len, context)) == 3,
            ]
            [at for at, ok in enumerate(checks) if not ok]
        """
        assert await output(repl, "if True:" + code.replace("[at for", "print([at for") + ")") == (
            "[]\n"
        )
        assert "context is read-only" in await error_of(repl, "context.append('x')")
        assert "index 5 is out of range" in await error_of(repl, "context[5]")
        assert "as in context[0].splitlines" in await error_of(repl, "context.splitlines()")


async def test_an_empty_list_of_documents_is_empty(sandbox: OwnedSandbox) -> None:
    async with open_repl(sandbox, []) as repl:
        assert await output(repl, "(len(context), list(context), bool(context))") == (
            "(0, [], False)\n"
        )
        assert await output(repl, "search('x')") == NOTHING_FOUND


# --- cells ---


async def test_the_value_of_a_last_expression_is_echoed(repl: Repl) -> None:
    assert await output(repl, "x = 20\nx + 1") == "21\n"
    assert await output(repl, "None") == ""
    assert await output(repl, "x; x + 2") == "22\n"


async def test_what_a_cell_assigned_before_it_failed_is_kept(repl: Repl) -> None:
    assert await error_of(repl, "kept = 7\n1 / 0") == "ZeroDivisionError: division by zero"
    assert await output(repl, "kept") == "7\n"


async def test_a_traceback_shows_frames_of_cells_alone(repl: Repl) -> None:
    await run(repl, "import json\ndef load(text):\n    return json.loads(text)")
    result = await run(repl, "load('{')")
    assert result.error is not None
    assert result.error.line == 3
    shown = [
        line
        for line in result.error.traceback.splitlines()
        if not set(line.strip()) <= set("^~")  # which frames have carets differs by version
    ]
    assert shown == [
        "Traceback (most recent call last):",
        '  File "<cell 2>", line 1, in <module>',
        "    load('{')",
        '  File "<cell 1>", line 3, in load',
        "    return json.loads(text)",
        "json.decoder.JSONDecodeError: " + result.error.message,
    ]


async def test_a_syntax_error_shows_line_and_caret(repl: Repl) -> None:
    result = await run(repl, "x = 1\ny = (")
    assert result.error is not None
    assert (result.error.type, result.error.line) == ("SyntaxError", 2)
    assert "    y = (\n        ^\n" in result.error.traceback


async def test_a_close_name_is_suggested(repl: Repl) -> None:
    assert "Did you mean: 'context'?" in await error_of(repl, "len(contxt)")


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise KeyboardInterrupt('x')", "KeyboardInterrupt: x"),
        ("exit()", "SystemExit"),
        ("raise BaseExceptionGroup('g', [KeyboardInterrupt()])", "BaseExceptionGroup: g (1 sub"),
        ("def f(): f()\nf()", "RecursionError: maximum recursion depth"),
        (
            "class E(Exception):\n  def __str__(self): 1 / 0\nraise E",
            "E: (its text cannot be shown",
        ),
        ("class R:\n  def __repr__(self): 1 / 0\nR()", None),
        ("raise ValueError('x' * 10**6)", "ValueError: xxx"),
        ("x = '\0'", "SyntaxError"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
    ],
)
async def test_odd_failures_are_errors_of_the_cell(
    repl: Repl, code: str, error: str | None
) -> None:
    if error is None:
        assert "whose repr raises ZeroDivisionError" in await output(repl, code)
    else:
        said = await error_of(repl, code)
        assert said.startswith(error)
        assert len(said) < 5_000
    assert await output(repl, "6 * 7") == "42\n"


async def test_long_output_keeps_head_and_tail_and_says_what_was_cut(
    sandbox: OwnedSandbox,
) -> None:
    async with open_repl(sandbox, output_chars=100) as repl:
        result = await run(repl, "print('a' * 1000); print('b' * 1000)")
    assert result.output_chars == 2002
    assert result.output.startswith("a" * 50 + "\n… [1,902 characters cut] …\nb")
    assert result.output.endswith("b\n")


async def test_everything_that_prints_prints_into_the_cell(repl: Repl) -> None:
    code = """if True:
        import logging, sys, warnings
        logging.warning("logged")
        print("error", file=sys.stderr)
        sys.stdout.buffer.write(b"bytes\\n")
        warnings.warn("warned")
    """
    printed = await output(repl, code)
    for word in ("logged", "error", "bytes", "warned"):
        assert word in printed


async def test_context_and_helpers_are_back_in_the_next_cell(repl: Repl) -> None:
    await run(repl, "context = 1; llm_query = 2; import sys; sys.stdout = None; del search")
    assert await output(repl, "context[:5], llm_query('a'), callable(search)") == (
        "('alpha', 'A', True)\n"
    )


async def test_a_seed_makes_random_do_the_same(sandbox: OwnedSandbox) -> None:
    said: list[str] = []
    for _ in range(2):
        async with open_repl(sandbox, seed=5) as repl:
            said.append(await output(repl, "import random; random.random()"))
    assert said[0] == said[1]


ORDINARY = {
    "standard library": "import re, json, csv, statistics, decimal, fractions, heapq, sqlite3, html, xml.dom.minidom, http.cookies, tomllib, wave, encodings.cp1252; 1",
    "dataclasses and typing": "from dataclasses import dataclass, asdict\nimport typing\n@dataclass\nclass P:\n  x: 'int' = 1\nassert typing.get_type_hints(P) == {'x': int}\nasdict(P())['x']",
    "enums and pickles": "import enum, pickle\nclass C(enum.Enum): A = 1\npickle.loads(pickle.dumps(C.A)).value",
    "threads": "from concurrent.futures import ThreadPoolExecutor as T\nwith T(8) as pool: r = sum(pool.map(int, '0000000001'))\nr",
    "asyncio": "import asyncio\nasync def f():\n  await asyncio.sleep(0)\n  return sum(await asyncio.gather(*[asyncio.to_thread(int, '0'), asyncio.sleep(0, 1)]))\nasyncio.run(f())",
    "zones": "import datetime, zoneinfo\nd = datetime.datetime(2024, 7, 1, tzinfo=zoneinfo.ZoneInfo('Asia/Tokyo'))\nint(d.utcoffset().total_seconds() // 32400)",
    "decimal": "from decimal import Decimal as D\nint(D('0.1') + D('0.9'))",
    "a 200 MB value": "x = bytearray(200_000_000); y = 'a' * 200_000_000\nlen(x) // len(y)",
    "csv": "import csv, io\nlen(list(csv.reader(io.StringIO('a,b'))))",
    "sqlite in memory": "import sqlite3\nsqlite3.connect(':memory:').execute('select 1').fetchone()[0]",
    "regex": "import re\nlen(re.findall(r'(?i)\\bALPHA\\b', context))",
    "codecs": "int('é'.encode('cp1252').decode('latin-1') == 'é')",
    "hashes and randomness": "import hashlib, secrets, uuid\nhashlib.sha256(b'').hexdigest(); uuid.uuid4(); len(secrets.token_bytes(1))",
    "unittest": "import unittest\nclass T(unittest.TestCase):\n  def test_x(self): self.assertTrue(1)\nunittest.defaultTestLoader.loadTestsFromTestCase(T).run(unittest.TestResult()).testsRun",
}


@pytest.mark.parametrize("name", ORDINARY)
async def test_ordinary_code_works_behind_the_walls(repl: Repl, name: str) -> None:
    assert await output(repl, ORDINARY[name]) == "1\n"


async def test_memory_that_runs_out_is_an_error_of_the_cell(sandbox: OwnedSandbox) -> None:
    async with open_repl(sandbox, memory_bytes=128 << 20) as repl:
        assert (await error_of(repl, "kept = 1; x = bytearray(1 << 30)")).startswith("MemoryError")
        assert await output(repl, "kept") == "1\n"


# --- answers ---


@pytest.mark.parametrize(
    ("code", "final"),
    [
        ("FINAL('four')", Final("four", "str")),
        ("FINAL({'ä': [1, None]})", Final('{"ä": [1, null]}', "dict", '{"ä": [1, null]}')),
        ("FINAL((1, 2))", Final("[1, 2]", "tuple", "[1, 2]")),
        ("FINAL(4.5)", Final("4.5", "float", "4.5")),
        ("FINAL(float('nan'))", Final("nan", "float")),
        ("FINAL({1, })", Final("{1}", "set")),
        ("x = [1]; FINAL_VAR('x'); print('unseen')", Final("[1]", "list", "[1]")),
        ("x = 'text'; FINAL_VAR(x)", Final("text", "str")),
        ("try:\n  FINAL('a')\nexcept Exception: pass", Final("a", "str")),
        ("Final = 3", Final("3", "int", "3")),
        ("def f():\n  global Final\n  Final = 'deep'\nf()", Final("deep", "str")),
        ("from typing import Final", None),
        ("FINAL_VAR('a sentence, not a name')", Final("a sentence, not a name", "str")),
        ("import threading\nt = threading.Thread(target=lambda: FINAL('t')); t.start(); t.join()", Final("t", "str")),
    ],
)  # fmt: skip
async def test_a_final_value_ends_the_cell_and_comes_out(
    repl: Repl, code: str, final: Final | None
) -> None:
    result = await run(repl, code)
    assert result.final == final
    assert result.error is None
    assert "unseen" not in result.output


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("x = 1; FINAL_VAR('y')", "NameError: no variable is named 'y'; existing: x"),
        ("FINAL_VAR('y')", "NameError: no variable is named 'y'; existing: none so far"),
        ("FINAL_VAR('context')", "ValueError: the whole context cannot be the answer"),
        ("FINAL(context)", "ValueError: the whole context cannot be the answer"),
        ("FINAL_VAR('llm_query')", "ValueError: 'llm_query' is not one of your variables"),
        ("FINAL(llm_query)", "ValueError: a method cannot be the answer"),
        ("def f(): pass\nFINAL_VAR('f')", "ValueError: a function cannot be the answer"),
        ("FINAL(None)", "ValueError: None cannot be the answer"),
        ("FINAL('x' * 9_000_000)", "ValueError: the answer is too long: at most 8,000,000"),
        ("Final = 'early'; 1 / 0", "ZeroDivisionError"),
    ],
)
async def test_what_is_no_answer_is_refused_with_a_reason(
    repl: Repl, code: str, error: str
) -> None:
    result = await run(repl, code)
    assert result.final is None
    assert result.error is not None
    assert f"{result.error.type}: {result.error.message}".startswith(error)


async def test_an_answer_of_an_earlier_cell_is_not_given_again(repl: Repl) -> None:
    assert (await run(repl, "Final = 'a'")).final == Final("a", "str")
    assert (await run(repl, "x = Final")).final is None
    assert (await run(repl, "Final = 'a'")).final == Final("a", "str")


# --- calls ---


async def test_calls_carry_what_model_code_gave(sandbox: OwnedSandbox) -> None:
    seen: list[ReplCall] = []

    async def note(call: ReplCall) -> CallReply:
        seen.append(call)
        return CallReply(text="{}")

    async with open_repl(sandbox, ["d1", "d2"], recursion=True) as repl:
        code = "llm_query('p'); llm_query('p', model='m'); budget(); rlm_query('q')\n"
        code += "rlm_query('q', 'slice'); rlm_query('q', context[:1]); llm_query(5)"
        result = await repl.execute(code, timeout_seconds=10, on_call=note)
    assert result.error is None
    assert [replace(call, batch_id=0) for call in seen] == [
        ReplCall("llm_query", "p"),
        ReplCall("llm_query", "p", model="m"),
        ReplCall("budget"),
        ReplCall("rlm_query", "q", documents=("d1", "d2"), is_list=True),
        ReplCall("rlm_query", "q", documents=("slice",)),
        ReplCall("rlm_query", "q", documents=("d1",), is_list=True),
        ReplCall("llm_query", "5"),
    ]
    assert len({call.batch_id for call in seen}) == len(seen)


@pytest.mark.parametrize(
    "spelling",
    [
        "llm_query_batch(list('abc'))",
        "llm_query_batch(c for c in 'abc')",
        "llm_query_batched(list('abc'))",
        "llm_query_batch(queries=list('abc'))",
        "llm_query_batch(prompts=('a', 'b', 'c'), model='m')",
    ],
)
async def test_a_batch_answers_in_order_however_it_is_spelled(repl: Repl, spelling: str) -> None:
    assert await output(repl, spelling) == "['A', 'B', 'C']\n"


async def test_one_failed_call_of_a_batch_loses_no_other(repl: Repl) -> None:
    async def fail_b(call: ReplCall) -> CallReply:
        return CallReply(error="overloaded") if call.prompt == "b" else CallReply(text=call.prompt)

    code = "r = llm_query_batch(list('abc')); print(r, [bool(x) for x in r], ' '.join(r))"
    result = await repl.execute(code, timeout_seconds=10, on_call=fail_b)
    assert result.output == "['a', 'overloaded', 'c'] [True, False, True] a overloaded c\n"


async def test_a_failed_call_raises_a_readable_error(repl: Repl) -> None:
    async def fail(_call: ReplCall) -> CallReply:
        return CallReply(error="budget used up")

    result = await repl.execute("llm_query('a')", timeout_seconds=10, on_call=fail)
    assert result.error is not None
    assert (result.error.type, result.error.message) == ("SubCallError", "budget used up")
    code = "try: llm_query('a')\nexcept RuntimeError as e: print('caught', e)"
    result = await repl.execute(code, timeout_seconds=10, on_call=fail)
    assert result.output == "caught budget used up\n"


async def test_a_batch_keeps_no_more_than_its_window_on_the_way(sandbox: OwnedSandbox) -> None:
    waiting, most, total = 0, 0, 0

    async def count(call: ReplCall) -> CallReply:
        nonlocal waiting, most, total
        waiting, total = waiting + 1, total + 1
        most = max(most, waiting)
        await anyio.lowlevel.checkpoint()
        waiting -= 1
        assert call.batch_size == 1000
        return CallReply(text="x")

    async with open_repl(sandbox, call_window=7) as repl:
        code = "len(llm_query_batch(['p'] * 1000))"
        result = await repl.execute(code, timeout_seconds=20, on_call=count)
    assert result.output == "1000\n"
    assert total == 1000
    assert 1 < most <= 7


async def test_calls_from_32_threads_are_on_the_way_at_once(repl: Repl) -> None:
    arrived, everybody = 0, anyio.Event()

    async def wait_for_all(call: ReplCall) -> CallReply:
        nonlocal arrived
        arrived += 1
        if arrived == 32:
            everybody.set()
        await everybody.wait()
        return CallReply(text=call.prompt)

    code = "from concurrent.futures import ThreadPoolExecutor as T\n"
    code += "with T(32) as pool: r = list(pool.map(llm_query, map(str, range(32))))\n"
    code += "r == list(map(str, range(32)))"
    with anyio.fail_after(60):
        result = await repl.execute(code, timeout_seconds=10, on_call=wait_for_all)
    assert result.output == "True\n"


async def test_calls_from_two_hundred_threads_are_all_answered(repl: Repl) -> None:
    code = "import threading\nthreading.stack_size(1 << 17)\nsaid = []\n"
    code += "def ask(n): said.append(llm_query(str(n)))\n"
    code += "threads = [threading.Thread(target=ask, args=(n,)) for n in range(200)]\n"
    code += "for thread in threads: thread.start()\nfor thread in threads: thread.join()\n"
    code += "sorted(map(int, said)) == list(range(200))"
    assert await output(repl, code) == "True\n"


async def test_time_spent_waiting_for_calls_does_not_count(repl: Repl) -> None:
    async def wait_longer_than(seconds: float) -> tuple[CellResult, float]:
        async def slow(_call: ReplCall) -> CallReply:
            await anyio.sleep(1.5 * seconds)
            return CallReply(text="slow")

        done = await repl.execute("llm_query('x')", timeout_seconds=seconds, on_call=slow)
        return done, seconds

    result, seconds = await with_enough_time(
        wait_longer_than, lambda got: not got[0].timed_out, seconds=(0.5, 3, 15)
    )
    assert (result.output, result.timed_out) == ("'slow'\n", False)
    assert result.elapsed_seconds < seconds


@native_alone("there are no threads that could be left behind")
async def test_calls_that_a_cell_leaves_behind_are_ended_with_it(repl: Repl) -> None:
    started, ended = anyio.Event(), anyio.Event()

    async def never(_call: ReplCall) -> CallReply:
        try:
            started.set()
            await anyio.sleep_forever()
        finally:
            ended.set()
        raise AssertionError

    code = "import threading, time\n"
    code += "t = threading.Thread(target=lambda: globals().update(r=ask())); \n"
    code += "def ask():\n  try: return llm_query('x')\n  except RuntimeError as e: return str(e)\n"
    code += "t.start()\nwhile not go(): pass"

    async def never_or_go(call: ReplCall) -> CallReply:
        if call.name == "budget":
            return CallReply(text=json.dumps({"go": started.is_set()}))
        return await never(call)

    code = code.replace("go()", "budget()['go']")
    with anyio.fail_after(60):
        await repl.execute(code, timeout_seconds=10, on_call=never_or_go)
        await ended.wait()
    assert await output(repl, "t.join(); r") == ("'the cell ended before this call was answered'\n")


async def test_an_error_of_the_handler_comes_out_as_it_is(repl: Repl) -> None:
    async def broken(_call: ReplCall) -> CallReply:
        raise LookupError("ours")

    with anyio.fail_after(60), pytest.raises(LookupError, match="ours"):
        await repl.execute("kept = 1; llm_query('x')", timeout_seconds=5, on_call=broken)
    assert await output(repl, "kept") == "1\n"


async def test_too_large_a_call_fails_by_itself(repl: Repl) -> None:
    said = await error_of(repl, "llm_query('x' * (65 << 20))")
    assert said.startswith("SubCallError: a message of 68,157,440 bytes")
    assert await output(repl, "llm_query('x')") == "'X'\n"


async def test_names_follow_the_options(sandbox: OwnedSandbox) -> None:
    code = "[name for name in ('llm_query', 'llm_query_batch', 'rlm_query') if name in globals()]"
    async with open_repl(sandbox, sub_calls=False) as repl:
        assert await output(repl, code) == "[]\n"
    async with open_repl(sandbox, recursion=True) as repl:
        assert await output(repl, code) == "['llm_query', 'llm_query_batch', 'rlm_query']\n"


@pytest.mark.parametrize("call", ["llm_query_batch('abc')", "llm_query_batch()"])
async def test_a_batch_of_no_list_is_refused(repl: Repl, call: str) -> None:
    assert "TypeError: llm_query_batch takes a list of prompts" in await error_of(repl, call)


# --- variables ---


async def test_variables_are_those_that_model_code_assigned(repl: Repl) -> None:
    code = "import json\nfrom math import pi\ndef f(): pass\nclass K: pass\n_hidden = 1\n"
    await run(repl, code + "text = 'ä' * 300; numbers = [1, 2]; k = K(); n = 5; d = {'a': (1,)}")
    assert await repl.variables() == [
        Variable("pi", "float", 1, "3.141592653589793"),
        Variable("text", "str", 300, "'" + "ä" * 199 + "…"),
        Variable("numbers", "list", 2, "[1, 2]"),
        Variable("k", "K", 1, "<K>"),
        Variable("n", "int", 1, "5"),
        Variable("d", "dict", 1, "{'a': (1,)}"),
    ]


async def test_a_slice_of_a_variable_is_read_as_text(repl: Repl) -> None:
    await run(repl, "text = 'hällo'; data = {'ä': [1, 2]}; odd = {1, 2}; deep = [object]")
    read = repl.read_variable
    assert await read("text", start=1, limit=3) == VariableText("text", "str", 5, "äll", 1, 4, 5)
    assert await read("data") == VariableText(
        "data", "dict", 1, '{"ä": [1, 2]}', 0, 13, 13, json=True
    )
    assert (await read("odd")).text == "{1, 2}"
    assert (await read("deep")).text == "[<class 'object'>]"
    assert (await read("text", start=99)).text == ""


@pytest.mark.parametrize("name", ["missing", "context", "_", "json", "x" * 1000])
async def test_reading_a_missing_variable_names_those_that_exist(repl: Repl, name: str) -> None:
    await run(repl, "import json; present = 1; 5")
    with pytest.raises(NotFoundError, match="Existing variables: present"):
        await repl.read_variable(name)


LYING_ABOUT_NAMES = """
wire = type(llm_query.__self__._desk).ask.__globals__["wire"]
def lie(kind, fields, *blobs, real=wire.encode):
    made_up = ("two\\nlines", "\\x1b[31mred", "\\u202eturned", "n" * 900)
    return real(kind, fields, *(map(wire.utf8, made_up) if kind == "slice" else blobs))
wire.encode = lie
"""


@native_alone("the code reaches into the native child's modules")
async def test_of_names_that_a_repl_makes_up_an_error_shows_the_printable_and_cuts_them(
    repl: Repl,
) -> None:
    assert (await run(repl, LYING_ABOUT_NAMES)).error is None
    with pytest.raises(NotFoundError) as error:
        await repl.read_variable("missing")
    assert error.value.fix == f"Existing variables: {'n' * 99}…."


async def test_a_repl_that_was_left_starts_no_process(sandbox: OwnedSandbox) -> None:
    async with open_repl(sandbox) as left:
        await run(left, "kept = 1")
    with anyio.fail_after(60):
        for ask in (left.variables(), left.read_variable("kept"), run(left, "kept")):
            with pytest.raises(SandboxDiedError, match="the REPL is closed"):
                await ask


async def test_a_repl_that_is_left_in_a_cell_starts_no_process(sandbox: OwnedSandbox) -> None:
    begun, told = anyio.Event(), list[str]()

    async def hear(_call: ReplCall) -> CallReply:
        begun.set()
        return CallReply(text="go on")

    async def spin(repl: Repl) -> None:
        try:
            await repl.execute(
                "llm_query('x')\nwhile True: pass", timeout_seconds=600, on_call=hear
            )
        except SandboxDiedError as error:
            told.append(error.message)

    with anyio.fail_after(120):
        async with anyio.create_task_group() as tasks, open_repl(sandbox) as left:
            tasks.start_soon(spin, left)
            await begun.wait()
    assert told == ["the REPL is closed"]


async def test_values_that_misbehave_are_listed_all_the_same(repl: Repl) -> None:
    code = "class E:\n  def __repr__(self): 1 / 0\n  def __len__(self): 1 / 0\n"
    await run(repl, code + "e = E(); es = [E()]; loop = []; loop.append(loop)")
    listed = {variable.name: variable.preview for variable in await repl.variables()}
    assert listed["e"] == "<E>"
    assert listed["es"] == "[<E>]"
    assert listed["loop"].startswith("[[[[")
    assert (await repl.read_variable("e")).text == "<E whose repr raises ZeroDivisionError>"


async def test_listing_waits_for_a_cell_that_runs(repl: Repl) -> None:
    started = anyio.Event()

    async def begin(_call: ReplCall) -> CallReply:
        started.set()
        return CallReply(text="go on")

    async def work() -> None:
        await repl.execute("llm_query('x'); late = 1", timeout_seconds=10, on_call=begin)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work)
            await started.wait()
            assert [variable.name for variable in await repl.variables()] == ["late"]


# --- looking through text ---


async def test_search_prints_and_returns_the_lines_with_the_rarest_words(
    sandbox: OwnedSandbox,
) -> None:
    text = "".join(f"common line {number}\n" for number in range(500)) + "The Zebra ran\nzebras\n"
    async with open_repl(sandbox, text) as repl:
        result = await output(repl, "found = search('common ZEBRA', k=2)\n[m.text for m in found]")
        assert result.splitlines()[-1] == "['The Zebra ran', 'zebras']"
        assert "The Zebra ran" in result.splitlines()[0]
        assert await output(repl, "context[found[0].at:][:13]") == "'The Zebra ran'\n"
        assert await output(repl, "search('nowhere')") == NOTHING_FOUND
        around = await output(repl, "search('zebra', k=1, around=1)")
        assert around.splitlines() == ["[at 7890] common line 499", "The Zebra ran", "zebras"]


async def test_common_modules_are_there_and_are_no_variables(repl: Repl) -> None:
    used = "(re.sub('a', 'b', 'a'), json.dumps([1]), math.floor(1.5), collections.Counter('a'))"
    assert "'b', '[1]', 1" in await output(repl, used)
    assert await output(repl, "re = 5\nre + len(list(itertools.chain('a')))") == "6\n"
    assert [variable.name for variable in await repl.variables()] == ["re"]


async def test_search_finds_documents_of_a_list(sandbox: OwnedSandbox) -> None:
    documents = [f"nothing here {number}" for number in range(100)]
    documents[42] = "x" * 3000 + " der Schlüssel liegt hier " + "y" * 3000
    async with open_repl(sandbox, documents) as repl:
        printed = await output(repl, "[m.at for m in search('SCHLÜSSEL', 3)]")
        assert printed.splitlines()[-1] == "[42]"
        assert "der Schlüssel liegt hier" in printed
        assert len(printed) < 1000


async def test_lines_walks_lines_without_their_ends(sandbox: OwnedSandbox) -> None:
    async with open_repl(sandbox, "a\n\nb\r\nc") as repl:
        assert await output(repl, "list(lines())") == "['a', '', 'b', 'c']\n"
        assert await output(repl, "list(lines('x\\n'))") == "['x']\n"
    async with open_repl(sandbox, ["a\nb", "c\n"]) as repl:
        assert await output(repl, "list(lines())") == "['a', 'b', 'c']\n"


async def test_show_vars_shows_name_type_size_and_preview(repl: Repl) -> None:
    assert await output(repl, "SHOW_VARS()") == "no variables so far\n"
    assert await output(repl, "globals()[5] = 6; x = [1, 2]\nSHOW_VARS()") == "x: list, 2, [1, 2]\n"
