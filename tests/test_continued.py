"""A further question over an earlier run: what it knows, and what its variables are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlm_mcp.engine.prompts.earlier import Earlier, describe_earlier
from rlm_mcp.sandbox.types import Variable
from rlm_mcp.service import saved_variables
from rlm_mcp.testing.scripted_replies import Script
from tests.serving import cell, open_served, turns

pytestmark = pytest.mark.usefixtures("one_sandbox_for_all")

TEXT = "hello world " * 5000


async def first_run(directory: Path, code: str) -> str:
    """A run that assigned something, and whose server has ended."""
    script = turns(cell(f"{code}\nprint('set')"), "FINAL(done)")
    async with open_served(directory, script) as served:
        run = await served.call("rlm_query", question="Set it.", text=TEXT, wait_seconds=60)
        assert run["status"] == "completed"
        return run["run_id"]


async def continued(directory: Path, run_id: str, script: Script) -> dict[str, Any]:
    """Go on with a run in a server of its own; `opening` is what its root model read first."""
    async with open_served(directory, script) as served:
        run = await served.call(
            "rlm_query", question="And now?", continue_run=run_id, wait_seconds=60
        )
        opening = served.model.requests[0].messages[1]["content"]
        trace = await served.call("rlm_run_trace", run_id=run["run_id"], limit=50)
        return {**run, "opening": opening, "events": trace["events"]}


async def kept(directory: Path, assign: str, check: str) -> str:
    """What an expression gives after a restart."""
    run_id = await first_run(directory, assign)
    run = await continued(directory, run_id, turns(cell(f"FINAL(repr(({check})))")))
    return run["answer"]


@pytest.mark.parametrize(
    ("assign", "check", "expected"),
    [
        (
            "pages = {1: 'a', (2, 3): 'b'}",
            "pages",
            "{1: 'a', (2, 3): 'b'}",
        ),
        (
            "seen = frozenset({'a'}), {1, 2}",
            "seen",
            "(frozenset({'a'}), {1, 2})",
        ),
        (
            "import datetime\nday = datetime.date(2026, 1, 2)",
            "day.year, datetime.MINYEAR",
            "(2026, 1)",
        ),
        (
            "raw = bytes([0, 255]), bytearray(b'x'), 1 + 2j",
            "raw",
            "(b'\\x00\\xff', bytearray(b'x'), (1+2j))",
        ),
        (
            "from collections import Counter\nc = Counter('aab')",
            "c, Counter('b')",
            "(Counter({'a': 2, 'b': 1}), Counter({'b': 1}))",
        ),
        (
            "rows = [f'row {i}' for i in range(200_000)]",
            "len(rows), rows[-1]",
            "(200000, 'row 199999')",
        ),
        (
            "nan = float('nan'), float('inf'), -0.0",
            "nan",
            "(nan, inf, -0.0)",
        ),
        (
            "def double(x, by=2):\n    return x * by",
            "double(4)",
            "8",
        ),
        (
            "triple = lambda x: 3 * x",
            "triple(2)",
            "6",
        ),
        (
            "import re as r\ndef find(s):\n    return r.findall('a', s)",
            "find('banana')",
            "['a', 'a', 'a']",
        ),
        (
            "class P:\n    def __init__(self, x):\n        self.x = x\np = P(1)",
            "p.x, type(p) is P",
            "(1, True)",
        ),
        (
            "from dataclasses import dataclass\n@dataclass\nclass D:\n    x: int\nd = {'k': D(5)}",
            "d",
            "{'k': D(x=5)}",
        ),
        (
            "from collections import OrderedDict, defaultdict, deque\n"
            "import datetime as dt, decimal, fractions, enum\n"
            "class Colour(enum.Enum):\n    RED = 1\n"
            "loop = [1]\nloop.append(loop)\n"
            "many = [OrderedDict(b=1, a=2), defaultdict(list, {1: [2]}), deque([1, 2], 9),"
            " {(1, 2): {3}}, dt.datetime(2026, 1, 2, 3, tzinfo=dt.UTC), dt.timedelta(3),"
            " decimal.Decimal('0.10'), fractions.Fraction(1, 3), range(3), slice(1, 2), ...,"
            " Colour.RED, 10 ** 50]",
            "many, loop[1] is loop, many[1][7], many[11] is Colour.RED",
            "([OrderedDict([('b', 1), ('a', 2)]), defaultdict(<class 'list'>, {1: [2], 7: []}), "
            "deque([1, 2], maxlen=9), {(1, 2): {3}}, datetime.datetime(2026, 1, 2, 3, 0, "
            "tzinfo=datetime.timezone.utc), datetime.timedelta(days=3), Decimal('0.10'), "
            "Fraction(1, 3), range(0, 3), slice(1, 2, None), Ellipsis, <Colour.RED: 1>, "
            f"{10**50}], True, [], True)",
        ),
        (
            "from collections import namedtuple\nPoint = namedtuple('Point', 'x y', defaults=[0])\n"
            "points = {'a': Point(1), 'b': Point(1, 2)}",
            "points, Point(3).y, points['b']._asdict()",
            "({'a': Point(x=1, y=0), 'b': Point(x=1, y=2)}, 0, {'x': 1, 'y': 2})",
        ),
        (
            "table = {'a': 1}\ndef look(key, table=table):\n    return table[key]",
            "look('a')",
            "1",
        ),
        (
            "from functools import cache\n@cache\ndef fib(n):\n"
            "    return n if n < 2 else fib(n - 1) + fib(n - 2)\nfib(9)",
            "fib(90), type(fib).__name__",
            "(2880067194370816120, '_lru_cache_wrapper')",
        ),
        (
            "from collections import defaultdict\n"
            "counts = defaultdict(lambda: [0, *more], {'a': [1]})\nmore = [7]\n"
            "rules = [('even', lambda n, *, by=2: n % by == 0)]",
            "counts['x'], counts['a'], rules[0][1](4), rules[0][1](4, by=3)",
            "([0, 7], [1], True, False)",
        ),
        (
            "big = 'ü' * 5_000_000",
            "len(big), set(big)",
            "(5000000, {'ü'})",
        ),
        (
            "text = context",
            "text is context, len(text)",
            "(True, 60000)",
        ),
        (
            "import urllib.parse\nimport concurrent.futures\nimport xml.etree.ElementTree as tree",
            "urllib.parse.quote('a b'), concurrent.futures.Future.__name__, tree.XML('<a/>').tag",
            "('a%20b', 'Future', 'a')",
        ),
        (
            "_seen = {'a'}\ndef _clean(s):\n    return s.strip()\n"
            "def run(s):\n    return _clean(s), 'a' in _seen",
            "run(' x ')",
            "('x', True)",
        ),
        (
            "square, cube = lambda x: x ** 2, lambda x: x ** 3\nf = g = lambda: 5\n"
            "exec('def made(x):\\n    return x + 1')",
            "square(3), cube(2), f(), g(), made(1)",
            "(9, 8, 5, 5, 2)",
        ),
        (
            "class Shelf:\n    items = []\n    count = 0\n"
            "Shelf.items.append('a')\nShelf.count += 2\n"
            "def tally():\n    return tally.seen\ntally.seen = {'x': 1}",
            "Shelf.items, Shelf.count, tally()",
            "(['a'], 2, {'x': 1})",
        ),
        (
            "rows = [1, 2]\nalso = rows\nby = {'rows': rows, 'text': context}\n"
            "tree = {'children': []}\nleaf = {'parent': tree}\ntree['children'].append(leaf)",
            "also is rows, by['rows'] is rows, by['text'] is context, leaf['parent'] is tree,"
            " tree['children'][0]['parent'] is tree",
            "(True, True, True, True, True)",
        ),
        (
            "class A:\n    def who(self):\n        return 'old'\n"
            "class A:\n    def who(self):\n        return 'a'\n"
            "class B(A):\n    def who(self):\n        return super().who() + 'b'\n"
            "import abc\nclass C(abc.ABC):\n    @abc.abstractmethod\n    def f(self): ...\n"
            "class D(C, B):\n    def f(self):\n        return self.who()\nd = D()",
            "d.f(), isinstance(d, C), type(d) is D",
            "('ab', True, True)",
        ),
        (
            "import functools\ndef loud(f):\n    @functools.wraps(f)\n    def inner(*a):\n"
            "        return f(*a).upper()\n    return inner\n@loud\ndef say(s):\n    return s\n"
            "add_two = functools.partial(lambda a, b: a + b, 2)",
            "say('a'), add_two(3)",
            "('A', 5)",
        ),
        (
            "import re, uuid, pathlib, zoneinfo, datetime\np = re.compile('a+', re.I)\n"
            "u = uuid.UUID(int=5), pathlib.PurePosixPath('a/b')\n"
            "w = datetime.datetime(2026, 1, 2, tzinfo=zoneinfo.ZoneInfo('UTC'))",
            "p.findall('AAb'), u[0].int, u[1].name, str(w)",
            "(['AA'], 5, 'b', '2026-01-02 00:00:00+00:00')",
        ),
        (
            "words = 'surrogate \\ud800'",
            "words",
            "'surrogate \\ud800'",
        ),
    ],
)
async def test_a_value_is_what_it_was_in_a_new_process(
    tmp_path: Path, assign: str, check: str, expected: str
) -> None:
    assert await kept(tmp_path, assign, check) == expected


async def test_what_is_lost_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saved_variables, "MAX_LASTING_BYTES", 100_000)
    code = (
        "n = 1\ngen = (i for i in range(3))\nmixed = {'g': gen}\nbig = 'x' * 200_000\n"
        "def make():\n    y = 2\n    return lambda: y\nclosure = make()"
    )
    run_id = await first_run(tmp_path, code)

    run = await continued(tmp_path, run_id, turns(cell("FINAL(n)")))

    [line] = [one["preview"] for one in run["events"] if one["type"] == "warning"]
    assert "gen (a value of type generator cannot be kept)" in line
    assert "mixed (a value of type dict that holds one of type generator cannot be kept)" in line
    assert "big (it is larger than is kept)" in line
    assert "closure (a function that uses variables of another function)" in line
    assert "Lost variables: " in run["opening"]
    assert "gen (a value of type generator cannot be kept)" in run["opening"]


async def test_what_was_restored_is_kept_for_the_question_after_it(tmp_path: Path) -> None:
    run_id = await first_run(tmp_path, "def double(x):\n    return 2 * x\nseen = {1, 2}")
    second = await continued(tmp_path, run_id, turns(cell("FINAL('on')")))
    code = "FINAL(repr((double(21), seen)))"

    third = await continued(tmp_path, second["run_id"], turns(cell(code)))

    assert third["answer"] == "(42, {1, 2})"
    opening = third["opening"]
    assert opening.index("Asked: Set it.") < opening.index("Asked: And now?")
    assert "Answered: done" in opening


async def test_the_root_is_told_what_is_there_in_the_same_process_too(tmp_path: Path) -> None:
    script = turns(cell("zebra_port = 9090"), "FINAL(the port is 9090)")
    async with open_served(tmp_path, script) as served:
        first = await served.call("rlm_query", question="Which port?", text=TEXT, wait_seconds=60)
        seen = len(served.model.requests)
        await served.call(
            "rlm_query", question="Above 9000?", continue_run=first["run_id"], wait_seconds=60
        )
        opening = served.model.requests[seen].messages[1]["content"]

    assert "Asked: Which port?\nAnswered: the port is 9090" in opening
    assert "- `zebra_port` (int, 1): 9090" in opening


async def test_variables_that_an_earlier_version_saved_are_assigned_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saved_variables, "Lasting", type("Nothing", (), {}))
    run_id = await first_run(tmp_path, "n = [1, 2]\nseen = {1}")
    monkeypatch.undo()

    run = await continued(tmp_path, run_id, turns(cell("FINAL(repr(n))")))

    assert run["answer"] == "[1, 2]"
    [line] = [one["preview"] for one in run["events"] if one["type"] == "warning"]
    assert line.endswith("could not be restored: seen")


def test_long_questions_answers_and_values_are_cut() -> None:
    variables = [Variable(f"v{number}", "str", 9, "x" * 500) for number in range(99)]

    told = describe_earlier([Earlier("q" * 9000, "a" * 90_000)], variables, ["lost (why)"])

    assert len(told) < 8_000
    assert "and 59 more" in told
    assert told.endswith("Lost variables: lost (why).")


async def test_values_that_cannot_be_kept_cost_the_others_nothing(tmp_path: Path) -> None:
    assign = (
        "import re\n"
        "a, b, c = (re.match('x', 'x') for _ in range(3))\n"
        "d = (one for one in 'x')\n"
        "e = memoryview(b'x')\n"
        "after = {'rows': [1, 2]}, {3}, 'x' * 250_000\n"
        "z = 5"
    )
    run_id = await first_run(tmp_path, assign)

    run = await continued(
        tmp_path, run_id, turns(cell("FINAL(repr((after[:2], len(after[2]), z)))"))
    )

    assert run["answer"] == "(({'rows': [1, 2]}, {3}), 250000, 5)"
    assert "a (a value of type Match cannot be kept)" in run["opening"]
    assert "larger than is kept" not in run["opening"]
