"""One budget for the whole tree of a run, checked before every model call."""

from __future__ import annotations

import heapq
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio

from rlm_mcp.engine.config import RLMConfig
from rlm_mcp.engine.models.chat import ChatReply
from rlm_mcp.engine.models.metering import Amount, Ledger, estimate_tokens, usual_price
from rlm_mcp.engine.pricing import Pricing
from rlm_mcp.engine.spending import Scarce, exceeded, no_price, would_use
from rlm_mcp.errors import BudgetExceededError
from rlm_mcp.values import Usage

FIRST_GUESS_OUTPUT_TOKENS = 256
# Kept back for the last turn, which gives the answer: a share of the time limit up to so many
# seconds, and at most a share of a limit in tokens or USD.
LAST_TURN_TIME_SHARE = 0.15
LAST_TURN_SECONDS = 30.0
LAST_TURN_SPENDING_SHARE = 0.25
Settle = Callable[[ChatReply], "float | None"]  # returns the cost of the reply, where it is known
SCARCE_SHARE = 0.8  # of a limit; beyond it the model is told to finish


class Budget:
    """What a run may spend and has spent, its children included.

    A call's tokens are estimated and reserved before it is sent and replaced by the true figures
    afterwards. While the calls under way could use up a limit, were each of them as long as it may
    be, the next one waits for one of them to end: so a batch overshoots by one call at most.
    Sub-calls leave enough tokens for one more turn of the root: the answer itself.

    Args:
        config: the limits and the prices.
        clock: seconds, only ever forward.
        spent: what an earlier part of the same run has used up.
        spent_seconds: how long that part has worked.
        pricing: what the models cost.

    Raises:
        ConfigurationError: a limit in USD without a price per token.
    """

    def __init__(
        self,
        config: RLMConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
        spent: Usage | None = None,
        spent_seconds: float = 0.0,
        pricing: Pricing | None = None,
    ) -> None:
        spent = spent or Usage()
        self._config = config
        self._is_spending_limited = config.max_tokens is not None or config.max_usd is not None
        self._clock = clock
        self._spent_seconds = spent_seconds
        self._started = clock() - spent_seconds
        self._iterations = spent.iterations
        self._sub_calls = spent.sub_calls
        self._cached = spent.cached_sub_calls
        self._input_tokens = spent.input_tokens
        self._output_tokens = spent.output_tokens
        self._reserved = Amount()
        self._reserved_most = Amount()
        self._under_way = 0
        self._settled = anyio.Event()
        self._free_slots: list[int] = []
        self._slots = 0
        self._answered = 0  # tokens of sub-calls' replies, for what the next one may give
        self._answers = 0
        self._root_turn = Amount()
        self.pricing = pricing or Pricing()
        models = dict.fromkeys((self.pricing.root, self.pricing.sub))
        asked = (*models, *self.pricing.others)
        self._ledger = Ledger(self.pricing.prices, usual_price(config), spent.by_model, asked)
        self._has_prices = all(map(self._ledger.is_cost_known, models))
        is_unknown = spent.cost_usd is None and bool(spent.input_tokens or spent.output_tokens)
        self._is_cost_known = self._has_prices or not is_unknown
        self._was_cost_known = spent.cost_usd is not None
        planned = self._planned(None, spent.input_tokens, spent.output_tokens).usd
        self._usd = planned if spent.cost_usd is None else spent.cost_usd
        unknown = [name for name in models if not self._ledger.is_cost_known(name)]
        if config.max_usd is not None and unknown:
            raise no_price(config.max_usd, unknown)

    def start_clock(self) -> None:
        """Count the seconds from now: until here the run waited for its turn."""
        self._started = self._clock() - self._spent_seconds

    @property
    def elapsed_seconds(self) -> float:
        """Seconds that the run has worked, without those it waited for its turn."""
        return self._clock() - self._started

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the time limit, at least 0; None without one."""
        limit = self._config.max_seconds
        return None if limit is None else max(0.0, limit - self.elapsed_seconds)

    @property
    def seconds_before_last_turn(self) -> float | None:
        """Seconds until the last turn must begin; None without a time limit."""
        left = self.seconds_left
        return left and left - min(left * LAST_TURN_TIME_SHARE, LAST_TURN_SECONDS)

    def snapshot(self) -> Usage:
        """Return what was spent, children included."""
        is_known = self._has_prices or bool(self._ledger.rows) or self._was_cost_known
        return Usage(
            iterations=self._iterations,
            sub_calls=self._sub_calls,
            cached_sub_calls=self._cached,
            input_tokens=self._input_tokens,
            output_tokens=self._output_tokens,
            cost_usd=self._usd if is_known and self._is_cost_known else None,
            by_model=self._ledger.rows,
        )

    def remaining(self) -> dict[str, Any]:
        """Return what is left, JSON-like; only limits that are set."""
        config, spent = self._config, self.snapshot()
        left: dict[str, Any] = {
            "iterations": max(0, config.max_iterations - spent.iterations),
            "sub_calls": max(0, config.max_sub_calls - spent.sub_calls),
        }
        if config.max_tokens is not None:
            used = spent.input_tokens + spent.output_tokens
            left["tokens"] = max(0, config.max_tokens - used)
        if config.max_usd is not None:
            left["usd"] = round(max(0.0, config.max_usd - (spent.cost_usd or 0.0)), 6)
        if self.seconds_left is not None:
            left["seconds"] = round(self.seconds_left, 1)
        return left

    def _planned(self, model: str | None, given: int, made: int) -> Amount:
        """Price tokens of a call to come, by the most that the asked model may cost."""
        return Amount.of(self._ledger.planned(model or self.pricing.sub), given, made)

    @property
    def calls_under_way(self) -> int:
        """How many model calls of the whole tree are being answered."""
        return self._under_way

    @property
    def scarce(self) -> Scarce | None:
        """A limit that is nearly used up, if any; each run counts its own turns."""
        config, spent = self._config, self.snapshot()
        limits = (
            ("sub_calls", spent.sub_calls, config.max_sub_calls),
            ("tokens", spent.input_tokens + spent.output_tokens, config.max_tokens),
            ("usd", spent.cost_usd or 0.0, config.max_usd),
            ("seconds", self.elapsed_seconds, config.max_seconds),
        )
        nearly = (Scarce(name, used, of) for name, used, of in limits if of)
        return next((one for one in nearly if one.used >= SCARCE_SHARE * one.of), None)

    def restore_iterations(self, iterations: int) -> None:
        """Continue after so many complete turns of the root; an incomplete one is counted again."""
        self._iterations = iterations

    def learn_root_turn(self, reply: ChatReply) -> None:
        """Note how many tokens a turn of the root takes."""
        self._root_turn = self._of_root(reply.input_tokens, reply.output_tokens)

    def reach_iteration(self, turn: int) -> None:
        """Note that the root is at a turn; of several attempts, the one furthest on counts."""
        self._iterations = max(self._iterations, turn)

    def take_slot(self) -> int:
        """Return the lowest number that no other call of the whole tree has now."""
        if self._free_slots:
            return heapq.heappop(self._free_slots)
        self._slots += 1
        return self._slots - 1

    def free_slot(self, slot: int) -> None:
        """Return a number that `take_slot` gave."""
        heapq.heappush(self._free_slots, slot)

    def count_cached(self) -> None:
        """Count one sub-call that was answered without a model."""
        self._cached += 1

    @asynccontextmanager
    async def root_turn(self, prompt_width: int) -> AsyncGenerator[Settle]:
        """Reserve a turn of the root; call the yielded function with the reply.

        Raises:
            BudgetExceededError: the budget has no room for it.
        """
        expected = self._of_root(estimate_tokens(prompt_width), self._root_turn.made or 1)
        self._check(expected)
        with self._reserving(expected, expected) as spend:

            def settle(reply: ChatReply) -> float | None:
                self.learn_root_turn(reply)
                return spend(reply)

            yield settle

    @asynccontextmanager
    async def sub_call(
        self, prompt_width: int, max_output_tokens: int, model: str | None = None
    ) -> AsyncGenerator[Settle]:
        """Reserve a sub-call, which counts as made; call the yielded function with the reply.

        Waits while calls under way may leave too little for it.

        Args:
            prompt_width: the length of all messages; see `text.width`.
            max_output_tokens: longest reply.
            model: name of the model that is asked; None is the run's own.

        Raises:
            BudgetExceededError: the budget has no room for it.
        """
        given = estimate_tokens(prompt_width)
        while not self._admits(*(plan := self._plan(model, given, max_output_tokens))):
            await self._settled.wait()
        self._sub_calls += 1
        with self._reserving(*plan) as spend:

            def settle(reply: ChatReply) -> float | None:
                self._answers += 1
                self._answered += reply.output_tokens
                return spend(reply)

            yield settle

    def _plan(self, model: str | None, given: int, most_made: int) -> tuple[Amount, Amount]:
        """Price a sub-call as it is expected to be, and as it may be at most."""
        average = self._answered // self._answers if self._answers else None
        made = min(most_made, average or FIRST_GUESS_OUTPUT_TOKENS)
        return self._planned(model, given, made), self._planned(model, given, most_made)

    def _admits(self, expected: Amount, most: Amount) -> bool:
        """Whether a sub-call may begin now; if not, it may once one under way has ended.

        Raises:
            BudgetExceededError: there is no room for it, however those end.
        """
        limit = self._config.max_sub_calls
        if self._sub_calls >= limit:
            raise exceeded("sub_calls", f"{self._sub_calls} of {limit} sub-calls are made")
        try:
            self._check(expected, is_last_turn_kept=True)
        except BudgetExceededError as error:
            if not self._under_way or error.limit == "seconds":
                raise
            return False
        return not self._under_way or self._fits_at_most(most)

    def _fits_at_most(self, most: Amount) -> bool:
        config = self._config
        if not self._is_spending_limited:
            return True
        used = Amount(self._input_tokens, self._output_tokens)
        planned = used.plus(self._reserved_most).plus(most)
        if config.max_tokens is not None and planned.total > config.max_tokens:
            return False
        more = self._reserved_most.plus(most)
        is_bounded = not more.unpriced and self._usd + more.usd <= (config.max_usd or 0.0)
        return config.max_usd is None or is_bounded

    @property
    def last_turn_limit(self) -> str | None:
        """The limit that leaves room for only one more turn of the root, if any does."""
        try:
            self._check(self._root_turn, is_last_turn_kept=True)
        except BudgetExceededError as error:
            return error.limit
        return None

    @contextmanager
    def _reserving(self, expected: Amount, most: Amount) -> Generator[Settle]:
        self._reserved = self._reserved.plus(expected)
        self._reserved_most = self._reserved_most.plus(most)
        self._under_way += 1

        def spend(reply: ChatReply) -> float | None:
            self._input_tokens += reply.input_tokens
            self._output_tokens += reply.output_tokens
            usd = self._ledger.add(reply)
            self._is_cost_known = self._is_cost_known and usd is not None
            planned = self._planned(reply.model, reply.input_tokens, reply.output_tokens)
            charged = planned.usd if usd is None else usd
            self._usd += charged
            if allowance := self.pricing.allowance:
                allowance.charge(reply.input_tokens + reply.output_tokens, charged)
            return usd

        try:
            yield spend
        finally:
            self._reserved = self._reserved.minus(expected)
            self._reserved_most = self._reserved_most.minus(most)
            self._under_way -= 1
            settled, self._settled = self._settled, anyio.Event()
            settled.set()

    def _last_turn(self) -> Amount:
        """Tokens of one more turn of the root, which is a little longer than the last one."""
        turn = self._root_turn
        return self._of_root(turn.given * 5 // 4, turn.made)

    def _of_root(self, given: int, made: int) -> Amount:
        return self._planned(self.pricing.root, given, made)

    def _check(self, expected: Amount, *, is_last_turn_kept: bool = False) -> None:
        config = self._config
        if self.pricing.allowance is not None:
            self.pricing.allowance.refuse_spent("usd", "tokens")
        if self.seconds_left == 0.0:
            raise exceeded("seconds", f"{config.max_seconds} seconds are over")
        if not self._is_spending_limited:
            return
        kept = self._last_turn() if is_last_turn_kept else Amount()
        planned = self._reserved.plus(Amount(self._input_tokens, self._output_tokens))
        planned = planned.plus(expected)
        if config.max_tokens is not None:
            most_kept = int(config.max_tokens * LAST_TURN_SPENDING_SHARE)
            room = config.max_tokens - min(kept.total, most_kept)
            if planned.total > room:
                raise would_use("tokens", planned.total, config.max_tokens)
        if config.max_usd is not None:
            most_kept_usd = config.max_usd * LAST_TURN_SPENDING_SHARE
            kept_usd = min(kept.usd, most_kept_usd)
            cost = self._usd + self._reserved.usd + expected.usd
            if cost > config.max_usd - kept_usd:
                raise would_use("usd", cost, config.max_usd)
