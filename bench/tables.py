"""Figures of interleaved repetitions, and the tables they become."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Samples:
    """Figures by name; each is given as the median of its repetitions."""

    _values: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, name: str, *values: float) -> None:
        """Keep what one repetition gave."""
        self._values[name] += values

    def median(self, name: str) -> float:
        """The middle of what was kept."""
        return statistics.median(self._values[name])

    def tenth(self, name: str) -> float:
        """What a tenth of the figures is below: undisturbed by what else the machine does."""
        values = sorted(self._values[name])
        return values[len(values) // 10]

    def spread(self, name: str) -> str:
        """The quarter below and the quarter above the median."""
        values = self._values[name]
        if len(values) < 2:
            return f"{values[0]:.1f}"
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
        return f"{low:.1f} to {high:.1f}"


@dataclass(frozen=True)
class Table:
    """A titled table; `note` says how it was measured."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str

    def __str__(self) -> str:
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        drawn = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return f"### {self.title}\n\n{drawn}\n\n{self.note}\n"
