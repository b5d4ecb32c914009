"""A question over a long text, and how strictly its answer is checked. Standard library only."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

Check = Callable[[str], bool]

_WORDS = """
the quick brown fox jumps over lazy dog river stone cloud market paper window signal garden number
system travel winter copper bridge letter morning
"""
_NAMES = """
Adele Bruno Celia Dario Edith Felix Greta Hanno Irina Jonas Karin Leon Mira Nadia Oskar Paula Rosa
Stefan Tilda Viktor
"""
_TOWNS = """
Aarburg Belmont Cortina Dalhem Esbjerg Faro Gander Halden Ischia Jaca Kotor Lugano Malmo Narvik Orta
Plauen
"""
WORDS, NAMES, TOWNS = _WORDS.split(), _NAMES.split(), _TOWNS.split()


@dataclass(frozen=True)
class Task:
    """One question; `gold` is the right answer as people would write it."""

    question: str
    context: str | list[str]
    gold: str
    check: Check


def sentence(random_: random.Random, words: int = 18) -> str:
    """Make a sentence that says nothing."""
    return " ".join(random_.choice(WORDS) for _ in range(words)).capitalize() + "."


def filler(random_: random.Random, chars: int, words: int = 18) -> list[str]:
    """Make lines that say nothing, about `chars` characters of them."""
    lines: list[str] = []
    size = 0
    while size < chars:
        lines.append(sentence(random_, words))
        size += len(lines[-1]) + 1
    return lines


def hide(random_: random.Random, lines: list[str], *facts: str) -> str:
    """Put facts at places of their own into lines, and join all."""
    for fact in facts:
        lines.insert(random_.randint(len(lines) // 10, len(lines)), fact)
    return "\n".join(lines)


def day(random_: random.Random, month: int = 3) -> str:
    """Make a date of 2026."""
    return f"2026-{month:02d}-{random_.randint(1, 28):02d}"


def is_number(gold: float) -> Check:
    """Check for an answer whose only number is the right one."""

    def check(answer: str) -> bool:
        found = re.findall(r"\d+(?:\.\d+)?", re.sub(r"(?<=\d),(?=\d{3})", "", answer))
        return bool(found) and all(float(each) == gold for each in found)

    return check


def is_name(gold: str, pool: Iterable[str]) -> Check:
    """Check for an answer that holds the right one of the names, and no other."""
    others = [name.lower() for name in pool if name != gold]

    def check(answer: str) -> bool:
        words = set(re.findall(r"[\w.@-]+", answer.lower()))
        words |= {word.strip(".-") for word in words}
        return gold.lower() in words and words.isdisjoint(others)

    return check


def is_set(gold: Iterable[str], pattern: str) -> Check:
    """Check for an answer in which `pattern` finds the right ones, all of them and no other."""
    wanted = {each.lower() for each in gold}
    return lambda answer: {each.lower() for each in re.findall(pattern, answer)} == wanted


def holds(gold: str) -> Check:
    """Check for an answer that holds a text, whatever the case, and is not much longer."""
    return lambda answer: gold.lower() in answer.lower() and len(answer) < len(gold) + 80
