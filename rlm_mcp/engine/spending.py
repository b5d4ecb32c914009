"""Limits of which little or nothing is left, or that cannot be kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlm_mcp.errors import BudgetExceededError, ConfigurationError
from rlm_mcp.text import dollars


@dataclass(frozen=True)
class Scarce:
    """A limit of which little is left."""

    limit: str
    used: float
    of: float

    def __str__(self) -> str:
        if self.limit == "usd":
            return f"{dollars(self.used)} of {dollars(self.of)}"
        return f"{self.used:.0f} of {self.of:g} {self.limit.replace('_', '-')}"


def spelled(limit: str) -> str:
    """Write the name of a limit in words."""
    return {"usd": "USD", "sub_calls": "sub-calls"}.get(limit, limit)


def exceeded(limit: str, why: str) -> BudgetExceededError:
    """Return the error for a limit that has no room for a call."""
    return BudgetExceededError(
        f"The budget of {spelled(limit)} is used up: {why}.",
        limit=limit,
        fix="Answer from what is known, or give the run a larger budget.",
    )


def would_use(limit: str, used: float, of: float) -> BudgetExceededError:
    """Return the error for a call for which there is too little left of USD or tokens."""
    write = dollars if limit == "usd" else "{:,.0f}".format
    return exceeded(limit, f"{write(used)} of {write(of)} would be used")


def no_price(max_usd: float, models: Sequence[str]) -> ConfigurationError:
    """Return the error for a limit in USD where the price of some models is not known."""
    quoted = " and ".join(repr(name) for name in models if name) or "the model"
    return ConfigurationError(
        f"max_usd={max_usd!r} cannot be kept: the price of {quoted} is not known.",
        fix="Leave max_usd out, or set max_tokens instead. The operator can set "
        "cost_per_input_token and cost_per_output_token, or the prices of the model's table.",
    )
