"""How much work the patterns of a schema can make at most: a bound, from their text. Pure.

`re` tries one way after the other, and while it does no other thread of its process runs. Most
patterns, such as `^\\d{4}-\\d\\d$`, have few ways; what is not understood here counts as endless.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from math import inf
from typing import Any, cast

_TOKEN = re.compile(
    r"(?P<atom>\\[^1-9]|\[\^?\]?(?:[^\]\\]|\\.)*\]|[^\\\[\](){}*+?|])"
    r"|(?P<open>\((?:\?:|\?P<\w+>|(?!\?)))|(?P<close>\))|(?P<bar>\|)|(?P<other>.)",
    re.DOTALL,
)
_REPEAT = re.compile(r"(?:(?P<any>[*+])|(?P<maybe>\?)|\{(?P<least>\d*)(?P<most>,\d*)?\})[?+]?")
_MOST_TIMES = 1_000


def most_steps(schema: Mapping[str, Any], chars: int) -> float:
    """Return at most how many steps the patterns of a schema take over an answer of that length.

    Infinite where nothing can be said.
    """
    return sum(_steps_of(pattern, max(chars, 1)) for pattern in _patterns(schema))


def _patterns(schema: object) -> Iterator[str]:
    if isinstance(schema, dict):
        fields = cast("dict[str, Any]", schema)
        if isinstance(fields.get("pattern"), str):
            yield fields["pattern"]
        if isinstance(fields.get("patternProperties"), dict):
            yield from fields["patternProperties"]
        for value in fields.values():
            yield from _patterns(value)
    elif isinstance(schema, list):
        for value in cast("Sequence[object]", schema):
            yield from _patterns(value)


def _steps_of(pattern: str, chars: int) -> float:
    """Multiply the ways of each part: those of a repetition, of a choice, and of where to begin."""
    is_anchored = pattern.startswith(("^", r"\A")) and "|" not in pattern
    steps: float = 1 if is_anchored else chars
    place, depth = 0, len(pattern)
    while place < len(pattern) and steps < inf:
        token = _TOKEN.match(pattern, place)
        if token is None or token["other"]:
            return inf
        repeat = _REPEAT.match(pattern, token.end())
        place = repeat.end() if repeat else token.end()
        steps *= 2 if token["bar"] else _ways(repeat, chars, is_group=bool(token["close"]))
        depth += min(chars, int(repeat["least"] or 0)) if repeat and repeat["least"] else 0
    return steps * depth


def _ways(repeat: re.Match[str] | None, chars: int, *, is_group: bool) -> float:
    """Return in how many ways an atom can be repeated; what repeats a whole group is endless."""
    if repeat is None:
        return 1
    if repeat["maybe"]:
        return 2
    if is_group:
        return inf
    if repeat["any"] or repeat["most"] == ",":
        return chars
    least = int(repeat["least"] or 0)
    most = int(repeat["most"][1:]) if repeat["most"] else least
    return min(chars, max(most - least, 0) + 1) if most <= _MOST_TIMES else inf
