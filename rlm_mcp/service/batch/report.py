"""What came of a batch: how many answers, their score, cost and time. Pure."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

_Z = 1.96  # of an interval that holds the true share in 95 of 100 cases


def report(results: Sequence[Mapping[str, Any]], unasked: int = 0) -> dict[str, Any]:
    """Sum up the results of a batch.

    Args:
        results: as `Batch` yields them.
        unasked: questions that were not asked, as the money was spent.
    """
    scores = [one["score"] for one in results if one["score"] is not None]
    costs = [one["cost_usd"] for one in results if one["cost_usd"] is not None]
    seconds = sorted(one["seconds"] for one in results if one["run_id"] is not None)
    mean = statistics.fmean(scores) if scores else None
    return {
        "questions": len(results) + unasked,
        "unasked": unasked,
        "by_status": dict(Counter(one["status"] for one in results)),
        "score": mean,
        "score_interval": None if mean is None else wilson_interval(mean, len(scores)),
        "scored": len(scores),
        "cost_usd": math.fsum(costs) if costs else None,
        "input_tokens": sum(one["input_tokens"] for one in results),
        "output_tokens": sum(one["output_tokens"] for one in results),
        "seconds_p50": _quantile(seconds, 0.5),
        "seconds_p95": _quantile(seconds, 0.95),
    }


def wilson_interval(share: float, count: int) -> list[float]:
    """Return the 95 % interval of a share (Wilson, JASA 22 (1927), 209-212)."""
    spread = _Z * _Z / count
    middle = (share + spread / 2) / (1 + spread)
    half = _Z * math.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    return [round(max(0.0, middle - half), 4), round(min(1.0, middle + half), 4)]


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None
