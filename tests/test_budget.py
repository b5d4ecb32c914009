"""One budget for the whole tree of a run."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from rlm_mcp.engine.budget import Budget
from rlm_mcp.engine.chat import ChatReply
from rlm_mcp.engine.config import RLMConfig
from rlm_mcp.engine.types import Usage
from rlm_mcp.errors import BudgetExceededError, ConfigurationError


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def a_reply(given: int = 10, made: int = 5) -> ChatReply:
    return ChatReply("text", input_tokens=given, output_tokens=made)


def a_budget(clock: Clock | None = None, **limits: object) -> Budget:
    return Budget(RLMConfig.model_validate(limits), clock=clock or Clock())


def spend_sub_call(budget: Budget, given: int = 10, made: int = 5) -> None:
    with budget.sub_call(given * 4, 8192) as settle:
        settle(a_reply(given, made))


def spend_root_turn(budget: Budget, given: int = 10, made: int = 5) -> None:
    with budget.root_turn(given * 4) as settle:
        settle(a_reply(given, made))


def limit_of(budget: Budget, *, prompt_chars: int = 40) -> str | None:
    """Say which limit refuses the next sub-call."""
    try:
        with budget.sub_call(prompt_chars, 8192):
            return None
    except BudgetExceededError as error:
        return error.limit


def test_everything_spent_is_in_the_snapshot() -> None:
    budget = a_budget(cost_per_input_token=0.01, cost_per_output_token=0.1)
    budget.count_iteration()
    spend_root_turn(budget, 100, 20)
    spend_sub_call(budget, 10, 2)
    budget.count_cached()
    assert budget.snapshot() == Usage(
        iterations=1,
        sub_calls=1,
        cached_sub_calls=1,
        input_tokens=110,
        output_tokens=22,
        cost_usd=110 * 0.01 + 22 * 0.1,
    )


def test_without_prices_there_is_no_cost() -> None:
    budget = a_budget()
    spend_sub_call(budget)
    assert budget.snapshot().cost_usd is None


def test_exactly_as_many_sub_calls_are_made_as_allowed() -> None:
    budget = a_budget(max_sub_calls=2)
    spend_sub_call(budget)
    spend_sub_call(budget)
    with (
        pytest.raises(BudgetExceededError, match="2 of 2 sub-calls are made") as caught,
        budget.sub_call(4, 1),
    ):
        pass
    assert caught.value.limit == "sub_calls"
    assert budget.snapshot().sub_calls == 2


def test_a_call_that_failed_was_made_but_its_tokens_are_given_back() -> None:
    budget = a_budget(max_sub_calls=3, max_tokens=1000)
    with pytest.raises(RuntimeError), budget.sub_call(2000, 100):
        raise RuntimeError
    assert budget.snapshot() == Usage(sub_calls=1)
    assert budget.remaining()["tokens"] == 1000
    assert limit_of(budget, prompt_chars=2000) is None


def test_no_sub_call_at_all_may_be_allowed() -> None:
    assert limit_of(a_budget(max_sub_calls=0)) == "sub_calls"


def test_calls_under_way_are_reserved_so_that_a_batch_cannot_overshoot() -> None:
    budget = a_budget(max_tokens=1000)
    with ExitStack() as under_way:
        for _ in range(2):  # 100 tokens in, and 256 expected out, each
            under_way.enter_context(budget.sub_call(400, 8192))
        assert limit_of(budget, prompt_chars=400) == "tokens"
    assert limit_of(budget, prompt_chars=400) is None


def test_what_a_reply_may_cost_is_learnt_from_those_before() -> None:
    budget = a_budget(max_tokens=1000)
    spend_sub_call(budget, 10, 600)
    assert limit_of(budget) == "tokens"  # another 600 would not fit into the 390 left
    small = a_budget(max_tokens=1000)
    spend_sub_call(small, 600, 2)
    assert limit_of(small) is None


def test_sub_calls_leave_tokens_for_the_answer_itself() -> None:
    budget = a_budget(max_tokens=10_000)
    spend_root_turn(budget, 1000, 200)
    spend_sub_call(budget, 6000, 10)
    assert limit_of(budget, prompt_chars=4 * 1500) == "tokens"
    with budget.root_turn(4 * 1500) as settle:
        settle(a_reply(1500, 200))


def test_what_is_left_for_one_turn_is_known_before_it() -> None:
    budget = a_budget(max_tokens=10_000)
    assert budget.last_turn_limit is None
    spend_root_turn(budget, 1000, 100)
    assert budget.last_turn_limit is None
    spend_root_turn(budget, 6500, 100)
    assert budget.last_turn_limit == "tokens"


def test_dollars_bind_as_tokens_do() -> None:
    budget = a_budget(max_usd=1.0, cost_per_input_token=0.001)
    spend_sub_call(budget, 900)
    assert limit_of(budget, prompt_chars=4 * 90) is None
    assert limit_of(budget, prompt_chars=4 * 110) == "usd"
    assert budget.remaining()["usd"] == pytest.approx(0.1)


def test_a_limit_in_dollars_without_prices_is_refused_at_once() -> None:
    with pytest.raises(ConfigurationError, match=r"max_usd=1\.0.*cost_per_input_token"):
        a_budget(max_usd=1.0)


def test_no_call_begins_after_the_time_is_over() -> None:
    clock = Clock()
    budget = a_budget(clock, max_seconds=30)
    clock.now += 29.5
    assert limit_of(budget) is None
    assert (budget.seconds_left, budget.elapsed_seconds) == (0.5, 29.5)
    clock.now += 1
    assert limit_of(budget) == "seconds"
    assert budget.seconds_left == 0.0
    with pytest.raises(BudgetExceededError, match=r"30\.0 seconds are over"), budget.root_turn(1):
        pass


def test_what_is_left_names_only_limits_that_are_set() -> None:
    assert a_budget(max_iterations=5, max_sub_calls=7).remaining() == {
        "iterations": 5,
        "sub_calls": 7,
    }
    budget = a_budget(max_tokens=1000, max_seconds=9, max_usd=2, cost_per_input_token=0.01)
    spend_sub_call(budget, 20, 5)
    assert budget.remaining() == {
        "iterations": 25,
        "sub_calls": 499,
        "tokens": 975,
        "usd": 1.8,
        "seconds": 9.0,
    }


def test_a_resumed_run_goes_on_from_what_it_had_spent() -> None:
    spent = Usage(iterations=3, sub_calls=9, cached_sub_calls=1, input_tokens=50, output_tokens=5)
    budget = Budget(RLMConfig(max_sub_calls=10), spent=spent)
    spend_sub_call(budget, 10, 5)
    assert budget.snapshot() == Usage(3, 10, 1, 60, 10)
    assert limit_of(budget) == "sub_calls"
