"""Limits of which little or nothing is left."""

from __future__ import annotations

from dataclasses import dataclass

from rlm_mcp.errors import BudgetExceededError


@dataclass(frozen=True)
class Scarce:
    """A limit of which little is left."""

    limit: str
    used: float
    of: float

    def __str__(self) -> str:
        used = f"{self.used:.4f}" if self.limit == "usd" else f"{self.used:.0f}"
        return f"{used} of {self.of:g} {self.limit.replace('_', '-')}"


def exceeded(limit: str, why: str) -> BudgetExceededError:
    """Return the error for a limit that has no room for a call."""
    return BudgetExceededError(
        f"The budget of {limit} is used up: {why}.",
        limit=limit,
        fix="Answer from what is known, or give the run a larger budget.",
    )
