"""All tasks, in four parts.

`named` are the four that others were measured with. Of the rest, `tuning` are those that the
`small_context` variant was tried on while it was made, `held_out` those that nobody looked at until
it was done: how the variant does on work it was not made for. The halves were drawn by
`random.Random(2026).sample(sorted(names), 11)`, before the first run. By now all of these were
looked at; `fresh` was made later, and is played once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import finding
import fresh
import named
import reading
import reckoning
from task import Task

Generator = Callable[[int], Task]

PARTS: Mapping[str, tuple[Generator, ...]] = {
    "named": (named.needle, named.count, named.docs, named.classify),
    "tuning": (
        reckoning.compare_docs,
        finding.ini_value,
        finding.join_facts,
        finding.json_lines,
        reckoning.latest_date,
        reckoning.longest_line,
        reckoning.most_frequent,
        finding.neighbour,
        finding.section_title,
        reading.topics,
        reckoning.unique_values,
    ),
    "held_out": (
        finding.absence,
        finding.code_symbol,
        reckoning.column_sum,
        reckoning.csv_filter,
        reckoning.duplicate,
        finding.extract_list,
        finding.paraphrase,
        reading.request,
        reckoning.slowest,
        reckoning.speaker,
        finding.two_hop,
    ),
    "fresh": (
        fresh.heavy_crates,
        fresh.noisy_nights,
        fresh.outdoors,
        fresh.author,
        fresh.opening_year,
        fresh.unpaid,
        fresh.warmest,
        fresh.litres,
        fresh.is_named,
        fresh.signatures,
    ),
}
