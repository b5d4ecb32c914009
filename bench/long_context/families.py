"""All families by name, and how a task is made from its name."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from counting import frequency, variables
from documents import code, multi_hop
from needles import absent, look_alikes, needle
from records import aggregation, pairs
from task import Task

Family = Callable[[int, int], Task]
FAMILIES: dict[str, Family] = {
    make.__name__: make
    for make in (
        needle,
        look_alikes,
        absent,
        variables,
        frequency,
        aggregation,
        pairs,
        multi_hop,
        code,
    )
}
SIZES = range(13, 24)


@lru_cache(maxsize=2)
def make_task(family: str, size: int, seed: int) -> Task:
    """Make a task; the same name makes the same task, on the same Python."""
    return FAMILIES[family](size, seed)
