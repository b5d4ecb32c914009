"""Algorithm 1 of arXiv 2512.24601: ask, run, feed back, until answered."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import anyio

from rlm_mcp.engine.citations.checking import check_citations
from rlm_mcp.engine.loop.judge import Outcome, judge, judge_last
from rlm_mcp.engine.loop.run import Run
from rlm_mcp.engine.run_context import Engine, RLMEvent, RunLog, repl_options
from rlm_mcp.engine.spending import spelled
from rlm_mcp.engine.subcalls.nested_runs import InnerPart
from rlm_mcp.engine.subcalls.sub_caller import SubCaller
from rlm_mcp.engine.telemetry import run_span, turn_span
from rlm_mcp.engine.types import RLMResponse
from rlm_mcp.errors import BudgetExceededError, RLMError
from rlm_mcp.events import FORMAT_VERSION, CheckedCitation, FinalAnswer, RunStarted, Support
from rlm_mcp.sandbox.types import Citation, ContextSource, Repl
from rlm_mcp.text import preview

__all__ = ["Engine", "answer", "calls_of", "repl_options"]

MAX_FRUITLESS_TURNS = 3


async def answer(question: str, source: ContextSource, repl: Repl, engine: Engine) -> RLMResponse:
    """Answer a question over the text that `repl` holds as `context`, in one attempt or several.

    Whatever ends it, the response holds everything that is known; only cancellation propagates.

    Args:
        question: what is asked.
        source: what `repl` was opened over; its metadata is shown to the model.
        repl: stays open, for its opener to look into.
        engine: models, limits, and who is told of events.
    """
    if engine.config.attempts == 1:
        return await _answer_once(question, source, repl, engine)
    from rlm_mcp.engine.loop.attempts import Attempts  # noqa: PLC0415  # few questions need it

    return await Attempts(question, source, engine, _answer_once, _bring_back).answer(repl)


async def _answer_once(
    question: str, source: ContextSource, repl: Repl, engine: Engine
) -> RLMResponse:
    log = RunLog(engine)
    run = Run(question, source, repl, log, partial(_calls, log))
    with run_span(engine.tracer, engine.depth) as span:
        response = await _respond(run, await _outcome(run))
        span.response(response)
        return response


async def _bring_back(question: str, source: ContextSource, repl: Repl, engine: Engine) -> None:
    """Bring a fresh REPL to where a recorded run left its own; no model is asked.

    Raises:
        SandboxError: the REPL is gone for good.
    """
    log = RunLog(engine)
    await Run(question, source, repl, log, partial(_calls, log)).begin()


async def _outcome(run: Run) -> Outcome:
    try:
        with anyio.move_on_after(run.engine.budget.seconds_before_last_turn):
            return await _loop(run)
        return await _out_of_time(run)
    except BudgetExceededError as error:
        return Outcome("exhausted", run.state.guess, origin="guess", error=error)
    except RLMError as error:
        return Outcome("failed", run.state.guess, origin="guess", error=error)


async def _loop(run: Run) -> Outcome:
    await run.begin()
    while (reason := _reason_to_end(run)) is None:
        with turn_span(run.engine.tracer, run.turn + 1):
            verdict = await judge(run, await run.take_turn())
        run.state = verdict.state
        if verdict.outcome is not None:
            return verdict.outcome
        if verdict.restarts:
            run.restart(verdict.message)
        else:
            run.dialogue.tell(verdict.message)
    return await _best_answer(run, reason)


def _reason_to_end(run: Run) -> BudgetExceededError | None:
    """Say why the next turn must be the last, which asks for the best answer."""
    if run.turn == 0 or run.cells.pending.is_mid_turn:
        return None
    limit = run.engine.config.max_iterations
    if run.turn + 1 >= limit:
        return BudgetExceededError(f"The last of {limit} turns was reached.", limit="iterations")
    if run.state.fruitless >= MAX_FRUITLESS_TURNS:
        return BudgetExceededError(
            f"{run.state.fruitless} turns in a row held neither new code nor an answer.",
            limit="iterations",
        )
    scarce = run.engine.budget.last_turn_limit
    if scarce is not None:
        return BudgetExceededError(
            f"The budget of {spelled(scarce)} has room for one more turn.", limit=scarce
        )
    return None


async def _best_answer(run: Run, reason: BudgetExceededError) -> Outcome:
    if run.turn >= run.engine.config.max_iterations:
        await run.log.end()
        return Outcome("exhausted", run.state.guess, origin="guess", error=reason)
    run.begin_last_word(reason.message)
    with turn_span(run.engine.tracer, run.turn + 1):
        turn = await run.take_turn()
        await run.log.end()
        return await judge_last(run, turn, reason)


async def _out_of_time(run: Run) -> Outcome:
    """Ask for the best answer in what is left of the time."""
    seconds = run.engine.config.max_seconds
    reason = BudgetExceededError(f"The {seconds} seconds are nearly over.", limit="seconds")
    with anyio.move_on_after(run.engine.budget.seconds_left):
        return await _best_answer(run, reason)
    return Outcome("exhausted", run.state.guess, origin="guess", error=reason)


async def _respond(run: Run, outcome: Outcome) -> RLMResponse:
    citations, support = await _supported(run, outcome)
    if outcome.answer is not None:
        final = FinalAnswer(
            answer=outcome.answer,
            data=outcome.data,
            origin=outcome.origin or "",
            status=outcome.status,
            direct=run.is_direct,
            citations=citations or None,
            support=support,
        )
        await run.log.emit(final, preview(outcome.answer))
    usage = run.engine.budget.snapshot()
    variables = await run.cells.variables() if run.engine.lists_variables else {}
    return RLMResponse(
        answer=outcome.answer,
        status=outcome.status,
        iterations=run.turn,
        sub_calls=usage.sub_calls,
        total_input_tokens=usage.input_tokens,
        total_output_tokens=usage.output_tokens,
        elapsed_seconds=run.engine.budget.elapsed_seconds,
        cost=usage.cost_usd,
        cached_sub_calls=usage.cached_sub_calls,
        error=outcome.error,
        data=outcome.data,
        direct=run.is_direct,
        citations=citations,
        support=support,
        history=run.history,
        repl_variables=variables,
    )


async def _supported(
    run: Run, outcome: Outcome
) -> tuple[tuple[CheckedCitation, ...], Support | None]:
    """Check what the answer cites, and say how it came about; that of an inner run is not kept."""
    if outcome.answer is None or run.engine.depth > 0:
        return (), None
    given = [*run.cells.citations, *map(Citation, outcome.citations)]
    citations = await check_citations(run.source, given, outcome.answer)
    verified = sum(one.verified for one in citations)
    return citations, Support(_origin(run, outcome), len(citations), verified)


def _origin(run: Run, outcome: Outcome) -> str:
    if outcome.status != "completed":
        return "best_effort"
    if outcome.origin in ("code", "variable"):
        return "output"
    if run.cells.memory.has_run_code:
        return "output"
    return "direct" if run.is_direct else "guess"


def calls_of(engine: Engine) -> SubCaller:
    """Make what answers `llm_query` and `rlm_query` for code that no root model wrote."""
    return _calls(RunLog(engine))


def _calls(log: RunLog) -> SubCaller:
    return SubCaller(log, partial(_recurse, log.engine))


async def _recurse(
    engine: Engine, question: str, source: ContextSource, part: InnerPart
) -> RLMResponse:
    """Answer `rlm_query`: a run one level down, in a REPL of its own."""
    inner = replace(
        engine,
        root=engine.sub,
        answer_schema=None,
        before="",
        lists_variables=False,
        on_root_delta=None,
        depth=engine.depth + 1,
        recording=part.recording,
        emit=part.within(engine.emit),
    )
    started = RunStarted(version=FORMAT_VERSION, question=question, batch=part.batch, n=part.n)
    usage = engine.budget.snapshot()
    await inner.emit(RLMEvent.of(started, 0, preview(question), depth=inner.depth, usage=usage))
    options = repl_options(engine.config, seed=part.seed)
    async with engine.sandbox.open_repl(source, options) as repl:
        return await answer(question, source, repl, inner)
