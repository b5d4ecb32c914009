"""No ending throws work away: whatever ends a run, the response holds what was found until then."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import anyio
import pytest

from rlm_mcp.engine.budget import Budget
from rlm_mcp.engine.config import RLMConfig
from rlm_mcp.engine.loop.orchestrator import answer
from rlm_mcp.engine.models.http_provider import Provider
from rlm_mcp.engine.models.openai_client import open_endpoint
from rlm_mcp.engine.models.retry import RetryPolicy
from rlm_mcp.engine.run_context import Engine, RLMEvent, repl_options
from rlm_mcp.engine.types import RLMResponse
from rlm_mcp.errors import (
    BudgetExceededError,
    ContextLengthError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelRateLimitError,
    ModelReplyError,
    ModelRequestError,
    SandboxDiedError,
)
from rlm_mcp.sandbox.choice import OwnedSandbox
from rlm_mcp.sandbox.host.text import TextContext
from rlm_mcp.sandbox.types import CallHandler, CellResult, Repl, Variable, VariableText
from rlm_mcp.testing.scripted_model import open_scripted_model
from rlm_mcp.testing.scripted_replies import (
    Answer,
    Reply,
    by_model,
    context_too_long,
    malformed,
    no_answer,
    rate_limited,
    rejected,
    server_error,
    unauthorized,
)
from tests.overtime import with_enough_time
from tests.walls import a_sandbox

WORK = Reply("```repl\nfound = llm_query('which?')\nprint(found)\n```", usage=(900, 50))
GUESS = Reply("```repl\nfound = llm_query('which?')\n```\nFINAL(green)", usage=(900, 50))
PRICES = {"cost_per_input_token": 0.01, "cost_per_output_token": 0.01}
SCHEMA = {"type": "object"}


@pytest.fixture(scope="module")
async def sandbox() -> AsyncGenerator[OwnedSandbox]:
    async with a_sandbox(min_isolation="process") as sandbox:
        yield sandbox


class DyingRepl:
    """A REPL that works once, and whose process cannot be replaced after that."""

    def __init__(self, repl: Repl) -> None:
        self._repl = repl
        self._cells = 0

    async def execute(
        self, code: str, *, timeout_seconds: float, on_call: CallHandler
    ) -> CellResult:
        self._cells += 1
        if self._cells > 1:
            raise SandboxDiedError("the process is gone")
        return await self._repl.execute(code, timeout_seconds=timeout_seconds, on_call=on_call)

    async def variables(self) -> list[Variable]:
        return await self._repl.variables()

    async def read_variable(
        self, name: str, *, start: int = 0, limit: int = 4000, whole: bool = False
    ) -> VariableText:
        return await self._repl.read_variable(name, start=start, limit=limit)


async def ended(
    sandbox: OwnedSandbox,
    later: Answer,
    *,
    first: Reply = WORK,
    schema: dict[str, Any] | None = None,
    is_dying: bool = False,
    **config: Any,
) -> RLMResponse:
    """Do one turn of work, and then what ends the run."""

    async def emit(*_: RLMEvent) -> None:
        await anyio.lowlevel.checkpoint()

    def root(request: Any) -> Answer:
        return first if len(request.messages) == 2 else later

    source = TextContext.of("The light is green.")
    policy = RetryPolicy(2, first_pause_seconds=0, total_seconds=5)
    settings = RLMConfig(**config)
    with anyio.fail_after(120):
        async with (
            open_scripted_model(
                by_model(root=root, sub=lambda _: Reply("green", usage=(7, 3)))
            ) as server,
            open_endpoint(Provider(server.base_url), policy=policy) as endpoint,
            sandbox.open_repl(source, repl_options(settings)) as repl,
        ):
            engine = Engine(
                root=endpoint.model("root"),
                sub=endpoint.model("sub"),
                sandbox=sandbox,
                config=settings,
                budget=Budget(settings),
                emit=emit,
                model_names=("root", "sub"),
                answer_schema=schema,
            )
            return await answer("What?", source, DyingRepl(repl) if is_dying else repl, engine)


async def out_of_time(sandbox: OwnedSandbox, later: Answer, *, first: Reply = WORK) -> RLMResponse:
    """End a run by its time at the latest, with enough of it for the turn of work."""
    return await with_enough_time(
        lambda seconds: ended(sandbox, later, first=first, max_seconds=seconds),
        lambda response: "found" in response.repl_variables and response.iterations >= 2,
        seconds=(2, 10, 40),
    )


FAILURES: list[tuple[str, Answer, type[Exception]]] = [
    ("the endpoint fails", server_error(), ModelConnectionError),
    ("the key is rejected", unauthorized(), ModelAuthenticationError),
    ("told to wait for an hour", rate_limited("3600"), ModelRateLimitError),
    ("the request is rejected", rejected(400, "no such thing"), ModelRequestError),
    ("the prompt does not fit", context_too_long(), ContextLengthError),
    ("what comes is no reply", malformed(), ModelReplyError),
]


@pytest.mark.parametrize(
    ("later", "error"), [row[1:] for row in FAILURES], ids=[row[0] for row in FAILURES]
)
async def test_a_failure_of_the_model_keeps_the_work(
    sandbox: OwnedSandbox, later: Answer, error: type[Exception]
) -> None:
    response = await ended(sandbox, later)
    assert (response.status, type(response.error), response.answer) == ("failed", error, None)
    assert_work_is_kept(response)


@pytest.mark.parametrize("later", [server_error(), unauthorized(), no_answer()])
async def test_a_failure_gives_the_guess_that_was_made_before(
    sandbox: OwnedSandbox, later: Answer
) -> None:
    response = await out_of_time(sandbox, later, first=GUESS)
    assert response.status in {"failed", "exhausted"}
    assert response.answer == "green"
    assert_work_is_kept(response, printed=False)


LIMITS: list[tuple[str, Answer, dict[str, Any], str]] = [
    ("turns", "FINAL_VAR(found)", {"max_iterations": 2}, "iterations"),
    ("fruitless turns", "Hm. Green.", {}, "iterations"),
    ("tokens", "FINAL_VAR(found)", {"max_tokens": 2000}, "tokens"),
    ("money", "FINAL_VAR(found)", {"max_usd": 20.0, **PRICES}, "usd"),
    ("time", no_answer(), {}, "seconds"),
]


@pytest.mark.parametrize(
    ("later", "config", "limit"), [row[1:] for row in LIMITS], ids=[row[0] for row in LIMITS]
)
async def test_the_end_of_a_budget_keeps_the_work(
    sandbox: OwnedSandbox, later: Answer, config: dict[str, Any], limit: str
) -> None:
    response = await (
        out_of_time(sandbox, later) if limit == "seconds" else ended(sandbox, later, **config)
    )
    assert response.status == "exhausted"
    assert isinstance(response.error, BudgetExceededError)
    assert response.error.limit == limit
    assert_work_is_kept(response)


async def test_an_answer_that_never_fits_its_schema_is_kept(sandbox: OwnedSandbox) -> None:
    response = await ended(sandbox, "FINAL(green)", schema=SCHEMA)
    assert (response.status, response.answer) == ("failed", "green")
    assert isinstance(response.error, ModelReplyError)
    assert_work_is_kept(response)


async def test_a_repl_that_is_gone_for_good_ends_the_run_with_its_work(
    sandbox: OwnedSandbox,
) -> None:
    response = await ended(sandbox, "```repl\nmore = 1\n```", is_dying=True)
    assert (response.status, type(response.error)) == ("failed", SandboxDiedError)
    assert_work_is_kept(response)


def assert_work_is_kept(response: RLMResponse, *, printed: bool = True) -> None:
    assert response.repl_variables["found"] == "'green'"
    first = [(each.role, each.content) for each in response.history if each.iteration == 1]
    assert [role for role, _ in first] == ["root", "repl_output", "sub_call"]
    assert first[1][1] == ("green\n" if printed else "")
    assert first[2][1] == "green"
    assert response.iterations >= 2
    assert response.sub_calls >= 1
    assert response.total_input_tokens >= 907
    assert response.total_output_tokens >= 53
    assert response.elapsed_seconds > 0
