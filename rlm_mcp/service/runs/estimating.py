"""What a question would cost, before any model is asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from rlm_mcp.engine.budget import Budget
from rlm_mcp.engine.config import RLMConfig
from rlm_mcp.engine.models.metering import Ledger, usual_price
from rlm_mcp.engine.models.named import Models
from rlm_mcp.engine.pricing import Pricing
from rlm_mcp.service.runs.questions import BUDGET_FIELDS, Question
from rlm_mcp.store.contexts.contexts import Contexts
from rlm_mcp.store.runs.past import PastRun
from rlm_mcp.store.runs.runs import Runs
from rlm_mcp.text import estimated_tokens

ANSWER_TOKENS = 500  # of the reply to one direct call


@dataclass(frozen=True)
class DirectCall:
    """One call of the root model with all the texts in its prompt.

    `cost_usd` is None where no price is known, `context_tokens` where the window is not; `fits` is
    then None as well.
    """

    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    context_tokens: int | None
    fits: bool | None


@dataclass(frozen=True)
class RecordedRuns:
    """Medians of the completed runs of the same models over texts of about the same size.

    Each is None where there is no such run, and the cost where none of them has a known one.
    """

    runs: int
    cost_usd: float | None
    tokens: float | None
    seconds: float | None


@dataclass(frozen=True)
class Estimate:
    """What a question would cost; `limits` are those of its budget, by the tool's names."""

    root_model: str
    sub_model: str
    characters: int
    direct_call: DirectCall
    recorded: RecordedRuns
    limits: Mapping[str, Any]


@dataclass(frozen=True)
class Estimator:
    """Estimates questions of one caller from what is stored; asks no model."""

    texts: Contexts
    runs: Runs
    models: Models

    async def estimate(self, question: Question, config: RLMConfig, pricing: Pricing) -> Estimate:
        """Estimate one question.

        Raises:
            NotFoundError: there is no such text or run.
            ConfigurationError: a limit in USD has no prices.
        """
        Budget(config, pricing=pricing)  # refuses limits that cannot be kept
        chars, tokens = await self._size(question)
        names = (pricing.root, pricing.sub)
        return Estimate(
            *names,
            chars,
            await self._direct_call(tokens, Ledger(pricing.prices, usual_price(config)), names[0]),
            _medians(await self.runs.past(chars, names)),
            {name: getattr(config, field) for name, field in BUDGET_FIELDS.items()},
        )

    async def _size(self, question: Question) -> tuple[int, int]:
        """Return the characters of the texts, and the tokens of texts and question together."""
        handles = list(question.contexts)
        if question.continue_run:
            handles += (await self.runs.get(question.continue_run)).contexts
        records = [await self.texts.get(handle) for handle in dict.fromkeys(handles)]
        chars, tokens = len(question.inline_text), _tokens_of(question.inline_text)
        tokens += sum(record.estimated_tokens for record in records)
        chars += sum(record.chars for record in records)
        return chars, tokens + _tokens_of(question.text)

    async def _direct_call(self, tokens: int, ledger: Ledger, model: str) -> DirectCall:
        price, window = ledger.price_of(model), await self.models.window(model)
        return DirectCall(
            tokens,
            ANSWER_TOKENS,
            None if price is None else price.cost(tokens, ANSWER_TOKENS),
            window,
            None if window is None else tokens + ANSWER_TOKENS <= window,
        )


def _tokens_of(text: str) -> int:
    size = len(text.encode("utf-8", "surrogatepass"))
    return estimated_tokens(len(text), size) if text else 0


def _medians(found: Sequence[PastRun]) -> RecordedRuns:
    return RecordedRuns(
        len(found),
        _median(run.cost_usd for run in found),
        _median(run.tokens for run in found),
        _median(run.seconds for run in found),
    )


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
