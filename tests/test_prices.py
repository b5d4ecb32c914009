"""What calls cost: own prices, known ones, costs that are told, and budgets in USD."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from rlm_mcp.engine.budget import Budget
from rlm_mcp.engine.config import RLMConfig
from rlm_mcp.engine.models.addresses import is_local
from rlm_mcp.engine.models.chat import ChatReply
from rlm_mcp.engine.models.http_provider import Provider
from rlm_mcp.engine.models.kept_prices import look_up
from rlm_mcp.engine.models.metering import Ledger, Price, PriceList
from rlm_mcp.engine.models.named import Catalogue, open_models
from rlm_mcp.engine.models.tables import ModelTable
from rlm_mcp.engine.pricing import Pricing
from rlm_mcp.errors import BudgetExceededError, ConfigurationError
from rlm_mcp.testing.scripted_replies import Fault
from rlm_mcp.values import ModelUsage, Usage
from tests.serving import cell, open_served, turns

CHEAP, DEAR = Price(1e-6, 1e-6), Price(1e-3, 1e-3)


def budget(max_usd: float | None, prices: PriceList, **more: Any) -> Budget:
    config = RLMConfig(max_usd=max_usd)
    return Budget(config, pricing=Pricing(prices, "root", "sub", ("other",)), **more)


async def limit_of(one: Budget, model: str | None) -> str | None:
    try:
        async with one.sub_call(400, 100, model):
            return None
    except BudgetExceededError as error:
        return error.limit


async def test_a_call_is_planned_with_the_price_of_the_model_that_it_names() -> None:
    one = budget(0.05, PriceList({"root": CHEAP, "sub": CHEAP, "other": DEAR}))
    assert await limit_of(one, None) is None
    assert await limit_of(one, "other") == "usd"  # 100 tokens in alone would be $0.10


async def test_a_call_is_planned_with_the_price_of_the_dearest_fallback() -> None:
    prices = {"root": CHEAP, "sub": CHEAP, "other": DEAR}
    one = budget(0.05, PriceList(prices, fallbacks={"sub": "other", "other": "sub"}))
    assert await limit_of(one, None) == "usd"


async def test_a_model_without_a_price_is_planned_as_the_dearest_that_has_one() -> None:
    one = budget(0.05, PriceList({"root": CHEAP, "sub": CHEAP, "other": DEAR}))
    assert await limit_of(one, "of no table") == "usd"


async def test_a_budget_needs_no_price_where_the_provider_tells_the_cost() -> None:
    prices = PriceList({"root": CHEAP}, telling=frozenset({"sub"}))
    one = budget(1.0, prices)
    began: list[int] = []

    async def ask(number: int) -> None:
        async with one.sub_call(400, 100) as settle:
            began.append(number)
            assert len(began) == 1  # what the first will cost is not known yet
            await anyio.lowlevel.checkpoint()
            began.remove(number)
            reply = ChatReply("x", input_tokens=100, output_tokens=100, told_usd=0.4, model="sub")
            assert settle(reply) == 0.4

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(ask, 1)
            group.start_soon(ask, 2)
    assert one.snapshot().cost_usd == pytest.approx(0.8)
    assert await limit_of(one, None) == "usd"  # the third would cost as much


def test_a_limit_in_usd_names_the_models_whose_price_is_not_known() -> None:
    with pytest.raises(ConfigurationError, match="price of 'sub' is not known"):
        budget(1.0, PriceList({"root": CHEAP}))


def test_what_an_earlier_stretch_used_is_added_to() -> None:
    row = ModelUsage("sub", 2, 100, 0, 10, 0.5, "told")
    spent = Usage(sub_calls=2, input_tokens=100, output_tokens=10, cost_usd=0.5, by_model=(row,))
    one = budget(None, PriceList({"root": CHEAP, "sub": CHEAP}), spent=spent)
    assert one.snapshot().by_model == (row,)


def test_tokens_read_from_and_written_to_a_cache_have_their_prices() -> None:
    price = Price(3e-6, 15e-6, 0.3e-6, 3.75e-6, above=((200_000, Price(6e-6, 22.5e-6)),))
    assert price.cost(1000, 100, 600, 300) == pytest.approx(0.0003 + 0.0015 + 0.00018 + 0.001125)
    assert price.cost(200_001, 0) == pytest.approx(200_001 * 6e-6)


@pytest.mark.parametrize(("given", "usd"), [(10, 10.0), (11, 22.0), (100, 200.0), (101, 303.0)])
def test_of_several_prices_of_long_prompts_that_of_the_longest_one_passed_counts(
    given: int, usd: float
) -> None:
    price = Price(1.0, above=((10, Price(2.0)), (100, Price(3.0))))
    assert price.cost(given, 0) == usd


def test_own_prices_win_over_those_of_the_table() -> None:
    prices = PriceList({"a": CHEAP}, known={"a": DEAR, "b": DEAR})
    assert Ledger(prices, None).price_of("a") == CHEAP
    assert Ledger(prices, None).price_of("b") == DEAR
    assert Ledger(prices, CHEAP).price_of("b") == CHEAP


def test_known_models_are_found_by_address_and_name() -> None:
    known = look_up("claude-sonnet-4-5", "https://api.anthropic.com")
    assert known is not None
    assert known.context_tokens == 200_000
    price = known.price
    assert (price.input, price.output) == (pytest.approx(3e-6), pytest.approx(15e-6))
    assert (price.cached_input, price.cache_write) == (pytest.approx(3e-7), pytest.approx(3.75e-6))
    [(start, above)] = price.above
    assert (start, above.input, above.output) == (200_000, pytest.approx(6e-6), 22.5e-6)
    assert look_up("no such model", "https://api.openai.com/v1") is None
    assert look_up("gpt-5", "https://gateway.example.com/v1") is None


@pytest.mark.parametrize(
    ("address", "is_so"),
    [
        ("http://127.0.0.1:11434/v1", True),
        ("http://localhost/v1", True),
        ("http://[::1]:8000", True),
        ("http://gpu-box:8000/v1", True),
        ("http://gpu.local/v1", True),
        ("https://api.openai.com/v1", False),
    ],
)
def test_models_at_local_addresses_are_not_looked_up(address: str, is_so: bool) -> None:
    assert is_local(address) is is_so


async def test_known_prices_are_found_for_root_sub_and_tables() -> None:
    tables = {
        "mini": ModelTable(model="gpt-5-mini", base_url="https://api.openai.com/v1"),
        "own": ModelTable(input_price=1.0, output_price=2.0),
        "local": ModelTable(base_url="http://127.0.0.1:9/v1"),
    }
    catalogue = Catalogue(Provider("https://api.openai.com/v1", "k"), tables)
    async with open_models(catalogue, limiter=anyio.CapacityLimiter(1)) as models:
        prices = await models.prices("gpt-5", "command:claude")
    assert set(prices.known) == {"mini", "gpt-5"}
    assert prices.own == {"own": Price(1e-6, 2e-6)}
    assert prices.telling == {"command:claude"}


async def test_a_cached_reply_belongs_to_the_model_that_gave_it(tmp_path: Path) -> None:
    refusals: list[str] = []
    run: dict[str, Any] = {}

    def script(request: Any) -> Any:
        if request.model == "first":
            refusals.append(request.text)
            return Fault(status=400, body={"error": {"message": "no"}})
        if request.model == "second":
            return "from the second"
        name = "second" if "directly" in str(request.messages) else "first"
        return cell(f"FINAL(llm_query('Who?', model={name!r}))")

    models = {"first": ModelTable(fallback="second"), "second": ModelTable()}
    async with open_served(tmp_path, script, models=models, direct_max_chars=0) as served:
        for question in ("Who?", "Who, again?", "Who, directly?"):
            begun = await served.call("rlm_query", question=question, text="a text of some length")
            run = await served.ended(begun["run_id"])
            assert run["answer"] == "from the second"
    assert refusals == ["Who?", "Who?"]  # the first is asked again, the second is not
    asked = [request.model for request in served.model.requests]
    assert asked.count("second") == 2  # and not when it was asked by its own name
    assert run["cached_sub_calls"] == 1


async def test_a_resumed_run_tells_what_each_model_used_in_all_its_stretches(
    tmp_path: Path,
) -> None:
    script = turns(cell("r = llm_query('Who?')\nprint(r)"), "no code", "FINAL(done)")
    models = {"sub": ModelTable(input_price=1.0, output_price=1.0)}
    async with open_served(tmp_path, script, models=models, direct_max_chars=0) as served:
        begun = await served.call(
            "rlm_query", question="Who?", text="a text " * 100, budget={"max_iterations": 2}
        )
        run = await served.ended(begun["run_id"])
        assert run["status"] == "exhausted"
        resumed = await served.call(
            "rlm_run_resume", run_id=run["run_id"], budget={"max_iterations": 9}
        )
        run = await served.ended(resumed["run_id"])
        trace = await served.call("rlm_run_trace", run_id=run["run_id"], limit=100)
    assert (run["status"], run["answer"]) == ("completed", "done")
    rows = {row["model"]: row for row in trace["events"][-1]["detail"]["usage_by_model"]}
    asked = [request.model for request in served.model.requests]
    calls = {name: rows[name]["calls"] for name in rows}
    assert calls == {name: asked.count(name) for name in ("root", "sub")}
    assert rows["sub"]["cost_is"] == "computed"
    given = sum(row["input_tokens"] for row in rows.values())
    assert given == run["input_tokens"]
