"""Cells run by the child's half in this process, where branches are measured: no walls, no wire."""

from __future__ import annotations

import asyncio
import multiprocessing
import multiprocessing.dummy
import multiprocessing.pool
import random
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from rlm_mcp.sandbox.child import lasting
from rlm_mcp.sandbox.child.documents import Documents
from rlm_mcp.sandbox.child.worker import Worker
from rlm_mcp.sandbox.types import ReplOptions
from rlm_mcp.sandbox.wire import Frame
from tests.test_sandbox_worker import Answers, documents_of, laid_out

Answer = Callable[[Frame], str]

# What of `asyncio` takes plain values in a REPL.
_LOOSENED = (
    *("as_completed", "create_task", "ensure_future", "gather", "run"),
    *("shield", "wait", "wait_for", "get_event_loop"),
)


class Here:
    """A REPL in this process; `answer` makes the reply to a call, or raises why there is none."""

    def __init__(
        self,
        context: str | Documents = "alpha\nbeta\n",
        answer: Answer = lambda frame: frame.text(0).upper(),
        options: ReplOptions | None = None,
    ) -> None:
        self.calls: list[Frame] = []
        self._answer = answer
        self._answers = Answers()
        _, names = laid_out(["a", "b"])
        options = options or ReplOptions(recursion=True)
        self._worker = Worker(self._send, (context, names), options)
        self.module = self._worker.namespace.module
        self._number = 0

    def _send(self, data: bytes) -> None:
        before = len(self._answers.frames)
        self._answers(data)
        for call in self._answers.frames[before:]:
            if call.kind == "call":
                self.calls.append(call)
                self._reply(call)

    def _reply(self, call: Frame) -> None:
        try:
            text, ok = self._answer(call), True
        except LookupError as error:
            text, ok = str(error.args[0]), False
        fields = {"call": call.fields["call"], "ok": ok}
        self._worker.desk.deliver(fields["call"], text, ok=ok)

    def ask(self, kind: str, fields: dict[str, Any], *blobs: bytes) -> Frame:
        self._worker.handle(Frame(kind, fields, blobs))
        return self._answers.frames[-1]

    def run(self, code: str) -> Frame:
        self._number += 1
        fields = {"cell": 10 + self._number, "number": self._number, "holds": False}
        return self.ask("exec", fields, code.encode())

    def output(self, code: str) -> str:
        done = self.run(code)
        assert not done.fields["error"], done.text(4)
        return done.text(0)

    def error(self, code: str) -> str:
        done = self.run(code)
        assert done.fields["error"], done
        return f"{done.text(2)}: {done.text(3)}"

    def answer(self, code: str) -> tuple[str, str]:
        done = self.run(code)
        assert done.fields["final"], done
        return done.text(2), done.text(3)

    def kept(self, most: int = 1 << 20, room: int = 1 << 22) -> dict[str, tuple[bytes, str]]:
        blobs = self.ask("keep", {"ticket": 1, "most": most, "room": room}).blobs
        rows = zip(blobs[::3], blobs[1::3], blobs[2::3], strict=True)
        return {name.decode(): (payload, reason.decode()) for name, payload, reason in rows}


