"""Families about one fact: alone, among look-alikes, and not there at all."""

from __future__ import annotations

import random

from task import NOT_IN_TEXT, TOWNS, Filler, Task, is_absent, is_number, scatter

MONTHS = "January February March April May June July August September October November December"
_ELSE = f" If the text does not say it, answer: {NOT_IN_TEXT}."


def needle(size: int, seed: int) -> Task:
    """One fact in a text that says nothing else."""
    random_ = random.Random(f"needle {size} {seed}")
    town, code = random_.choice(TOWNS), random_.randint(100_000, 999_999)
    lines = Filler(random_).lines(2**size - 100)
    text = "\n".join(
        scatter(random_, lines, [f"The access code of the vault in {town} is {code}."])
    )
    question = (
        f"What is the access code of the vault in {town}? Answer with the number alone.{_ELSE}"
    )
    return Task("needle", size, seed, question, text, str(code), is_number(code))


def look_alikes(size: int, seed: int) -> Task:
    """One fact among many that differ from it in the town, the day, or whether they held."""
    random_ = random.Random(f"look_alikes {size} {seed}")
    town, day = random_.choice(TOWNS), _day(random_)
    code = random_.randint(100_000, 999_999)
    text = _vaults(random_, size, (town, day), [_given(town, day, code)])
    question = _vault_question(town, day)
    return Task("look_alikes", size, seed, question, text, str(code), is_number(code))


def absent(size: int, seed: int) -> Task:
    """The same question, over a text that answers it for other towns and days alone."""
    random_ = random.Random(f"absent {size} {seed}")
    town, day = random_.choice(TOWNS), _day(random_)
    text = _vaults(random_, size, (town, day), [])
    question = _vault_question(town, day)
    return Task("absent", size, seed, question, text, NOT_IN_TEXT, is_absent())


def _vaults(random_: random.Random, size: int, asked: tuple[str, str], facts: list[str]) -> str:
    town, day = asked
    facts = [*facts, _refused(town, day, random_.randint(100_000, 999_999))]
    left = 2**size // 4
    while left > 0:
        where, when = random_.choice([town, *TOWNS]), random_.choice([day, _day(random_)])
        make = random_.choice([_given, _given, _refused])
        if (where, when) != asked:
            facts.append(make(where, when, random_.randint(100_000, 999_999)))
            left -= len(facts[-1])
    random_.shuffle(facts)
    lines = Filler(random_).lines(2**size - sum(len(fact) + 1 for fact in facts))
    return "\n".join(scatter(random_, lines, facts))


def _vault_question(town: str, day: str) -> str:
    return (
        f"Which access code was the vault in {town} given on {day}? A code that was refused was "
        f"not given. Answer with the number alone.{_ELSE}"
    )


def _given(town: str, day: str, code: int) -> str:
    return f"On {day} the vault in {town} was given the access code {code}."


def _refused(town: str, day: str, code: int) -> str:
    return (
        f"On {day} the vault in {town} was to be given the access code {code}, which was refused."
    )


def _day(random_: random.Random) -> str:
    return (
        f"{random_.randint(1, 28)} {random_.choice(MONTHS.split())} {random_.randint(1990, 2025)}"
    )
