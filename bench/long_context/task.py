"""A question over a text of a given size, and how its answer is scored. Standard library only."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

Score = Callable[[str], float]
NOT_IN_TEXT = "not in the text"

_WORDS = """
the quick river stone cloud market paper window signal garden number system travel winter copper
bridge letter morning a slow lantern of near harbour under and with old ferry turns before glass
"""
_TOWNS = """
Aarburg Belmont Cortina Dalhem Esbjerg Faro Gander Halden Ischia Jaca Kotor Lugano Malmo Narvik Orta
Plauen Quimper Ronda Segovia Tartu Uzes Vigo Worms Xanten Ystad Zadar
"""
_FIRST = """
Adele Bruno Celia Dario Edith Felix Greta Hanno Irina Jonas Karin Leon Mira Nadia Oskar Paula Rosa
Stefan Tilda Viktor
"""
_LAST = """
Abend Brandt Conti Duarte Eklund Ferrer Gruber Holm Iversen Jansky Keller Lindqvist Moreau Novak
Olsen Petrov Quist Rossi Sandoval Thorne Urban Vidal Weiss Yilmaz Zeman
"""
WORDS, TOWNS, FIRST, LAST = _WORDS.split(), _TOWNS.split(), _FIRST.split(), _LAST.split()


@dataclass(frozen=True)
class Task:
    """One question; `gold` is the right answer as people would write it, `size` a power of two."""

    family: str
    size: int
    seed: int
    question: str
    context: str | list[str]
    gold: str
    score: Score

    @property
    def name(self) -> str:
        """What tells it from all others."""
        return f"{self.family}.{self.size}.{self.seed}"


class Filler:
    """Sentences that say nothing, from a stock, so that large texts are made fast."""

    def __init__(self, random_: random.Random) -> None:
        self._random = random_
        self._stock = [self._sentence() for _ in range(3_000)]

    def lines(self, chars: int) -> list[str]:
        """Make lines of about so many characters in all, and not more."""
        made: list[str] = []
        left = chars
        while left > 0:
            made.append(self._random.choice(self._stock))
            left -= len(made[-1]) + 1
        return made[:-1] or made

    def _sentence(self) -> str:
        words = self._random.choices(WORDS, k=self._random.randint(8, 24))
        return " ".join(words).capitalize() + "."


def scatter(random_: random.Random, lines: list[str], facts: Sequence[str]) -> list[str]:
    """Put facts between lines, in their order, at places drawn at random."""
    places = sorted(random_.randint(0, len(lines)) for _ in facts)
    mixed: list[str] = []
    start = 0
    for place, fact in zip(places, facts, strict=True):
        mixed += [*lines[start:place], fact]
        start = place
    return mixed + lines[start:]


def is_number(gold: int) -> Score:
    """Score an answer whose only number must be the right one."""

    def score(answer: str) -> float:
        found = re.findall(r"\d+(?:\.\d+)?", re.sub(r"(?<=\d),(?=\d{3})", "", answer))
        return float(bool(found) and all(float(each) == gold for each in found))

    return score


def is_choice(gold: str, choices: Iterable[str]) -> Score:
    """Score an answer that must name the right one of the choices, and no other."""
    others = [choice.lower() for choice in choices if choice != gold]

    def score(answer: str) -> float:
        said = answer.lower()
        return float(_names(said, gold.lower()) and not any(_names(said, one) for one in others))

    return score


def is_set(gold: Iterable[str], pattern: str) -> Score:
    """Score by F1 of what `pattern` finds in an answer; the same in each case is 1."""
    wanted = {each.lower() for each in gold}

    def score(answer: str) -> float:
        found = {each.lower() for each in re.findall(pattern, answer)}
        if found == wanted:
            return 1.0
        right = len(found & wanted)
        return 2 * right / (len(found) + len(wanted))

    return score


def is_text(gold: str) -> Score:
    """Score an answer that must be a text, white space and quotes around it left out."""
    wanted = " ".join(gold.split())
    return lambda answer: float(" ".join(answer.split()).strip("`'\" ") == wanted.strip("`'\" "))


def is_absent() -> Score:
    """Score an answer that must say that the text does not say it."""
    return lambda answer: float(NOT_IN_TEXT in answer.lower() and not re.search(r"\d", answer))


def _names(text: str, name: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) is not None
