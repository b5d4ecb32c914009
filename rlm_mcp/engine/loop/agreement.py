"""Which of several answers say the same. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from rlm_mcp.engine.parsing.typed_answer import read_typed_answer
from rlm_mcp.engine.types import RLMResponse
from rlm_mcp.errors import InvalidInputError
from rlm_mcp.sandbox.types import Final

VERDICT_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "same": {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}},
        "best": {"type": "integer"},
    },
    "required": ["same", "best"],
}


@dataclass(frozen=True)
class Agreement:
    """The answer that is taken, by its place in a list, and how many say the same."""

    chosen: int
    agreeing: int


def equal_groups(responses: Sequence[RLMResponse]) -> list[list[int]]:
    """Put places of equal answers together, the largest group first."""
    groups: dict[str, list[int]] = {}
    for place, response in enumerate(responses):
        groups.setdefault(_normal(response), []).append(place)
    return sorted(groups.values(), key=lambda group: (-len(group), group))


def majority(groups: Sequence[Sequence[int]], tries: int) -> Agreement | None:
    """Return what more than half of the answers agree on, or the only one; None otherwise."""
    largest = groups[0]
    if 2 * len(largest) > tries or tries == 1:
        return Agreement(largest[0], len(largest))
    return None


def read_verdict(reply: str, groups: Sequence[Sequence[int]]) -> Agreement:
    """Read which answers a model holds for the same, of those that one of each group stands for.

    Args:
        reply: the model's; it numbers the groups from 1.
        groups: places of equal answers.

    Raises:
        InvalidInputError: it names no answer that there is.
    """
    told = cast("dict[str, Any]", read_typed_answer(Final(reply, "str", None), VERDICT_SCHEMA))
    numbers = range(1, len(groups) + 1)
    if told["best"] not in numbers:
        raise InvalidInputError(f"There is no answer {told['best']!r}.")
    joined: list[list[int]] = [[one for one in same if one in numbers] for same in told["same"]]
    joined += [[number] for number in numbers if not any(number in same for same in joined)]
    same = max(joined, key=lambda one: (_size(one, groups), told["best"] in one))
    best: int = told["best"] if told["best"] in same else same[0]
    return Agreement(groups[best - 1][0], _size(same, groups))


def _plain(data: Any) -> Any:
    """Return JSON with whole numbers alike: 42.0 says what 42 says."""
    return json.loads(json.dumps(data), parse_float=_number)


def _number(text: str) -> int | float:
    value = float(text)
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def _size(numbers: Sequence[int], groups: Sequence[Sequence[int]]) -> int:
    return sum(len(groups[number - 1]) for number in set(numbers))


def _normal(response: RLMResponse) -> str:
    """Write an answer so that equal ones are the same text, however they are spelled."""
    if response.data is not None:
        return json.dumps(_plain(response.data), sort_keys=True, ensure_ascii=False)
    text = " ".join((response.answer or "").split()).casefold()
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    return text.strip("\"'`*. ")
