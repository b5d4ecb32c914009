"""What a call to a model takes: its times, its tokens, and its cost.

The cost is what the provider says, else it is computed from prices and counted tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from rlm_mcp.engine.models.chat import CallTiming, ChatReply, ChatRequest
from rlm_mcp.values import CostIs, ModelUsage

CHARS_PER_TOKEN = 4


def estimate_tokens(chars: int) -> int:
    """Guess tokens from characters, four to one."""
    return -(-chars // CHARS_PER_TOKEN)


class Stopwatch:
    """Started when a call is made, and told of each request that is sent for it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began = clock()
        self._sent: float | None = None
        self._first: float | None = None
        self._requests = 0

    def watch(self, request: ChatRequest) -> ChatRequest:
        """Return the request so that its first piece is noted, where it is streamed."""
        on_delta = request.on_delta
        if on_delta is None:
            return request

        async def note(text: str) -> None:
            if text and self._first is None:
                self._first = self._clock()
            await on_delta(text)

        return replace(request, on_delta=note)

    def note_sending(self) -> None:
        """Note that a request is sent now."""
        self._requests += 1
        if self._sent is None:
            self._sent = self._clock()

    @property
    def timing(self) -> CallTiming:
        """The times so far."""
        now = self._clock()
        return CallTiming(
            seconds=now - self._began,
            queued_seconds=(now if self._sent is None else self._sent) - self._began,
            first_token_seconds=None if self._first is None else self._first - self._began,
            retries=max(0, self._requests - 1),
        )


_LEAST_CERTAIN: Sequence[CostIs] = ("told", "computed", "estimated")


@dataclass(frozen=True)
class Price:
    """USD per token; `cached_input` is that of tokens out of the provider's cache."""

    input: float = 0.0
    output: float = 0.0
    cached_input: float | None = None

    def cost(self, given: int, made: int, cached: int = 0) -> float:
        """Price tokens, in USD; `cached` are among those `given`."""
        of_cached = self.input if self.cached_input is None else self.cached_input
        return (given - cached) * self.input + cached * of_cached + made * self.output

    def or_more(self, other: Price) -> Price:
        """Return the higher of two prices, for what may be asked of either."""
        return Price(max(self.input, other.input), max(self.output, other.output))


class Ledger:
    """Adds up what calls used and cost, by model.

    Args:
        prices: by model.
        otherwise: price of the others, where there is one.
        spent: what an earlier part of the run has used.
    """

    def __init__(
        self,
        prices: Mapping[str, Price],
        otherwise: Price | None,
        spent: Sequence[ModelUsage] = (),
    ) -> None:
        self._prices = prices
        self._otherwise = otherwise
        self._rows = {row.model: row for row in spent}

    @property
    def rows(self) -> tuple[ModelUsage, ...]:
        """What each model was used for."""
        return tuple(self._rows.values())

    def price_of(self, model: str) -> Price | None:
        """Return the price of a model, if it is known."""
        return self._prices.get(model, self._otherwise)

    def add(self, reply: ChatReply) -> float | None:
        """Add a reply; returns its cost in USD, None where it is not known."""
        usd, is_ = self._cost(reply)
        row = self._rows.get(reply.model) or ModelUsage(reply.model, cost_usd=0.0, cost_is=is_)
        known = None if usd is None or row.cost_usd is None else row.cost_usd + usd
        certain = max(row.cost_is or is_ or "told", is_ or "told", key=_LEAST_CERTAIN.index)
        self._rows[reply.model] = replace(
            row,
            calls=row.calls + 1,
            input_tokens=row.input_tokens + reply.input_tokens,
            cached_input_tokens=row.cached_input_tokens + reply.cached_input_tokens,
            output_tokens=row.output_tokens + reply.output_tokens,
            cost_usd=known,
            cost_is=None if known is None else certain,
        )
        return usd

    def _cost(self, reply: ChatReply) -> tuple[float | None, CostIs | None]:
        if reply.told_usd is not None:
            return reply.told_usd, "told"
        price = self.price_of(reply.model)
        if price is None:
            return None, None
        usd = price.cost(reply.input_tokens, reply.output_tokens, reply.cached_input_tokens)
        return usd, "estimated" if reply.usage_estimated else "computed"
