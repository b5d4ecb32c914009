"""Answers whose schema has patterns are checked where a pattern without end stops nobody."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from rlm_mcp.engine.parsing.guarded_answer import read_answer
from rlm_mcp.engine.parsing.pattern_costs import most_steps
from rlm_mcp.engine.parsing.typed_answer import read_typed_answer
from rlm_mcp.errors import InvalidInputError
from rlm_mcp.sandbox.types import Final

DAY: dict[str, Any] = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\d$"}
KEYS: dict[str, Any] = {"patternProperties": {"^k": {"type": "integer"}}}


async def test_an_answer_that_fits_the_patterns_is_read_as_any_other() -> None:
    assert await read_answer(Final("2026-11-27", "str"), DAY) == "2026-11-27"
    assert await read_answer(Final('{"k": 1, "ä": "ö"}', "str"), KEYS) == {"k": 1, "ä": "ö"}
    with pytest.raises(InvalidInputError, match="'tomorrow' does not match"):
        await read_answer(Final("tomorrow", "str"), DAY)


async def test_a_pattern_that_would_take_years_is_given_up() -> None:
    endless = {"type": "string", "pattern": "(a+)+$"}
    with pytest.raises(InvalidInputError, match="took over 5 s") as caught:
        await read_answer(Final("a" * 60 + "!", "str"), endless)
    assert "nested repetition" in caught.value.fix


def test_a_number_that_cannot_be_divided_does_not_fit() -> None:
    with pytest.raises(InvalidInputError, match="too large"):
        read_typed_answer(Final("1" + "0" * 400, "str"), {"multipleOf": 0.5})


@pytest.mark.parametrize(
    ("pattern", "steps"),
    [
        (r"^\d{4}-\d\d-\d\d$", 10_000),
        ("^[A-Z]{2,3}-[0-9]+$", 100_000),
        (r"^[^@\s]+@[^@\s]+$", 1_000_000),
        (r"^\+?[\d ()-]{6,20}$", 100_000),
        ("^(?:low|high)$", 10_000),
        ("a+$", 10_000_000),
    ],
)
def test_common_patterns_take_few_steps(pattern: str, steps: int) -> None:
    assert most_steps({"properties": {"a": {"pattern": pattern}}}, 200) <= steps
    assert most_steps({"patternProperties": {pattern: {}}}, 200) <= steps


@pytest.mark.parametrize(
    "pattern", ["(a+)+$", "(a|ab)*$", r"(\w+)\1", "(?=a+)b", "(a{1,9}){1,9}", "x{3}{4}", "["]
)
def test_what_may_never_end_or_is_not_understood_counts_as_endless(pattern: str) -> None:
    assert most_steps({"items": [{"anyOf": [{"pattern": pattern}]}]}, 10) == inf


def test_many_choices_count_as_many_steps() -> None:
    assert most_steps({"pattern": "^" + "(a|a)" * 30 + "b$"}, 100) > 10**9
    assert most_steps({"pattern": "^" + "a?" * 40 + "a" * 40}, 100) > 10**9
    assert most_steps({"pattern": ".*.*.*=.*"}, 1000) > 10**9


def test_a_schema_without_patterns_takes_no_steps() -> None:
    assert most_steps({"properties": {"pattern": {"type": "string"}}}, 10**7) == 0
