"""How an answer is compared with the expected one: each score is between 0 and 1. Pure."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping

# A minus after a digit or letter is a dash, as in 10-20, and a comma parts thousands or items.
_MINUS = r"(?:(?<!\w)-(?=\d))?"
_NUMBER = re.compile(rf"{_MINUS}(?:\d{{1,3}}(?:,\d{{3}})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][+-]?\d+)?")
_WORD = re.compile(rf"{_MINUS}\w+")
_TOLERANCE = 1e-6


def exact(answer: str, expected: str) -> float:
    """Equal, case and punctuation apart."""
    return float(_words(answer) == _words(expected))


def contains(answer: str, expected: str) -> float:
    """The expected words stand in the answer, in order."""
    return float(f" {' '.join(_words(expected))} " in f" {' '.join(_words(answer))} ")


def number(answer: str, expected: str) -> float:
    """A number of the answer equals the expected one."""
    wanted = _numbers(expected)[:1]
    return float(any(abs(one - wanted[0]) < _TOLERANCE for one in _numbers(answer) if wanted))


def f1(answer: str, expected: str) -> float:
    """The F1 measure of the words that both have."""
    given, wanted = Counter(_words(answer)), Counter(_words(expected))
    both = sum((given & wanted).values())
    return 2 * both / (given.total() + wanted.total()) if both else 0.0


# Neither is computed here: a pattern is looked for in a process that ends in time; a model judges.
REGEX, JUDGE = "regex", "judge"
SCORES: Mapping[str, Callable[[str, str], float]] = {
    "contains": contains,
    "exact": exact,
    "number": number,
    "f1": f1,
}
SCORE_NAMES = (*SCORES, REGEX, JUDGE)


def ordered_json(text: str) -> str:
    """Return JSON with its keys in order, so that two objects can be compared; else the text."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    is_nested = isinstance(value, dict | list)
    return json.dumps(value, ensure_ascii=False, sort_keys=True) if is_nested else text


def _words(text: str) -> list[str]:
    return _WORD.findall(_plain(text).casefold())


def _numbers(text: str) -> list[float]:
    return [float(one.replace(",", "")) for one in _NUMBER.findall(_plain(text))]


def _plain(text: str) -> str:
    """Write the minus sign of typesetting as that of a keyboard."""
    return text.replace("\u2212", "-")
