"""What callers over HTTP may use a day."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from pydantic import ValidationError

from rlm_mcp.errors import BudgetExceededError
from rlm_mcp.service.contexts.requests import NewText
from rlm_mcp.service.contexts.writing import no_report
from rlm_mcp.service.opening import open_service
from rlm_mcp.service.runs.questions import Question
from rlm_mcp.service.runs.runs import RunState
from rlm_mcp.service.service import Service
from rlm_mcp.settings import as_variables
from rlm_mcp.testing.scripted_model import open_scripted_model
from rlm_mcp.testing.scripted_replies import Reply
from tests.serving import cell, settings_in


async def unreported(_: RunState) -> None:
    pass


async def ask(service: Service, question: str) -> RunState:
    with anyio.fail_after(60):
        begun = await service.runs.begin(Question(question, inline_text="some text"))
        return await service.runs.wait(begun.run_id, 50, unreported)


@asynccontextmanager
async def opened(directory: Path, **limits: Any) -> AsyncGenerator[Service]:
    def answer(request: Any) -> Reply:
        text = "it" if request.model == "sub" else cell("FINAL(llm_query('What?', model='sub'))")
        return Reply(text, usage=(100_000, 10))

    prices = {"cost_per_input_token": 1e-6, "direct_max_chars": 0}
    async with open_scripted_model(answer) as model:
        settings = settings_in(directory, base_url=model.base_url, **prices, **limits)
        async with open_service(settings) as service:
            yield service


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        ({"daily_usd": 0.15}, r"'ann' is used up: \$0.20 of \$0.15 on "),
        ({"daily_tokens": "ann=150000,*=9"}, r"200,020 of 150,000 tokens"),
        ({"daily_runs": {"ann": 1}}, r"1 of 1 runs"),
    ],
)
async def test_a_caller_is_refused_once_a_limit_of_the_day_is_used_up(
    limits: dict[str, Any], named: str, tmp_path: Path
) -> None:
    async with opened(tmp_path, **limits) as service:
        ann = service.as_caller("ann")
        assert (await ask(ann, "What?")).status == "completed"
        with pytest.raises(BudgetExceededError, match=named) as caught:
            await ask(ann, "And then?")
        assert "resets at" in caught.value.fix
        assert caught.value.fix.endswith("T00:00:00+00:00.")
        told = (await ann.status()).limits["today"]
        assert told["starts_anew"] in caught.value.fix
        [(name, row)] = [(name, row) for name, row in told.items() if name != "starts_anew"]
        assert row["spent"] == {"usd": 0.2, "tokens": 200_020, "runs": 1}[name]


async def test_runs_that_begin_at_the_same_time_are_counted_one_by_one(tmp_path: Path) -> None:
    begun: list[str] = []
    refused: list[str] = []
    async with opened(tmp_path, daily_runs="2") as service:
        ann = service.as_caller("ann")

        async def begin(question: str) -> None:
            try:
                run = await ann.runs.begin(Question(question, inline_text="some text"))
                begun.append(run.run_id)
            except BudgetExceededError as error:
                refused.append(error.message)

        async with anyio.create_task_group() as tasks:
            for number in range(6):
                tasks.start_soon(begin, f"What is {number}?")
        listed = await ann.runs.list(None, 50, "")
    assert (len(begun), len(listed.items), len(refused)) == (2, 2, 4)
    assert "2 of 2 runs" in refused[0]


async def test_a_question_that_is_at_work_already_is_counted_once(tmp_path: Path) -> None:
    async with opened(tmp_path, daily_runs="2") as service:
        ann = service.as_caller("ann")
        asked = Question("What?", inline_text="some text", idempotency_key="k")
        first, second = await ann.runs.begin(asked), await ann.runs.begin(asked)
        assert (second.run_id, second.is_attached) == (first.run_id, True)
        await ask(ann, "And then?")
        with pytest.raises(BudgetExceededError, match="2 of 2 runs"):
            await ask(ann, "And after that?")


async def test_a_run_of_ones_own_code_counts_as_any_other(tmp_path: Path) -> None:
    async with opened(tmp_path, daily_runs="1") as service:
        ann = service.as_caller("ann")
        handle = str((await ann.contexts.add(NewText(text="some text"), no_report)).handle)
        done = await ann.cells.execute("print(1)", "", (handle,), 60)
        with pytest.raises(BudgetExceededError, match="1 of 1 runs"):
            await ann.cells.execute("print(2)", "", (handle,), 60)
        assert "3" in (await ann.cells.execute("print(3)", done.run_id, (), 60)).output


async def test_a_run_at_work_ends_where_the_limit_of_the_day_does(tmp_path: Path) -> None:
    async with opened(tmp_path, daily_usd=0.05) as service:
        run = await ask(service.as_caller("ann"), "What?")
    # The root's turn was sent before anything was spent; the sub-call was refused.
    assert (run.figures.sub_calls, run.figures.cost_usd) == (0, pytest.approx(0.1))


async def test_others_and_the_machines_own_user_are_not_limited_by_it(tmp_path: Path) -> None:
    async with opened(tmp_path, daily_runs={"ann": 0}) as service:
        for one in (service, service.as_caller("bob")):
            assert (await ask(one, "What?")).status == "completed"
            assert "today" not in (await one.status()).limits
        with pytest.raises(BudgetExceededError):
            await ask(service.as_caller("ann"), "What?")


async def test_what_was_spent_is_known_after_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path, daily_runs="1") as service:
        await ask(service.as_caller("ann"), "What?")
    async with opened(tmp_path, daily_runs="1") as service:
        with pytest.raises(BudgetExceededError, match="1 of 1 runs"):
            await ask(service.as_caller("ann"), "And then?")


def test_limits_are_read_by_name_and_given_on_in_the_same_form(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, daily_usd="ann=5,bob=0.5,1", daily_runs=20)
    assert settings.limits_of("ann") == {"usd": 5.0, "runs": 20.0}
    assert settings.limits_of("carol") == {"usd": 1.0, "runs": 20.0}
    given = as_variables(settings)["RLM_MCP_DAILY_USD"]
    assert settings_in(tmp_path, daily_usd=given).daily_usd == settings.daily_usd
    with pytest.raises(ValidationError, match="at least 0"):
        settings_in(tmp_path, daily_usd="ann=-1")
