"""How far a run is, and what it needs to go on. Loads nothing else of the service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rlm_mcp.service.runs.questions import BUDGET_FIELDS

if TYPE_CHECKING:
    from rlm_mcp.store.runs.records import RunRecord

ANSWER_NAME = "FINAL"
_NEXT_LIMIT = 2  # a limit that is used up is proposed anew, this many times as large


def progress_line(run: RunRecord) -> str:
    """Say turn, calls of those allowed, cost and time: `turn 3 · 12/40 calls · $0.04 · 31 s`.

    Of a run that has not begun, how many begin before it: `waiting, 3 ahead`.
    """
    if run.queue_position is not None:
        return f"waiting, {run.queue_position - 1} ahead"
    figures = run.figures
    calls = f"{figures.sub_calls}/{run.config.get('max_sub_calls', '?')} calls"
    parts = [f"turn {figures.iterations}", calls]
    if figures.cost_usd is not None:
        parts.append(f"${figures.cost_usd:.2f}")
    parts.append(f"{run.elapsed_seconds:.0f} s")
    return " · ".join(parts)


def more_room(record: RunRecord) -> dict[str, Any]:
    """Propose a larger budget for a run that is exhausted: twice each limit that it reached."""
    used = used_of(asdict(record.figures), record.elapsed_seconds)
    config = record.config
    limits = {name: config.get(field) for name, field in BUDGET_FIELDS.items() if name in used}
    reached = {name: limit for name, limit in limits.items() if limit and used[name] >= limit * 0.8}
    return {name: limit * _NEXT_LIMIT for name, limit in reached.items()}


def used_of(figures: Mapping[str, Any], elapsed_seconds: float) -> dict[str, float]:
    """What a run has used of each limit, by the names of the tool's budget."""
    return {
        "max_usd": figures["cost_usd"] or 0.0,
        "max_tokens": figures["input_tokens"] + figures["output_tokens"],
        "max_seconds": elapsed_seconds,
        "max_sub_calls": figures["sub_calls"],
        "max_iterations": figures["iterations"],
    }
