# ruff: noqa: E501  # cells are kept on one line where they read as a table
"""Code as models write it, and names that models trained with other engines expect."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import anyio
import pytest

from rlm_mcp.sandbox.choice import OwnedSandbox
from rlm_mcp.sandbox.host.text import TextContext
from rlm_mcp.sandbox.types import CallReply, CellResult, Repl, ReplCall, ReplOptions
from tests.walls import a_sandbox


@pytest.fixture(scope="module")
async def sandbox() -> AsyncGenerator[OwnedSandbox]:
    async with a_sandbox() as opened:
        yield opened


@pytest.fixture
async def repl(sandbox: OwnedSandbox) -> AsyncGenerator[Repl]:
    with anyio.fail_after(60):
        async with sandbox.open_repl(
            TextContext.of("a\nb\n"), ReplOptions(recursion=True)
        ) as opened:
            yield opened


async def shout(call: ReplCall) -> CallReply:
    if "fail" in call.prompt:
        return CallReply(error="no")
    return CallReply(f"{call.prompt.upper()}{'|'.join(call.documents)}")


async def run(repl: Repl, code: str) -> CellResult:
    return await repl.execute(code, timeout_seconds=10, on_call=shout)


AS_WRITTEN = {
    "await at the top": ("import asyncio\nprint(await asyncio.sleep(0, 7))", "7\n"),
    "await in the last line": ("import asyncio\nawait asyncio.sleep(0, 7)", "7\n"),
    "gather": (
        "import asyncio\nfound = await asyncio.gather(*[asyncio.to_thread(llm_query, c) for c in 'ab'])\nprint(found)",
        "['A', 'B']\n",
    ),
    "a helper awaited": ("print(await llm_query('a'))", "A\n"),
    "a helper awaited in a coroutine": (
        "import asyncio\nasync def main():\n    return [await llm_query(c) for c in 'ab']\nprint(asyncio.run(main()))",
        "['A', 'B']\n",
    ),
    "a pool of threads": (
        "from multiprocessing.pool import ThreadPool\nwith ThreadPool(4) as pool:\n    print(pool.map(llm_query, 'abc'))",
        "['A', 'B', 'C']\n",
    ),
    "a pool of processes": (
        "from multiprocessing import Pool\nwith Pool() as pool:\n    print(pool.starmap(max, [(1, 2)]), list(pool.imap(len, ['ab'])), pool.apply_async(len, ('a',)).get())",
        "[2] [2] 1\n",
    ),
    "gather of replies": (
        "import asyncio\ntasks = [llm_query(c) for c in 'ab']\nprint(await asyncio.gather(*tasks))",
        "['A', 'B']\n",
    ),
    "tasks of replies": (
        "import asyncio\nasync def main():\n    ts = [asyncio.create_task(llm_query(c)) for c in 'ab']\n    return [await t for t in ts]\nprint(asyncio.run(main()))",
        "['A', 'B']\n",
    ),
    "a loop of a reply": ("import asyncio\nprint(asyncio.run(llm_query('a')))", "A\n"),
    "a reply awaited later": ("r = llm_query('a')\nprint(await r)", "A\n"),
    "an asynchronous generator": (
        "async def g():\n    for c in 'ab':\n        yield await llm_query(c)\nprint([x async for x in g()])",
        "['A', 'B']\n",
    ),
    "a loop behind another": (
        "import asyncio\nasync def f():\n    return llm_query('a')\nprint(asyncio.run(f()))\nloop = asyncio.get_event_loop()\nprint(loop.run_until_complete(f()))\nloop.close()\nprint(asyncio.get_event_loop().run_until_complete(f()))",
        "A\nA\nA\n",
    ),
    "a bar of progress": (
        "from tqdm import tqdm\nfor c in tqdm('ab', desc='chunks'):\n    print(llm_query(c))\nwith tqdm(total=2) as bar:\n    bar.update(1)\n    bar.set_postfix(n=1)\nprint(bar.n, len(tqdm([1, 2])))",
        "A\nB\n1 2\n",
    ),
    "bars of its parts": (
        "from tqdm.auto import trange\nfrom tqdm.asyncio import tqdm as bar\nimport asyncio\nprint(list(trange(2)), await bar.gather(*[asyncio.to_thread(llm_query, c) for c in 'ab']))",
        "[0, 1] ['A', 'B']\n",
    ),
    "a notebook's display": (
        "from IPython.display import display\ndisplay({'a': 1})",
        "{'a': 1}\n",
    ),
    "arguments that nobody gave": (
        "import argparse, sys\np = argparse.ArgumentParser()\np.add_argument('--n', type=int, default=3)\nprint(p.parse_args().n, sys.argv)",
        "3 ['']\n",
    ),
    "nest_asyncio": (
        "import nest_asyncio, asyncio\nnest_asyncio.apply()\nasync def f():\n    return llm_query('a')\nprint(asyncio.run(f()))",
        "A\n",
    ),
    "an executor of processes": (
        "from concurrent.futures import ProcessPoolExecutor\nwith ProcessPoolExecutor(4) as ex:\n    print(list(ex.map(llm_query, 'ab')))",
        "['A', 'B']\n",
    ),
    "a process": (
        "import multiprocessing as mp\nfound = []\np = mp.Process(target=found.append, args=(1,))\np.start(); p.join()\nprint(found)",
        "[1]\n",
    ),
    "a text by name": ("print(llm_query('what?', context='abc'))", "ABC\n\nWHAT?\n"),
    "a question by name": ("print(llm_query(question='what?', chunk='abc'))", "ABC\n\nWHAT?\n"),
    "settings of a chat": ("print(llm_query('a', max_tokens=50, temperature=0))", "A\n"),
    "messages": (
        "print(llm_query(messages=[{'role': 'system', 'content': 's'}, {'role': 'user', 'content': 'abc'}]))",
        "S\n\nABC\n",
    ),
    "one question for a list of texts": (
        "print(llm_query_batch('what?', ['x', 'y']))",
        "['X\\n\\nWHAT?', 'Y\\n\\nWHAT?']\n",
    ),
    "pairs in a batch": ("print(llm_query_batch([('p?', 'x')]))", "['P?\\n\\nX']\n"),
    "pairs for inner runs": ("print(rlm_query_batch([('p', 'x'), ('q', 'y')]))", "['Px', 'Qy']\n"),
    "an inner run by names": ("print(rlm_query(query='p', text='x'))", "Px\n"),
    "helpers of a package": (
        "from rlm import llm_query, FINAL, context\nprint(llm_query('a'), len(context))",
        "A 4\n",
    ),
    "helpers of this package": ("from rlm_mcp import llm_query as ask\nprint(ask('a'))", "A\n"),
    "a package of helpers": ("import rlm\nprint(rlm.llm_query('a'))", "A\n"),
    "a name that a real module has": (
        "from re import search\nprint(search('a', context).group())",
        "a\n",
    ),
    "the first context": ("print(context_0 == context)", "True\n"),
    "batched inner runs": (
        "print(rlm_query_batched(['p', 'q'], ['x', ['y', 'z']]))",
        "['Px', 'Qy|z']\n",
    ),
    "one question for all": ("print(rlm_query_batch('p', ['x', 'y']))", "['Px', 'Py']\n"),
    "one context for all": ("print(rlm_query_batch(['p', 'q'], 'x'))", "['Px', 'Qx']\n"),
    "one that failed": (
        "found = rlm_query_batch(['p', 'fail'], ['x', 'y'])\nprint(found, bool(found[1]))",
        "['Px', 'no'] False\n",
    ),
}


@pytest.mark.parametrize("name", AS_WRITTEN)
async def test_code_runs_as_models_write_it(repl: Repl, name: str) -> None:
    code, printed = AS_WRITTEN[name]
    result = await run(repl, code)
    assert result.error is None, result.error.traceback
    assert result.output == printed


FINALS = {
    "after an await": ("import asyncio\nawait asyncio.sleep(0)\nFINAL(3)", "3"),
    "a keyword": ("FINAL(answer=42)", "42"),
    "a keyword of a name": ("n = 42\nFINAL_VAR(name='n')", "42"),
    "several values": ("FINAL(1, 'b')", '[1,"b"]'),
    "names of the texts": ("FINAL_VAR('context_names')", '["context"]'),
    "a generator": ("FINAL(x for x in 'ab')", '["a","b"]'),
    "keys of a dict": ("FINAL({'a': 1}.keys())", '["a"]'),
    "a match": ("import re\nFINAL(re.search('a', context))", "a"),
    "a date in a dict": (
        "import datetime\nFINAL({'day': datetime.date(2026, 1, 2)})",
        '{"day": "2026-01-02"}',
    ),
    "a decimal in a list": ("from decimal import Decimal\nFINAL([Decimal('1.5')])", "[1.5]"),
    "sets in a dict": ("FINAL({'a': {'y', 'x'}})", '{"a": ["x","y"]}'),
    "an expression in quotes": ("r = {'n': 42}\nFINAL_VAR('r[\"n\"]')", "42"),
    "assigned, not called": ("FINAL = 42", "42"),
    "a variable assigned, not called": ("total = 42\nFINAL_VAR = total", "42"),
    "in small letters": ("final_answer(42)", "42"),
    "confidence beside it": ("FINAL('42', confidence=0.9)", "42"),
    "reasons beside it": ("FINAL(answer=42, reasoning='as printed')", "42"),
    "two values by other names": ("FINAL(width=3, height=4)", "[3,4]"),
    "another name of the dict": ("a = answer\na['content'] = 'x'\na['ready'] = True", "x"),
    "a dict set in a function": (
        "def f():\n    answer['content'] = 'x'\n    answer['ready'] = True\nf()",
        "x",
    ),
    "the dict itself": ("answer['content'] = 'x'\nFINAL(answer)", "x"),
    "a dict that is ready": ("answer = {'content': 'x', 'ready': True}", "x"),
    "a dict made ready": ("answer['content'] = 'x'\nanswer['ready'] = True", "x"),
    "a dict updated": ("answer.update(content='x', ready=True)", "x"),
    "a dict that is not ready": ("answer = {'content': 'x', 'ready': False}", None),
    "a dict that has nothing": ("answer['ready'] = 1", None),
}


@pytest.mark.parametrize("name", FINALS)
async def test_a_final_is_heard_in_the_forms_that_models_keep_to(repl: Repl, name: str) -> None:
    code, answer = FINALS[name]
    result = await run(repl, code)
    assert result.error is None, result.error.traceback
    assert (result.final.text.replace(", ", ",") if result.final else None) == answer


async def test_expected_names_are_not_put_over_what_the_model_assigned(repl: Repl) -> None:
    await run(repl, "context_0 = 5\nanswer = 7")
    assert (await run(repl, "print(context_0, answer)")).output == "5 7\n"
    assert [each.name for each in await repl.variables()] == ["context_0", "answer"]


@pytest.mark.parametrize("code", ["exit()", "quit(0)", "import sys\nsys.exit()"])
async def test_an_exit_ends_the_cell_and_keeps_its_variables(repl: Repl, code: str) -> None:
    result = await run(repl, f"kept = 7\nprint(kept)\n{code}\nprint('behind')")
    assert (result.output, result.lost_variables) == ("7\n", False)
    assert result.error is not None
    assert result.error.type == "SystemExit"
    assert (await run(repl, "print(kept)")).output == "7\n"
    assert "exit" not in [each.name for each in await repl.variables()]


async def test_expected_names_that_nobody_used_are_not_listed(repl: Repl) -> None:
    await run(repl, "x = 1")
    assert [each.name for each in await repl.variables()] == ["x"]
    assert (await run(repl, "print(answer)")).final is None


async def test_an_answer_that_was_ready_is_not_given_again(repl: Repl) -> None:
    await run(repl, "answer = {'content': 'x', 'ready': True}")
    assert (await run(repl, "print(answer['content'])")).final is None


async def test_the_context_under_its_other_name_is_no_answer(repl: Repl) -> None:
    result = await run(repl, "FINAL(context_0)")
    assert result.error is not None
    assert "whole context" in result.error.message


NO_ANSWERS = {
    "an object": ("class A: pass\nFINAL(A())", "no text but where it is in memory"),
    "objects in a list": ("class A: pass\nFINAL([A()])", "no text but where it is in memory"),
    "a coroutine": ("async def f(): return 'x'\nFINAL(f())", "await it first"),
    "an iterator without end": ("import itertools\nFINAL(itertools.count())", "so many items"),
    "a blank text": ("FINAL('  \\n')", "say so in words"),
    "the dict that nothing was put into": ("FINAL(answer)", "still empty"),
    "the same, by its name": ("FINAL_VAR('answer')", "still empty"),
    "a failed call": ("FINAL(llm_query_batch(['fail'])[0])", "a failed call cannot"),
    "a dict that is ready and empty": ("answer['ready'] = True", "say so in words"),
}


@pytest.mark.parametrize("name", NO_ANSWERS)
async def test_what_is_no_answer_is_refused_with_the_reason(repl: Repl, name: str) -> None:
    code, reason = NO_ANSWERS[name]
    result = await run(repl, code)
    assert result.final is None
    assert result.error is not None
    assert reason in result.error.message


async def test_a_copy_of_the_context_is_no_answer(sandbox: OwnedSandbox) -> None:
    text = TextContext.of("a line of the text\n" * 20)
    async with sandbox.open_repl(text, ReplOptions()) as opened:
        for copy in ("context.strip()", "''.join(context.splitlines(True))"):
            result = await run(opened, f"FINAL({copy})")
            assert result.error is not None
            assert "whole context" in result.error.message


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("llm_query('a', colour='red')", "llm_query(prompt, model=None, schema=None)"),
        ("llm_query()", "takes a prompt"),
        ("llm_query_batch('a')", "takes a list of prompts"),
        ("llm_query('a', schema={'name': str})", "schema is a dict, a JSON Schema"),
        ("llm_query('a', schema=int)", "schema is a dict, a JSON Schema"),
        ("rlm_query('a', 'b', 'c')", "takes a question and a text"),
    ],
)
async def test_a_call_that_cannot_be_read_shows_how_it_is_made(
    repl: Repl, code: str, reason: str
) -> None:
    result = await run(repl, code)
    assert result.error is not None
    assert reason in result.error.message


async def test_unequal_numbers_of_questions_and_contexts_are_refused(repl: Repl) -> None:
    result = await run(repl, "rlm_query_batch(['a', 'b'], ['x', 'y', 'z'])")
    assert result.error is not None
    assert "2 questions and 3 contexts" in result.error.message