@pytest.fixture(autouse=True)
def process_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give back what a worker takes for its cells, and changes for them."""
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, getattr(sys, name))
    for name in _LOOSENED:
        monkeypatch.setattr(asyncio, name, getattr(asyncio, name))
    for name in ("run_until_complete", "create_task"):
        monkeypatch.setattr(asyncio.BaseEventLoop, name, getattr(asyncio.BaseEventLoop, name))
    monkeypatch.setattr(asyncio, "_is_loosened", False, raising=False)


@pytest.fixture
def here() -> Here:
    return Here()


# --- code ---


def test_the_value_of_a_last_expression_is_shown_and_named(here: Here) -> None:
    assert here.output("x = 4\nx + 1") == "5\n"
    assert here.output("print(_)\nNone") == "5\n"
    assert here.output("") == ""
    assert here.output("search('beta')") == "[at 6] beta\n"
    assert here.output("list(lines())") == "['alpha', 'beta']\n"
    assert here.output("import sys; sys.stdout.buffer.write(b'raw\\n')") == "raw\n4\n"


def test_a_cell_may_await_what_is_and_what_is_no_coroutine(here: Here) -> None:
    code = "import asyncio\nawait asyncio.sleep(0)\nasync def double(n): return 2 * n\n"
    assert here.output(f"{code}await double(4)") == "8\n"
    assert here.output("await llm_query('a') + await asyncio.sleep(0, 'b')") == "'Ab'\n"


def test_an_error_is_told_by_its_cells_alone_with_its_line(here: Here) -> None:
    here.run("def half(n):\n    return n / 0")
    done = here.run(
        "try:\n    half(1)\nexcept ZeroDivisionError as error:\n    raise KeyError('x') from error"
    )

    assert done.fields["line"] == 4
    assert [done.text(at) for at in (2, 3)] == ["KeyError", "'x'"]
    traceback = done.text(4)
    assert '"<cell 1>", line 2, in half' in traceback
    assert "The above exception was the direct cause" in traceback
    assert "rlm_mcp" not in traceback


def test_an_error_names_what_was_probably_meant(here: Here) -> None:
    assert here.error("numbers = 1\nprint(nunbers)").endswith("Did you mean: 'numbers'?")
    assert here.error("Final(numbers)").endswith("Did you mean: 'FINAL'?")
    assert here.error("LLM_Query('?')").endswith("Did you mean: 'llm_query'?")
    assert "Did you mean" not in here.error("zzzzzz")


@pytest.mark.parametrize(
    ("code", "line", "said"),
    [
        ("x = (", 1, "SyntaxError: '(' was never closed"),
        ("raise SyntaxError('of its own', ('a', -5, 0, ''))", None, "SyntaxError: of its own"),
        (
            "class Odd(Exception):\n    def __str__(self): raise ValueError\nraise Odd",
            None,
            "Odd: (its text cannot be shown: ValueError)",
        ),
        ("raise ValueError('x' * 9000)", 1, "characters cut"),
        ("raise SystemExit(3)", 1, "SystemExit: 3"),
    ],
)
def test_every_error_is_described(here: Here, code: str, line: int | None, said: str) -> None:
    error = here.error(code)

    assert said in error
    assert len(error) < 5000
    if line is not None:
        assert here.run(code).fields["line"] == line


def test_a_long_traceback_ends_with_its_error(here: Here) -> None:
    error = here.run("raise ExceptionGroup('all', [ValueError('x' * 3000) for _ in range(9)])")

    assert "characters cut" in error.text(4)
    assert error.text(4).endswith("ExceptionGroup: all (9 sub-exceptions)")


# --- answers ---


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        ("FINAL('words')", ("words", "str")),
        ("FINAL(a=1, b=[2.5, None, True])", ("[1, [2.5, null, true]]", "list")),
        ("x = {'k': (1, 'ä')}\nFINAL_VAR('x')", ('{"k": [1, "ä"]}', "dict")),
        ("x = 5\nFINAL_VAR(x)", ("5", "int")),
        ("x = 'a value'\nFINAL_VAR(x)", ("a value", "str")),
        ("FINAL_VAR('words that name nothing')", ("words that name nothing", "str")),
        ("Final = {1, 2}", ("{1, 2}", "set")),
        ("answer['content'] = 'so'\nanswer['ready'] = True", ("so", "str")),
        ("answer.update(content=[1], ready=True)", ("[1]", "list")),
        ("FINAL(context_names)", ('["n0", "n1"]', "Documents")),
        ("from collections import OrderedDict\nFINAL(OrderedDict(b=1, a=2))",
         ('{"b": 1, "a": 2}', "OrderedDict")),
        ("class Text(str): pass\nFINAL([Text('t'), 7])", ('["t", 7]', "list")),
        ("class Pair(tuple): pass\nFINAL(Pair((1, 'b')))", ('[1, "b"]', "Pair")),
        ("class Count(int): pass\nFINAL(Count(3))", ("3", "Count")),
    ],
)  # fmt: skip
def test_an_answer_is_taken_as_it_is_given(here: Here, code: str, answer: tuple[str, str]) -> None:
    assert here.answer(code) == answer


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("FINAL()", "TypeError: FINAL takes the answer"),
        ("FINAL(None)", "ValueError: None cannot be the answer"),
        ("FINAL(print)", "ValueError: a builtin_function_or_method cannot be the answer"),
        ("FINAL(context)", "ValueError: the whole context cannot be the answer"),
        ("FINAL_VAR('context')", "ValueError: the whole context cannot be the answer"),
        ("FINAL_VAR('search')", "ValueError: 'search' is not one of your variables"),
        ("FINAL_VAR('missing')", "no variable is named 'missing'; existing: none so far"),
        ("FINAL(['x' * 10] * 10**6)", "ValueError: the answer is too long"),
        ("FINAL('x' * 8_000_001)", "ValueError: the answer is too long"),
        ("FINAL([1 << 40_000_000, None])", "ValueError: the answer is too long"),
    ],
)  # fmt: skip
def test_what_cannot_be_an_answer_is_refused(here: Here, code: str, said: str) -> None:
    assert said in here.error(code)


def test_a_name_that_only_looks_like_an_answer_is_none(here: Here) -> None:
    for code in (
        "from typing import Final",
        "Final = None",
        "answer['content'] = 'not yet'",
        "answer = 5",
        "'answer ='",
    ):
        assert not here.run(code).fields["final"]
    here.run("Final = 3")
    assert not here.run("print('the same value as before')").fields["final"]
    assert here.run("def again():\n    global Final\n    Final = 3\nagain()").fields["final"]


# --- calls ---


def test_calls_reach_the_host_and_return_its_replies(here: Here) -> None:
    assert here.output("llm_query('a', model='m')") == "'A'\n"
    assert here.output("llm_query_batch(['a', 5])") == "['A', '5']\n"
    assert here.output("llm_query_batched(queries=['b'])") == "['B']\n"
    assert here.output("rlm_query('q', ['one', 'two'])") == "'Q'\n"
    assert here.output("rlm_query_batch(['q', 'r'], 'one')") == "['Q', 'R']\n"
    assert here.output("rlm_query_batched('q', ['one', 'two'])") == "['Q', 'Q']\n"
    assert here.output("rlm_query('q')") == "'Q'\n"
    models = [call.fields["has_model"] for call in here.calls]
    assert models == [True] + [False] * 9
    assert here.calls[4].blobs == (b"q", b"one", b"two")
    assert here.calls[-1].blobs == (b"q", b"alpha\nbeta\n")


def test_replies_that_have_a_schema_are_values() -> None:
    here = Here(answer=lambda frame: '{"n": 4}' if frame.text(0) == "a" else "")
    assert here.output("llm_query('a', schema={'type': 'object'})['n']") == "4\n"
    assert here.output("llm_query_batch(['a'], schema={})") == "[{'n': 4}]\n"
    assert here.output("llm_query('a', schema='{}')['n']") == "4\n"
    assert "schema is a dict, a JSON Schema, not str" in here.error("llm_query('a', schema='x')")
    assert here.output("budget()") == "{}\n"


def test_a_call_that_fails_says_why() -> None:
    def refuse(frame: Frame) -> str:
        raise LookupError(f"no reply to {frame.text(0)}")

    here = Here(answer=refuse)
    assert here.error("llm_query('a')") == "SubCallError: no reply to a"
    code = "replies = llm_query_batch(['a'], schema={})\nprint(replies, bool(replies[0]))"
    assert here.output(code) == "['no reply to a'] False\n"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("llm_query_batch('abc')", "TypeError: llm_query_batch takes a list of prompts, not str"),
        ("llm_query_batch()", "takes a list of prompts, not NoneType"),
        ("rlm_query('q', [1])", "TypeError: rlm_query takes a str or a list of str, not int"),
        ("rlm_query_batch(['a', 'b'], ['c', 'd', 'e'])", "got 2 questions and 3 contexts"),
        ("llm_query('a', model='m', schema=5)", "schema is a dict, a JSON Schema, not int"),
        ("llm_query('q' * ((64 << 20) + 1))", "SubCallError: a message of 67,108,865 bytes"),
    ],
)
def test_a_call_that_cannot_be_made_is_refused(here: Here, code: str, said: str) -> None:
    assert said in here.error(code)
    assert here.calls == []


def test_a_pool_of_processes_is_one_of_threads(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (multiprocessing, multiprocessing.dummy, multiprocessing.pool):
        monkeypatch.setattr(module, "Pool", module.Pool)  # put back at the end
    monkeypatch.setattr(multiprocessing.pool, "ThreadPool", multiprocessing.pool.ThreadPool)

    code = """
