"""One budget for the whole tree of a run."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from rlm_mcp.engine.budget import Budget
from rlm_mcp.engine.config import RLMConfig
from rlm_mcp.engine.models.chat import ChatReply
from rlm_mcp.errors import BudgetExceededError, ConfigurationError
from rlm_mcp.values import Usage


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def a_reply(given: int = 10, made: int = 5) -> ChatReply:
    return ChatReply("text", input_tokens=given, output_tokens=made)


def a_budget(clock: Clock | None = None, **limits: object) -> Budget:
    return Budget(RLMConfig.model_validate(limits), clock=clock or Clock())


async def spend_sub_call(budget: Budget, given: int = 10, made: int = 5) -> None:
    async with budget.sub_call(given * 4, 8192) as settle:
        settle(a_reply(given, made))


async def spend_root_turn(budget: Budget, given: int = 10, made: int = 5) -> None:
    async with budget.root_turn(given * 4) as settle:
        settle(a_reply(given, made))


async def limit_of(budget: Budget, *, prompt_chars: int = 40) -> str | None:
    """Say which limit refuses the next sub-call."""
    try:
        async with budget.sub_call(prompt_chars, 8192):
            return None
    except BudgetExceededError as error:
        return error.limit


async def test_everything_spent_is_in_the_snapshot() -> None:
    budget = a_budget(cost_per_input_token=0.01, cost_per_output_token=0.1)
    budget.reach_iteration(1)
    await spend_root_turn(budget, 100, 20)
    await spend_sub_call(budget, 10, 2)
    budget.count_cached()
    assert budget.snapshot() == Usage(
        iterations=1,
        sub_calls=1,
        cached_sub_calls=1,
        input_tokens=110,
        output_tokens=22,
        cost_usd=3.3,  # 110 * 0.01 + 22 * 0.1
    )


async def test_without_prices_there_is_no_cost() -> None:
    budget = a_budget()
    await spend_sub_call(budget)
    assert budget.snapshot().cost_usd is None


async def test_exactly_as_many_sub_calls_are_made_as_allowed() -> None:
    budget = a_budget(max_sub_calls=2)
    await spend_sub_call(budget)
    await spend_sub_call(budget)
    with pytest.raises(BudgetExceededError, match="2 of 2 sub-calls are made") as caught:
        async with budget.sub_call(4, 1):
            pass
    assert caught.value.limit == "sub_calls"
    assert budget.snapshot().sub_calls == 2


async def test_a_call_that_failed_was_made_but_its_tokens_are_given_back() -> None:
    budget = a_budget(max_sub_calls=3, max_tokens=1000)
    with pytest.raises(RuntimeError):
        async with budget.sub_call(2000, 100):
            raise RuntimeError
    assert budget.snapshot() == Usage(sub_calls=1)
    assert budget.remaining()["tokens"] == 1000
    assert await limit_of(budget, prompt_chars=2000) is None


async def test_no_sub_call_at_all_may_be_allowed() -> None:
    assert await limit_of(a_budget(max_sub_calls=0)) == "sub_calls"


async def test_a_call_waits_while_those_under_way_may_leave_too_little_for_it() -> None:
    budget = a_budget(max_tokens=1000)
    begun: list[int] = []
    most = 0
    gate = anyio.Event()

    async def call(number: int) -> None:
        nonlocal most
        async with budget.sub_call(400, 300) as settle:  # 100 tokens in, and at most 300 out
            begun.append(number)
            most = max(most, len(begun))
            await gate.wait()
            begun.remove(number)
            settle(a_reply(100, 50))

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            for number in range(6):
                group.start_soon(call, number)
            await anyio.wait_all_tasks_blocked()
            assert len(begun) == 2
            gate.set()

    assert most == 2
    assert budget.snapshot().sub_calls == 6
    assert await limit_of(budget, prompt_chars=400) == "tokens"


@pytest.mark.parametrize(
    "limits", [{"max_tokens": 1000}, {"max_usd": 1.0, "cost_per_output_token": 1e-3 * 30 / 29}]
)
async def test_calls_overshoot_by_one_at_most_and_none_is_refused_that_would_have_fit(
    limits: dict[str, Any],
) -> None:
    budget = a_budget(**limits)
    refused = 0

    async def call() -> None:
        nonlocal refused
        try:
            async with budget.sub_call(40, 500) as settle:
                await anyio.lowlevel.checkpoint()
                settle(a_reply(10, 290))  # more than is guessed at first
        except BudgetExceededError:
            refused += 1

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(call)

    used = budget.snapshot()
    assert (used.sub_calls, used.sub_calls + refused) == (3, 50)
    assert used.input_tokens + used.output_tokens == 900


async def test_what_a_reply_may_cost_is_learnt_from_those_before() -> None:
    budget = a_budget(max_tokens=1000)
    await spend_sub_call(budget, 10, 600)
    assert await limit_of(budget) == "tokens"  # another 600 would not fit into the 390 left
    small = a_budget(max_tokens=1000)
    await spend_sub_call(small, 600, 2)
    assert await limit_of(small) is None


async def test_sub_calls_leave_tokens_for_the_answer_itself() -> None:
    budget = a_budget(max_tokens=10_000)
    await spend_root_turn(budget, 1000, 200)
    await spend_sub_call(budget, 6000, 10)
    assert await limit_of(budget, prompt_chars=4 * 1500) == "tokens"
    async with budget.root_turn(4 * 1500) as settle:
        settle(a_reply(1500, 200))


async def test_what_is_left_for_one_turn_is_known_before_it() -> None:
    budget = a_budget(max_tokens=10_000)
    assert budget.last_turn_limit is None
    await spend_root_turn(budget, 1000, 100)
    assert budget.last_turn_limit is None
    await spend_root_turn(budget, 6500, 100)
    assert budget.last_turn_limit == "tokens"


async def test_dollars_bind_as_tokens_do() -> None:
    budget = a_budget(max_usd=1.0, cost_per_input_token=0.001)
    await spend_sub_call(budget, 900)
    assert await limit_of(budget, prompt_chars=4 * 90) is None
    assert await limit_of(budget, prompt_chars=4 * 110) == "usd"
    assert budget.remaining()["usd"] == pytest.approx(0.1)


async def test_a_limit_in_dollars_without_prices_is_refused_at_once() -> None:
    with pytest.raises(ConfigurationError, match=r"max_usd=1\.0.*cost_per_input_token"):
        a_budget(max_usd=1.0)


async def test_no_call_begins_after_the_time_is_over() -> None:
    clock = Clock()
    budget = a_budget(clock, max_seconds=30)
    clock.now += 29.5
    assert await limit_of(budget) is None
    assert (budget.seconds_left, budget.elapsed_seconds) == (0.5, 29.5)
    clock.now += 1
    assert await limit_of(budget) == "seconds"
    assert budget.seconds_left == 0.0
    with pytest.raises(BudgetExceededError, match=r"30\.0 seconds are over"):
        async with budget.root_turn(1):
            pass


async def test_what_is_left_names_only_limits_that_are_set() -> None:
    assert a_budget(max_iterations=5, max_sub_calls=7).remaining() == {
        "iterations": 5,
        "sub_calls": 7,
    }
    budget = a_budget(max_tokens=1000, max_seconds=9, max_usd=2, cost_per_input_token=0.01)
    await spend_sub_call(budget, 20, 5)
    assert budget.remaining() == {
        "iterations": 25,
        "sub_calls": 499,
        "tokens": 975,
        "usd": 1.8,
        "seconds": 9.0,
    }


async def test_a_resumed_run_goes_on_from_what_it_had_spent() -> None:
    spent = Usage(iterations=3, sub_calls=9, cached_sub_calls=1, input_tokens=50, output_tokens=5)
    budget = Budget(RLMConfig(max_sub_calls=10), spent=spent)
    await spend_sub_call(budget, 10, 5)
    assert budget.snapshot() == Usage(3, 10, 1, 60, 10)
    assert await limit_of(budget) == "sub_calls"


def test_a_cost_that_was_told_is_kept_before_anything_more_is_spent() -> None:
    spent = Usage(iterations=3, sub_calls=1, input_tokens=100, output_tokens=10, cost_usd=1.25)
    assert Budget(RLMConfig(), spent=spent).snapshot().cost_usd == 1.25
