"""Replies as models write them, with the answer that each dialogue should come to.

A case is a list of replies, given one after another; the last is given for ever. `turns` is what
the root has to be asked for when nothing is misread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rlm_mcp.testing.scripted_replies import (
    Answer,
    Reply,
    cut_connection,
    empty_choices,
    malformed,
    server_error,
)

CONTEXT = "The lantern in the tower is amber.\n" * 40
CODE = "total = 6 * 7\nprint(total)"
BY_NAME = "FINAL_VAR(total)"
BY_TEXT = "FINAL(42)"


@dataclass(frozen=True)
class Case:
    """One dialogue; `want` None: any answer will do, `turns` are at most those.

    `tries_final` says that the spelling of FINAL is what is tried, so that an engine whose model
    hands its answer over in another way has no part in it.
    """

    group: str
    name: str
    replies: Sequence[Answer]
    want: str | None = "42"
    turns: int = 2
    tries_final: bool = False


def cases() -> list[Case]:
    """Give all dialogues."""
    old = [*_fences(), *_finals(), *_order(), *_cells(), *_prose(), *_provider()]
    return [*old, *_ends(), *_forms(), *_values(), *_code_as_written(), *_names()]


def _block(code: str, label: str = "repl", fence: str = "```") -> str:
    return f"{fence}{label}\n{code}\n{fence}"


def _fences() -> Iterator[Case]:
    shapes: dict[str, str] = {
        label or "bare": _block(CODE, label)
        for label in ("repl", "python", "py", "Python", "python3", "")
    }
    shapes |= {
        "tildes": _block(CODE, "python", "~~~"),
        "four backticks": _block(CODE, "repl", "````"),
        "indented": "1. Compute:\n   ```repl\n   total = 6 * 7\n   print(total)\n   ```",
        "one line": "```repl total = 6 * 7```",
        "unclosed": f"```repl\n{CODE}",
        "closed on the last line": f"```repl\n{CODE}```",
        "Windows line ends": _block(CODE).replace("\n", "\r\n"),
        "opened behind prose": f"Here it is: {_block(CODE)}",
        "a fence in a string": _block('note = """\n```json\n{}\n```\n"""\n' + CODE),
        "an interpreter session": _block(">>> total = 6 * 7\n>>> total\n42"),
        "code without a fence": CODE,
        "a quoted block": "> ```repl\n> total = 6 * 7\n> ```",
        "three apostrophes": _block(CODE, "python", "'''"),
        "two backticks": _block(CODE, "python", "``"),
        "an action": f"Action: python\nAction Input: {CODE}",
        "a notebook's prompts": "In [1]: total = 6 * 7\nIn [2]: total\nOut[2]: 42",
        "Mistral's calls": '[TOOL_CALLS][{"name": "repl", "arguments": {"code": "total = 42"}}]',
        "a call in harmony": "<|channel|>commentary to=python code<|message|>total = 42<|call|>",
        "a tool call": '{"name": "python", "arguments": {"code": "total = 6 * 7"}}',
    }
    for name, reply in shapes.items():
        yield Case("code fences", name, [reply, BY_NAME])


def _finals() -> Iterator[Case]:
    shapes = {
        "plain": ("FINAL(42)", "42"),
        "a full stop behind it": ("FINAL(42).", "42"),
        "bold": ("**FINAL(42)**", "42"),
        "spelled Final": ("Final(42)", "42"),
        "a heading before it": ("## Answer\nFINAL(42)", "42"),
        "text behind it": ("FINAL(42) as the output shows", "42"),
        "in a bare fence": ("```\nFINAL(42)\n```", "42"),
        "quoted": ('FINAL("forty two")', "forty two"),
        "lists with parentheses": ("FINAL(Steps: 1) first 2) then)", "Steps: 1) first 2) then"),
        "a smile": ("FINAL(all good :))", "all good :)"),
        "nested parentheses": ("FINAL(f(x) = (x + 1) * 2)", "f(x) = (x + 1) * 2"),
        "several lines": ("FINAL(one\ntwo\nthree)", "one\ntwo\nthree"),
        "behind thinking": ("<think>Perhaps FINAL(7)?</think>\nFINAL(42)", "42"),
    }
    for name, (reply, want) in shapes.items():
        yield Case("finals", name, [reply], want, turns=1, tries_final=True)
    for name, final in {
        "a quoted name": "FINAL_VAR('total')",
        "spaces": "FINAL_VAR( total )",
        "an item": 'FINAL_VAR(found["k"])',
        "in code": _block("FINAL(total)"),
        "the name, in FINAL": "FINAL(total)",
    }.items():
        code = f'{CODE}\nfound = {{"k": total}}'
        yield Case("finals", f"variable: {name}", [_block(code), final], tries_final=True)


def _order() -> Iterator[Case]:
    code = _block(CODE)
    thought = f"<think>{_block('total = 1')}</think>\n{code}"
    yield Case("order", "code in thinking", [thought, BY_NAME])
    yield Case("order", "two blocks", [f"{_block('a = 6')}\n{_block('total = a * 7')}", BY_NAME])
    yield from _misplaced_finals(code)


def _misplaced_finals(code: str) -> Iterator[Case]:
    shapes: dict[str, list[Answer]] = {
        "a final is announced": [f"FINAL(answer) comes later.\n{code}", BY_NAME],
        "in a sentence": [f"I will use FINAL(answer) later.\n{code}", BY_NAME],
        "a plan names the variable": [f"Then FINAL_VAR(total).\n{code}", BY_NAME],
        "code and a guess": [f"{code}\nFINAL(41)", BY_TEXT],
        "an invented output": [f"{code}\nOutput:\n41\nFINAL(41)", BY_TEXT],
        "the text itself as the answer": ["FINAL_VAR(context)", BY_TEXT],
        "a function as the answer": ["FINAL_VAR(llm_query)", BY_TEXT],
        "a plan as the answer": ["FINAL(I will search the text)", BY_TEXT],
    }
    for name, replies in shapes.items():
        yield Case("order", name, replies, tries_final=True)
    one = [f"{code}\n{BY_NAME}"]
    yield Case("order", "code, then its variable", one, turns=1, tries_final=True)
    late = ["FINAL_VAR(nope)", code, BY_NAME]
    yield Case("order", "a variable that is not there", late, turns=3, tries_final=True)


def _cells() -> Iterator[Case]:
    shapes = {
        "a main guard": "total = 0\nif __name__ == '__main__':\n    total = 42",
        "an exit": "total = 42\nraise SystemExit",
        "an interrupt": "total = 42\nraise KeyboardInterrupt",
        "an error behind the value": "total = 42\nnope",
        "a class": "class A:\n    v = 42\ntotal = A.v",
        "a recursive function": "def f(n):\n    return n and f(n - 1) + 1\ntotal = f(42)",
        "a lone surrogate": "print('\\ud83d')\ntotal = 42",
        "an import": "import re\ntotal = len(re.findall('amber', context)) + 2",
        "input is asked for": "try:\n    input()\nexcept Exception:\n    pass\ntotal = 42",
        "a value that cannot be shown": "class A:\n    def __repr__(self):\n"
        "        raise ValueError\na = A()\ntotal = 42",
    }
    for name, code in shapes.items():
        yield Case("cells", name, [_block(code), BY_NAME])
    length = _block("total = len(context)")
    yield Case(
        "cells",
        "the text was overwritten",
        [_block("context = 'made up'"), length, BY_NAME],
        str(len(CONTEXT)),
        turns=3,
    )
    shadowed = [_block("len = 5\nprint(len)"), _block("del len\ntotal = len(context)"), BY_NAME]
    yield Case("cells", "a builtin was overwritten", shadowed, str(len(CONTEXT)), turns=3)


def _prose() -> Iterator[Case]:
    yield Case("prose", "empty", ["", BY_TEXT])
    yield Case("prose", "a promise", ["I will look at the text first.", BY_TEXT])
    yield Case("prose", "for ever", ["The text is about a tower."], None, turns=5)
    yield Case("prose", "the same code for ever", [_block("print(1)")], None, turns=6)


def _provider() -> Iterator[Case]:
    faults: dict[str, Answer] = {
        "no content": Reply(None),
        "no choices": empty_choices(),
        "half a JSON object": malformed(),
        "status 503": server_error(),
        "cut in the body": cut_connection(in_body=True),
    }
    for name, fault in faults.items():
        yield Case("provider", name, [fault, BY_TEXT])
    yield Case("provider", "no usage", [Reply(BY_TEXT, usage=None)], turns=1)
    cut = Reply("```repl\ntotal = 41\ntotal +", finish_reason="length")
    yield Case("provider", "cut by its length limit", [cut, _block(CODE), BY_NAME], turns=3)


def _ends() -> Iterator[Case]:
    """Answers with parentheses of their own."""
    shapes = {
        "a half-open interval": "O(n) time, range [0, 10)",
        "two half-open intervals": "[0, 10) and [20, 30)",
        "an interval open on the left": "x in (0, 1]",
        "LaTeX": "the set \\left[0, 1\\right)",
        "parameters with defaults": "c, id, args=(), kwds={}",
        "a signature": "def f(a=(), b=(1, 2))",
        "a list of marks": "a) red b) blue",
    }
    for name, answer in shapes.items():
        replies = [_block(CODE), f"FINAL({answer})"]
        yield Case("ends of answers", name, replies, answer, tries_final=True)
    behind = [_block(CODE), "FINAL(f(x) = 2) as (I think) the output shows"]
    yield Case("ends of answers", "prose behind it", behind, "f(x) = 2", tries_final=True)


def _forms() -> Iterator[Case]:
    """Other forms of an answer that models keep to."""
    shapes = {
        "a colon": "FINAL: 42",
        "bold, with a colon": "**Final answer:** 42",
        "a box": "\\boxed{42}",
        "a tag": "<answer>42</answer>",
        "JSON": '{"answer": 42}',
        "a return": "return FINAL(42)",
        "a keyword": "FINAL(answer=42)",
        "confidence beside it": 'FINAL(answer="42", confidence=0.9)',
        "brackets": "FINAL[42]",
        "no parentheses": "FINAL 42",
        "a heading in capitals": "## FINAL\n\n42",
        "a name in brackets": "FINAL_VAR[total]",
        "a name in a tag": "<FINAL_VAR>total</FINAL_VAR>",
        "a name escaped for Markdown": r"FINAL\_VAR(total)",
        "a block below its label": "**Final Answer:**\n\n```text\n42\n```",
        "a block named answer": "```answer\n42\n```",
        "a chat agent's action": '{"action": "Final Answer", "action_input": "42"}',
    }
    for name, final in shapes.items():
        yield Case("forms of answers", name, [_block(CODE), final], tries_final=True)
    template = [_block(CODE), "FINAL(your answer here)", BY_TEXT]
    yield from _behind_words()
    yield Case("forms of answers", "a template", template, turns=3, tries_final=True)
    unfilled = [_block(CODE), "FINAL(It is {total}.)", BY_TEXT]
    yield Case("forms of answers", "an unfilled name", unfilled, turns=3, tries_final=True)
    two = [_block(CODE), "FINAL(41)\nFINAL(42)", BY_TEXT]
    yield Case("forms of answers", "two that differ", two, turns=3, tries_final=True)


def _behind_words() -> Iterator[Case]:
    """Answers that do not stand on a line of their own, or that are taken back."""
    shapes = {
        "a sentence before it": "I have counted them all. FINAL(42)",
        "in a sentence": "So the answer is FINAL(42).",
        "a heading": "## Final Answer\n\n42",
        "reasons beside it": '{"reasoning": "6 times 7", "answer": "42"}',
        "an object behind words": 'It is:\n```json\n{"final_answer": 42}\n```',
        "a call of a tool": '{"name": "finish", "arguments": {"answer": "42", "sure": true}}',
        "another language": "最终答案：42",
        "a sentence in another language": "答えは FINAL(42) です。",
        "taken back": "FINAL(41)\n\nWait, that is wrong.\n\nFINAL(42)",
        "a name in braces": "FINAL({total})",
        "an expression": "FINAL([total][0])",
    }
    for name, final in shapes.items():
        yield Case("answers behind words", name, [_block(CODE), final], tries_final=True)
    plan = [_block(CODE), "Once I have the count I call FINAL(count).", BY_TEXT]
    yield Case("answers behind words", "spoken of", plan, turns=3, tries_final=True)


def _values() -> Iterator[Case]:
    """Values that are handed over whole."""
    shapes = {
        "a dict of Python's": ("total = {'a': None, 'b': True}", '{"a": null, "b": true}'),
        "a list": ("total = [1, 2, 3]", "[1, 2, 3]"),
        "a generator": ("total = (n for n in (1, 2))", "[1, 2]"),
        "a set of dates": (
            "import datetime\ntotal = {'days': {datetime.date(2026, 1, 2)}}",
            '{"days": ["2026-01-02"]}',
        ),
        "a long text": ("total = 'word ' * 9000 + 'end'", "word " * 9000 + "end"),
    }
    for name, (code, want) in shapes.items():
        yield Case("values", name, [_block(code), BY_NAME], want)
    refused = {
        "an object without a text": "class A: pass\ntotal = A()",
        "an empty text": "total = ''",
        "a copy of the text": "total = str(context) + ' '",
    }
    for name, code in refused.items():
        yield Case("values", name, [_block(code), BY_NAME, BY_TEXT], turns=3)


def _code_as_written() -> Iterator[Case]:
    shapes = {
        "await at the top": "import asyncio\nasync def f():\n    return 42\ntotal = await f()",
        "a byte order mark": f"\ufeff{CODE}",
        "invisible characters": CODE.replace(" ", "\u00a0") + "\u200b",
        "a pool of threads": "from multiprocessing.pool import ThreadPool\n"
        "total = sum(ThreadPool(2).map(int, ['40', '2']))",
        "gather of values": "import asyncio\ntotal = sum(await asyncio.gather(*[40, 2]))",
        "a pool of processes": "from concurrent.futures import ProcessPoolExecutor\n"
        "with ProcessPoolExecutor() as pool:\n    total = sum(pool.map(int, ['40', '2']))",
        "a bar of progress": "from tqdm import tqdm\ntotal = sum(tqdm([40, 2], desc='chunks'))",
        "a loop behind another": "import asyncio\nasync def f():\n    return 42\nasyncio.run(f())\n"
        "total = asyncio.get_event_loop().run_until_complete(f())",
        "arguments of a script": "import argparse\np = argparse.ArgumentParser()\n"
        "p.add_argument('--n', type=int, default=42)\ntotal = p.parse_args().n",
        "an exit of a notebook": "total = 42\nexit()",
        "a magic": f"%%time\n!pip install numpy\n{CODE}",
        "curly quotes": "total = int(“42”)",
        "helpers of a package": f"from rlm import llm_query, FINAL_VAR\n{CODE}",
        "true and null": "found = [true, null, false]\ntotal = 41 + found[0]",
    }
    for name, code in shapes.items():
        yield Case("code as written", name, [_block(code), BY_NAME])
    asked = "total = llm_query('How much is it?', 'a chunk of the text ' * 40)"
    replies = [_block(asked), "42", BY_NAME]
    yield Case("code as written", "a question and a chunk", replies, turns=3)
    named = "total = llm_query(question='How much is it?', context='a chunk', max_tokens=9)"
    yield Case("code as written", "names of arguments", [_block(named), "42", BY_NAME], turns=3)


def _names() -> Iterator[Case]:
    """Names that trained models expect."""
    batch = [_block("total = llm_query_batched(['How much?'])[0]"), "42", BY_NAME]
    yield Case("names", "llm_query_batched", batch, turns=3)
    first = [_block("total = len(context_0) and 42"), BY_NAME]
    yield Case("names", "context_0", first)
    ready = [_block(CODE + "\nanswer = {'content': str(total), 'ready': True}")]
    yield Case("names", "a dict named answer", ready, turns=1)
