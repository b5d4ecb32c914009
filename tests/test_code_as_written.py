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


async def test_unequal_numbers_of_questions_and_contexts_are_refused(repl: Repl) -> None:
    result = await run(repl, "rlm_query_batch(['a', 'b'], ['x', 'y', 'z'])")
    assert result.error is not None
    assert "2 questions and 3 contexts" in result.error.message
