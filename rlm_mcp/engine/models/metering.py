"""What a call to a model takes: its times, its tokens, and its cost.

The cost is what the provider says, else it is computed from prices and counted tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce

from rlm_mcp.engine.config import RLMConfig
from rlm_mcp.engine.models.chat import CallTiming, ChatReply, ChatRequest
from rlm_mcp.values import CostIs, ModelUsage

CHARS_PER_TOKEN = 4


def estimate_tokens(width: int) -> int:
    """Guess tokens from the width of a text (`text.width`): four characters of English are one."""
    return -(-width // CHARS_PER_TOKEN)


def with_estimate(reply: ChatReply, request: ChatRequest) -> ChatReply:
    """Return a reply with the tokens of its prompt by script, if its provider did not count them.

    Who reads a reply knows how many characters its prompt had, and no more.
    """
    if not reply.usage_estimated or reply.input_tokens != estimate_tokens(request.chars):
        return reply
    return replace(reply, input_tokens=estimate_tokens(request.width))


class Stopwatch:
    """Started when a call is made; notes each request that is sent for it."""

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
    """USD per token.

    Args:
        input: of the prompt.
        output: of the reply.
        cached_input: of prompt tokens out of the provider's cache; None: as `input`.
        cache_write: of prompt tokens that the provider puts into its cache; None: as `input`.
        above: other prices for prompts of more tokens than so many, the longest last.
    """

    input: float = 0.0
    output: float = 0.0
    cached_input: float | None = None
    cache_write: float | None = None
    above: tuple[tuple[int, Price], ...] = ()

    def cost(self, given: int, made: int, cached: int = 0, written: int = 0) -> float:
        """Price tokens, in USD; those `cached` and `written` to a cache are among those `given`."""
        for start, price in reversed(self.above):
            if given > start:
                return price.cost(given, made, cached, written)
        of_cached = self.input if self.cached_input is None else self.cached_input
        of_written = self.input if self.cache_write is None else self.cache_write
        fresh = given - cached - written
        return fresh * self.input + cached * of_cached + written * of_written + made * self.output

    def or_more(self, other: Price) -> Price:
        """Return the higher of two prices, for what may be asked of either."""
        return Price(
            max(self.input, self.cache_write or 0.0, other.input, other.cache_write or 0.0),
            max(self.output, other.output),
        )


@dataclass(frozen=True)
class PriceList:
    """Prices of models by name.

    Args:
        own: those that the operator set.
        known: those of a kept table, for models that have no other.
        fallbacks: by name, the model that answers where one fails.
        telling: models whose provider says what each call cost.
    """

    own: Mapping[str, Price] = field(default_factory=dict[str, Price])
    known: Mapping[str, Price] = field(default_factory=dict[str, Price])
    fallbacks: Mapping[str, str] = field(default_factory=dict[str, str])
    telling: frozenset[str] = frozenset()

    def may_answer(self, name: str) -> tuple[str, ...]:
        """Name the models that may answer where one is asked: itself, and its fallbacks."""
        names = [name]
        while (other := self.fallbacks.get(names[-1])) and other not in names:
            names.append(other)
        return tuple(names)


def dearest(prices: Iterable[Price | None]) -> Price | None:
    """Return the highest of the prices that are known, if any is."""
    known = [price for price in prices if price is not None]
    return reduce(Price.or_more, known) if known else None


def usual_price(config: RLMConfig) -> Price | None:
    """Return the price that the operator set for models without their own, if any."""
    usual = Price(config.cost_per_input_token, config.cost_per_output_token)
    return usual if usual.input or usual.output else None


class Amount:
    """Tokens in and out, what they cost, and how many calls of unknown cost are among them."""

    __slots__ = ("given", "made", "unpriced", "usd")

    def __init__(
        self, given: int = 0, made: int = 0, usd: float = 0.0, *, unpriced: int = 0
    ) -> None:
        self.given = given
        self.made = made
        self.usd = usd
        self.unpriced = unpriced

    @classmethod
    def of(cls, price: Price | None, given: int, made: int) -> Amount:
        """Price tokens of one call."""
        if price is None:
            return cls(given, made, unpriced=1)
        return cls(given, made, price.cost(given, made))

    @property
    def total(self) -> int:
        """Tokens in and out."""
        return self.given + self.made

    def plus(self, other: Amount) -> Amount:
        """Add another amount."""
        return Amount(
            self.given + other.given,
            self.made + other.made,
            self.usd + other.usd,
            unpriced=self.unpriced + other.unpriced,
        )

    def minus(self, other: Amount) -> Amount:
        """Take another amount away."""
        return Amount(
            self.given - other.given,
            self.made - other.made,
            self.usd - other.usd,
            unpriced=self.unpriced - other.unpriced,
        )


class Ledger:
    """Adds up what calls used and cost, by model.

    Args:
        prices: of models that have their own.
        otherwise: price of models that the operator gave none, where there is one.
        spent: what an earlier part of the run has used.
        models: names of those that the run may ask.
    """

    def __init__(
        self,
        prices: PriceList,
        otherwise: Price | None,
        spent: Sequence[ModelUsage] = (),
        models: Sequence[str] = (),
    ) -> None:
        self._prices = prices
        self._otherwise = otherwise
        self._rows = {row.model: row for row in spent}
        self._models = models
        self._plans: dict[str, Price | None] = {}

    @property
    def rows(self) -> tuple[ModelUsage, ...]:
        """What each model was used for."""
        return tuple(self._rows.values())

    def price_of(self, model: str) -> Price | None:
        """Return the price of a model, if it is known."""
        return self._prices.own.get(model) or self._otherwise or self._prices.known.get(model)

    def is_cost_known(self, model: str) -> bool:
        """Whether each call of a model has a cost, whichever model answers in its place."""
        names = self._prices.may_answer(model)
        return all(self.price_of(one) or one in self._prices.telling for one in names)

    def planned(self, model: str) -> Price | None:
        """Return the highest price that a call of a model may have; None where none is known.

        A model whose provider alone knows its price is planned with what its calls have cost, and
        one without a price as the dearest of the run's that has one, so that a limit holds.
        """
        if model not in self._plans:
            self._plans[model] = self._plan(model)
        return self._plans[model]

    def _plan(self, model: str) -> Price | None:
        price = dearest(map(self._expected, self._prices.may_answer(model)))
        if price is None and not self.is_cost_known(model):
            asked = dict.fromkeys(
                name for one in self._models for name in self._prices.may_answer(one)
            )
            return dearest(map(self._expected, asked))
        return price

    def _expected(self, model: str) -> Price | None:
        price, row = self.price_of(model), self._rows.get(model)
        if price is not None or row is None or not row.cost_usd:
            return price
        each = row.cost_usd / max(1, row.input_tokens + row.output_tokens)
        return Price(each, each)

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
            self._plans.clear()  # they may rest on what calls have cost
            return reply.told_usd, "told"
        price = self.price_of(reply.model)
        if price is None:
            return None, None
        usd = price.cost(
            reply.input_tokens,
            reply.output_tokens,
            reply.cached_input_tokens,
            reply.cache_written_tokens,
        )
        return usd, "estimated" if reply.usage_estimated else "computed"
