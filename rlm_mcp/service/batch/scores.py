"""How an answer is compared with the expected one: each score is between 0 and 1. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
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


def regex(answer: str, expected: str) -> float:
    """The expected pattern is found in the answer; an invalid pattern is never found."""
    try:
        return float(re.search(expected, answer) is not None)
    except (re.error, OverflowError, RecursionError):
        return 0.0


def f1(answer: str, expected: str) -> float:
    """The F1 measure of the words that both have."""
    given, wanted = Counter(_words(answer)), Counter(_words(expected))
    both = sum((given & wanted).values())
    return 2 * both / (given.total() + wanted.total()) if both else 0.0


# A model compares the two.
JUDGE = "judge"
SCORES: Mapping[str, Callable[[str, str], float]] = {
    "contains": contains,
    "exact": exact,
    "number": number,
    "regex": regex,
    "f1": f1,
}
SCORE_NAMES = (*SCORES, JUDGE)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _numbers(text: str) -> list[float]:
    return [float(one.replace(",", "")) for one in _NUMBER.findall(text)]
