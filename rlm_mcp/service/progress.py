"""How far a run is, in one line."""

from __future__ import annotations

from rlm_mcp.store.run_records import RunRecord


def progress_line(run: RunRecord) -> str:
    """Say turn, calls of those allowed, cost and time: `turn 3 · 12/40 calls · $0.04 · 31 s`.

    Of one that has not begun, how many get their place before it: `waiting, 3 ahead`.
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