from multiprocessing import Pool
with Pool(2) as pool:
    print(pool.map(str.upper, "ab"), pool.apply(max, (1, 5)), pool.starmap(pow, [(2, 3)]))
    print(list(pool.imap(abs, [-1, -2])), list(pool.imap_unordered(abs, [-3])))
    later = pool.map_async(abs, [-4])
    print(later.get(60), later.ready(), pool.apply_async(int, ("7",)).get())
pool = Pool(initializer=print, initargs=("begun",))
print(pool.apply(dict, (), {"a": 1}))
pool.close()
pool.join()
"""
    shown = here.output(code).splitlines()
    assert sorted(shown) == sorted([
        "['A', 'B'] 5 [8]",
        "[1, 2] [3]",
        "[4] True 7",
        "begun",
        "{'a': 1}",
    ])  # fmt: skip


# --- citations ---


def test_passages_are_cited_by_words_spans_and_matches(here: Here) -> None:
    code = """
import re
quotes = cite("beta", (0, 5), [re.search("eta", context)], search("alpha")[0], (3, 0, 5))
quotes += cite(re.search("pha", context[:5]))
print(quotes)
"""
    assert here.output(code).endswith("['beta', 'alpha', 'eta', 'alpha', 'alpha', 'pha']\n")
    done = here.run("cite('beta', 'nowhere')\nFINAL('b', citations=['alpha'])")
    assert done.text(0) == "cite: not in context word for word: 'nowhere'\n"
    assert done.fields["cited"] == [0, 6, 10, 0, 0, 0, 0, 0, 5]
    assert done.blobs[-3:] == (b"beta", b"nowhere", b"alpha")
    assert here.run("x = 1\nFINAL_VAR('x', citations='beta')").fields["cited"] == [0, 6, 10]


def test_passages_of_a_list_are_cited_by_document() -> None:
    here = Here(documents_of("one two", "größe three", "two"))
    done = here.run("cite('größe', (-1, 0, 3), (1, 6, 11), 'two t', 'ten')")

    assert done.text(0).splitlines() == [
        "cite: not in context word for word: 'two t'",
        "cite: not in context word for word: 'ten'",
        "['größe', 'two', 'three', 'two t', 'ten']",
    ]
    assert done.fields["cited"] == [1, 0, 5, 2, 0, 3, 1, 6, 11, 0, 0, 0, 0, 0, 0]
    assert Here(documents_of()).output("print(cite('a'))").endswith("['a']\n")


def test_words_that_go_over_into_the_next_document_are_in_neither() -> None:
    assert "not in context" in Here(documents_of("ab", "cab", "c")).output("cite('bc')")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("cite(' ')", "ValueError: an empty quote cites nothing"),
        ("cite((5, 50))", "ValueError: no passage from 5 to 50 in a text of 11"),
        ("cite(['alpha'] * 201)", "at most 200 passages can be cited in a block"),
    ],
)
def test_what_cites_nothing_is_refused(here: Here, code: str, said: str) -> None:
    assert said in here.error(code)


def test_a_span_of_a_list_needs_its_document() -> None:
    assert "give (document, start, end)" in Here(documents_of("a")).error("cite((0, 1))")


# --- variables ---


def test_variables_are_listed_as_model_code_sees_them(here: Here) -> None:
    assert here.output("SHOW_VARS()") == "no variables so far\n"
    here.run("n = 5\nwords = ['a', 'b']\nimport os\ndef f(): pass\n_hidden = 1\nfloat_ = 0.5")
    assert here.output("SHOW_VARS()").splitlines() == [
        "n: int, 1, 5",
        "words: list, 2, ['a', 'b']",
        "float_: float, 1, 0.5",
    ]
    assert here.output("context = 'mine'\nanswer = 'x'").strip() == ""
    assert here.output("print(context == 'alpha\\nbeta\\n')\nSHOW_VARS()").startswith("True\n")


def test_values_are_read_in_parts(here: Here) -> None:
    here.run("text = 'abcdef'\nrows = {'a': [1, 2]}\nodd = {1, 2}\nlong = list(range(10**6))")

    def part(name: str, start: int, limit: int, *, whole: bool = False) -> tuple[str, int, int]:
        fields = {"ticket": 1, "start": start, "limit": limit, "whole": whole}
        frame = here.ask("read", fields, name.encode())
        return frame.text(1), frame.fields["start"], frame.fields["total"]

    assert part("text", 2, 3) == ("cde", 2, 6)
    assert part("text", 99, 3) == ("", 6, 6)
    assert part("rows", 0, 100) == ('{"a": [1, 2]}', 0, 13)
    assert part("odd", 1, 4) == ("1, 2", 1, 6)
    assert part("long", 0, 9) == ("[0, 1, 2,", 0, 3_000_000)
    assert part("rows", 0, 100, whole=True) == ('{"a": [1, 2]}', 0, 13)
    assert part("long", 0, 100, whole=True) == ("", 0, 101)


def test_a_value_that_cannot_be_shown_says_so(here: Here) -> None:
    here.run("class Rude:\n    def __repr__(self): raise KeyError\n    def __len__(self): return 9")
    here.run("rude = Rude()\nclass Ends:\n    def __repr__(self): raise SystemExit\nends = Ends()")
    shown = [
        here.ask("read", {"ticket": 1, "start": 0, "limit": 99, "whole": whole}, name).text(1)
        for name in (b"rude", b"ends")
        for whole in (False, True)
    ]
    assert shown == [
        "<Rude whose repr raises KeyError>",
        "<Rude whose repr raises KeyError>",
        "<Ends: SystemExit>",
        "",
    ]
    listed = here.ask("list", {"ticket": 2})
    assert listed.fields["sizes"] == [1, 1]
    assert [blob.decode() for blob in listed.blobs[2::3]] == ["<Rude>", "<Ends>"]


# --- variables for a later question ---


def test_variables_code_and_imports_last_until_a_later_question(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "__main__", here.module)
    here.run(
        "import math as m\nn = [1, 2]\nsame = context\n"
        "def double(x):\n    return 2 * x\n"
        "twice = double\nadd = lambda a, b: a + b\n"
        "import functools\n@functools.total_ordering\nclass Point:\n"
        "    def __init__(self, x): self.x = x\n"
        "    def __lt__(self, other): return self.x < other.x\n"
        "class Pair:\n    both = 2\npair = Pair()"
    )
    kept = here.kept()
    lost = {name: reason for name, (payload, reason) in kept.items() if not payload}
    assert lost == {}

    later = Here()
    monkeypatch.setitem(sys.modules, "__main__", later.module)
    blobs = [part for name, (payload, _) in kept.items() for part in (name.encode(), payload)]
    reopened = later.ask("reopen", {"ticket": 3}, *blobs)
    assert {blob.decode() for blob in reopened.blobs} == kept.keys()
    assert later.output("print(m.pi > 3, n, same is context, double(4), twice(5), add(1, 2))") == (
        "True [1, 2] True 8 10 3\n"
    )
    assert later.output("print(pair.both, type(pair) is Pair)") == "2 True\n"
    assert later.output("print(Point(2) >= Point(1))") == "True\n"
    again = later.kept()
    assert again.keys() == kept.keys()


def test_what_cannot_last_is_lost_with_the_reason(here: Here) -> None:
    here.run(
        "import threading\nlock = threading.Lock()\n"
        "def outer():\n    seen = []\n    def inner(): return seen\n    return inner\n"
        "closure = outer()\n"
        "locks = [lock]\n"
        "large = 'x' * 5000\nnested = [['y' * 3000]]\n"
        "made = type('made', (), {})\n"
    )
    reasons = {name: reason for name, (_, reason) in here.kept(2000, 1 << 20).items() if reason}

    assert reasons == {
        "lock": "a value of type lock cannot be kept",
        "closure": "a function that uses variables of another function",
        "locks": "a value of type list that holds one of type _thread.lock cannot be kept",
        "large": "it is larger than is kept",
        "nested": "it is larger than is kept",
        "made": "code whose source is not known",
    }


def test_all_variables_together_have_a_bound(here: Here) -> None:
    here.run("one = 'x' * 1500\ntwo = 'y' * 1500")

    kept = here.kept(2000, 2000)

    assert kept["one"][0]
    assert kept["two"] == (b"", "all variables together are larger than is kept")


def test_what_cannot_be_opened_is_left_out() -> None:
    variables: dict[str, Any] = {}
    payloads = [
        ("broken", b"\x80garbage"),
        ("missing", lasting.SOURCE + b"import no_such_module as missing"),
        ("fine", lasting.SOURCE + b"fine = 3"),
    ]

    assert lasting.open_kept(payloads, variables) == ["fine"]
    assert variables["fine"] == 3


# --- options and names ---


def test_a_repl_has_the_helpers_that_its_options_allow() -> None:
    plain = Here(options=ReplOptions(sub_calls=False, seed=7))
    assert "name 'llm_query' is not defined" in plain.error("llm_query('a')")
    assert plain.output("import random; random.random()") == f"{random.Random(7).random()!r}\n"
    assert "name 'rlm_query' is not defined" in Here(options=ReplOptions()).error("rlm_query('a')")
    assert replace(ReplOptions(), recursion=True).sub_calls


def test_a_text_of_documents_reads_like_a_list() -> None:
    here = Here(documents_of("one", "two", "one"))
    checks: Iterable[str] = (
        "len(context) == 3 and bool(context)",
        "list(reversed(context)) == ['one', 'two', 'one']",
        "context[::2] == ['one', 'one'] and context[-2] == 'two'",
        "context == ['one', 'two', 'one'] and context != ['one'] and not context == 3",
        "context + ['x'] == ['one', 'two', 'one', 'x'] and ['x'] + context == ['x', *context]",
        "context * 1 == 1 * context == context.copy() == eval(repr(context))",
        "context.index('one', 1) == 2 and context.count('one') == 2 and 'two' in context",
        "__import__('copy').deepcopy(context) == list(context)",
        "max(context, key=len) == 'one' and [*lines()] == ['one', 'two', 'one']",
    )
    for check in checks:
        assert here.output(check) == "True\n", check
    for code, said in (
        ("context[3]", "context has 3 documents; index 3 is out of range"),
        ("context.sort()", "context is read-only"),
        ("context.splitlines()", "as in context[0].splitlines"),
        ("context._hidden", "AttributeError: _hidden"),
        ("hash(context)", "unhashable"),
    ):
        assert said in here.error(code)


def test_a_frame_of_the_host_that_asks_for_no_variable_names_those_there_are(here: Here) -> None:
    here.run("x = 1\ny = 2")
    fields = {"ticket": 1, "start": 0, "limit": 9, "whole": False}

    found = here.ask("read", fields, b"z")

    assert (found.fields["found"], found.blobs) == (False, (b"x", b"y"))
