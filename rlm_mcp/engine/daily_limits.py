"""What one caller may use a day, over all its runs together."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from pydantic import BaseModel, Field, field_validator

from rlm_mcp.errors import BudgetExceededError
from rlm_mcp.text import dollars

EVERYBODY = "*"
_FORM = (
    "Give name=number,name=number, or one number for everybody; `*` stands for all other callers"
)


class DailyLimits(BaseModel):
    """Limits a day of each caller over HTTP, by name."""

    daily_usd: dict[str, float] | None = Field(
        default=None, description=f"USD that each caller over HTTP may spend a day. {_FORM}."
    )
    daily_tokens: dict[str, float] | None = Field(
        default=None,
        description="Tokens in and out that each caller may use a day; written like daily_usd.",
    )
    daily_runs: dict[str, float] | None = Field(
        default=None, description="Runs that each caller may begin a day; written like daily_usd."
    )

    @field_validator("daily_usd", "daily_tokens", "daily_runs", mode="before")
    @classmethod
    def _read(cls, value: object) -> object:
        if isinstance(value, str):
            pairs = [part.strip().rpartition("=") for part in value.split(",") if part.strip()]
            return {name.strip() or EVERYBODY: number.strip() for name, _, number in pairs}
        return {EVERYBODY: value} if isinstance(value, (int, float)) else value

    @field_validator("daily_usd", "daily_tokens", "daily_runs", mode="after")
    @classmethod
    def _check(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        if value and not all(0 <= number < float("inf") for number in value.values()):
            raise ValueError("a limit is at least 0")
        return value

    def limits_of(self, caller: str) -> dict[str, float]:
        """Return a caller's limits in `usd`, `tokens` and `runs`, those that are set."""
        tables = {"usd": self.daily_usd, "tokens": self.daily_tokens, "runs": self.daily_runs}
        found = {
            name: table.get(caller, table.get(EVERYBODY)) for name, table in tables.items() if table
        }
        return {name: limit for name, limit in found.items() if limit is not None}


@dataclass
class Spent:
    """What a caller has used on one day, in UTC."""

    day: str
    usd: float = 0.0
    tokens: float = 0
    runs: float = 0


def today() -> str:
    """Name the present day in UTC, as times of the store begin."""
    return datetime.now(UTC).date().isoformat()


class Allowance:
    """What a caller may still use today; shared by all its runs in this process."""

    def __init__(self, caller: str, limits: Mapping[str, float]) -> None:
        self._caller = caller
        self._limits = limits
        self.spent = Spent(today())

    def charge(self, tokens: int, usd: float) -> None:
        """Add what a call used."""
        self._begin_day()
        self.spent.tokens += tokens
        self.spent.usd += usd

    def learn(self, spent: Spent) -> None:
        """Take note of what was used as somebody else counted it, where that is more."""
        self._begin_day()
        mine = self.spent
        if spent.day == mine.day:
            most = max(spent.usd, mine.usd), max(spent.tokens, mine.tokens)
            self.spent = Spent(mine.day, *most, max(spent.runs, mine.runs))

    def refuse_spent(self, *names: str) -> None:
        """Refuse more where a limit is used up.

        Raises:
            BudgetExceededError: one is; the error says which, and when it resets.
        """
        self._begin_day()
        for name in names:
            limit, used = self._limits.get(name), getattr(self.spent, name)
            if limit is not None and used >= limit:
                figures = f"{used:,.9g} of {limit:,.9g} {name}"
                if name == "usd":
                    figures = f"{dollars(used)} of {dollars(limit)}"
                raise BudgetExceededError(
                    f"The daily limit of {self._caller!r} is used up: {figures} on "
                    f"{self.spent.day} (UTC).",
                    limit=f"daily_{name}",
                    fix=f"It resets at {self._starts_anew()}.",
                )

    def begin_run(self) -> None:
        """Count a run that begins now: of several at the same time, each sees the others.

        Raises:
            BudgetExceededError: there are too many already.
        """
        self.refuse_spent("runs")
        self.spent.runs += 1

    def give_back_run(self) -> None:
        """Take note that a run which was counted did not begin."""
        self.spent.runs = max(0, self.spent.runs - 1)

    def as_json(self) -> dict[str, Any]:
        """Return limits, what of them is spent, and when they reset."""
        self._begin_day()
        rows = {
            name: {"limit": limit, "spent": round(cast("float", getattr(self.spent, name)), 6)}
            for name, limit in self._limits.items()
        }
        return {**rows, "starts_anew": self._starts_anew()}

    def _begin_day(self) -> None:
        if self.spent.day != today():
            self.spent = Spent(today())

    def _starts_anew(self) -> str:
        day = datetime.fromisoformat(self.spent.day).replace(tzinfo=UTC)
        return (day + timedelta(days=1)).isoformat()


@contextmanager
def one_run(allowance: Allowance | None) -> Generator[None]:
    """Count a run that begins in the block, unless that fails.

    Raises:
        BudgetExceededError: the caller began as many today as it may.
    """
    if allowance is None:
        yield
        return
    allowance.begin_run()
    try:
        yield
    except BaseException:
        allowance.give_back_run()
        raise
