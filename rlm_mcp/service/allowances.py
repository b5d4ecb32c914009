"""What each caller may use today: one allowance for all its runs in this process."""

from __future__ import annotations

from rlm_mcp.engine.daily_limits import Allowance, DailyLimits, Spent, today
from rlm_mcp.store.runs.runs import Runs


class Allowances:
    """Keeps the allowances of callers that have limits a day."""

    def __init__(self, limits: DailyLimits) -> None:
        self._limits = limits
        self._known: dict[str, Allowance] = {}

    async def of(self, runs: Runs) -> Allowance | None:
        """Return the allowance of the caller of these runs, as the store has it now.

        What is stored is what all servers over this database have spent; calls under way are added
        while they end.
        """
        caller = runs.caller
        limits = self._limits.limits_of(caller) if caller else {}
        if not limits:
            return None
        allowance = self._known.setdefault(caller, Allowance(caller, limits))
        day = today()
        count, tokens, usd = await runs.used_since(day)
        before = allowance.spent if allowance.spent.day == day else Spent(day)
        # What ended or began a moment ago may not be stored yet.
        runs_begun = max(count, before.runs)
        allowance.spent = Spent(day, max(usd, before.usd), max(tokens, before.tokens), runs_begun)
        return allowance
