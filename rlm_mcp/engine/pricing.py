"""What the models of a run cost, and what their caller may still use of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rlm_mcp.engine.daily_limits import Allowance
from rlm_mcp.engine.models.metering import PriceList


@dataclass(frozen=True)
class Pricing:
    """What the models of a run cost.

    Args:
        prices: by name.
        root: name of the model that writes the code.
        sub: name of the model that is asked where none is named.
        others: names of further models that may be asked.
        allowance: what their caller may use today, where that is limited.
    """

    prices: PriceList = field(default_factory=PriceList)
    root: str = ""
    sub: str = ""
    others: Sequence[str] = ()
    allowance: Allowance | None = None
