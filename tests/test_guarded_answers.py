"""Answers whose schema has patterns are checked where a pattern without end stops nobody."""

from __future__ import annotations

from typing import Any

import pytest

from rlm_mcp.engine.parsing.guarded_answer import read_answer
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
