"""Families that code can answer: variables that are assigned to each other, and frequent words."""

from __future__ import annotations

import random
from collections import Counter

from task import Filler, Task, is_set, scatter

_CONSONANTS, _VOWELS = "bcdfghjklmnprstvz", "aeiou"


def variables(size: int, seed: int) -> Task:
    """Which variables hold a value that was handed on from one to the next."""
    random_ = random.Random(f"variables {size} {seed}")
    names = [f"V{number:05d}" for number in random_.sample(range(100_000), 2**size // 120)]
    values = random_.sample(range(10_000, 99_999), len(names))
    chains: list[list[str]] = []
    hops = size - 8
    while len(names) > hops:
        chains.append([names.pop() for _ in range(hops)])
    assigned = [(position, number) for number, one in enumerate(chains) for position in _at(one)]
    random_.shuffle(assigned)
    given = [0] * len(chains)
    facts: list[str] = []
    for _, number in assigned:  # each chain in its order, all of them mixed
        position, given[number] = given[number], given[number] + 1
        chain = chains[number]
        value = f"{values[number]}" if position == 0 else f"VAR {chain[position - 1]}"
        facts.append(f"Let VAR {chain[position]} = {value}.")
    lines = Filler(random_).lines(2**size - sum(len(fact) + 1 for fact in facts))
    text = "\n".join(scatter(random_, lines, facts))
    asked = random_.randrange(len(chains))
    question = (
        f"Which variables hold the value {values[asked]} in the end, by assignments such as "
        "'Let VAR V00001 = VAR V00002.'? Answer with all their names, separated by commas."
    )
    gold = sorted(chains[asked])
    return Task("variables", size, seed, question, text, ", ".join(gold), is_set(gold, r"V\d{5}"))


def frequency(size: int, seed: int) -> Task:
    """The three most frequent of many made-up words."""
    random_ = random.Random(f"frequency {size} {seed}")
    words = list(dict.fromkeys(_word(random_) for _ in range(600)))
    weights = [1 / (rank + 3) for rank in range(len(words))]
    chosen = random_.choices(words, weights, k=2**size // 7 - 20)
    counted = Counter(chosen)
    while not _are_three_ahead(counted):
        leader = counted.most_common(3)[-1][0]
        chosen += [leader, leader]
        counted = Counter(chosen)
    random_.shuffle(chosen)
    rows = [" ".join(chosen[start : start + 14]) for start in range(0, len(chosen), 14)]
    gold = [word for word, _ in counted.most_common(3)]
    question = (
        "The text is a list of made-up words. Which three words are the most frequent? Answer with "
        "the three words, separated by commas."
    )
    score = is_set(gold, r"(?<!\w)[a-z]{6}(?!\w)")
    return Task("frequency", size, seed, question, "\n".join(rows), ", ".join(gold), score)


def _at(chain: list[str]) -> range:
    return range(len(chain))


def _are_three_ahead(counted: Counter[str]) -> bool:
    third, fourth = [count for _, count in counted.most_common(4)][2:]
    return third > fourth


def _word(random_: random.Random) -> str:
    return "".join(random_.choice(_CONSONANTS) + random_.choice(_VOWELS) for _ in range(3))
