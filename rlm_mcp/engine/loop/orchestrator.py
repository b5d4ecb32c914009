"""Algorithm 1 of arXiv 2512.24601: ask, run, feed back, until answered."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import anyio

from rlm_mcp.engine.loop.judge import Outcome, accept_best, judge, take_best
from rlm_mcp.engine.loop.run import Run
from rlm_mcp.engine.loop.turn import Turn, execute
from rlm_mcp.engine.models.chat import ChatReply
from rlm_mcp.engine.parsing.reply import ParsedReply, parse_reply
from rlm_mcp.engine.prompts import answer_from_output, best_answer_request, is_small
from rlm_mcp.engine.run_context import Engine, repl_options
from rlm_mcp.engine.subcalls.nested_runs import InnerPart
from rlm_mcp.engine.subcalls.sub_caller import SubCaller
from rlm_mcp.engine.telemetry import run_span, turn_span
from rlm_mcp.engine.types import RLMResponse
from rlm_mcp.errors import BudgetExceededError, RLMError
from rlm_mcp.events import FinalAnswer
from rlm_mcp.sandbox.types import ContextSource, Repl
from rlm_mcp.text import preview

__all__ = ["Engine", "answer", "calls_of", "repl_options"]

MAX_FRUITLESS_TURNS = 3
LAST_WORD_SHARE = 0.15  # of a time limit, kept for the best answer so far
LAST_WORD_SECONDS = 30.0


async def answer(question: str, source: ContextSource, repl: Repl, engine: Engine) -> RLMResponse:
    """Answer a question over the text that `repl` holds as `context`.

    Whatever ends it, the response holds all that is known; only cancellation propagates.

    Args:
        question: what is asked.
        source: what `repl` was opened over; its metadata is shown to the model.
        repl: stays open, for its opener to look into.
        engine: models, limits, and who is told.
    """
    run = Run(question, source, repl, engine, calls_of(engine))
    with run_span(engine.tracer, engine.depth) as span:
        response = await _respond(run, await _outcome(run))
        span.response(response)
        return response


async def _outcome(run: Run) -> Outcome:
    engine = run.engine
    outcome = Outcome("failed")
    try:
        with anyio.move_on_after(_loop_seconds(engine)) as limit:
            outcome = await _loop(run)
        if limit.cancelled_caught:
            outcome = await _out_of_time(run)
    except BudgetExceededError as error:
        outcome = Outcome("exhausted", run.guess, origin="guess", error=error)
    except RLMError as error:
        outcome = Outcome("failed", run.guess, origin="guess", error=error)
    return outcome


async def _loop(run: Run) -> Outcome:
    await run.begin()
    while (reason := _reason_to_end(run)) is None:
        with turn_span(run.engine.tracer, run.iteration + 1):
            reply, parsed, turn = await _turn(run)
            outcome = await judge(run, reply, parsed, turn)
        if outcome is not None:
            return outcome
    return await _best_answer(run, reason)


async def _turn(run: Run) -> tuple[ChatReply, ParsedReply, Turn]:
    reply = await run.ask()
    parsed = parse_reply(reply.text, was_cut=reply.finish_reason == "length")
    await run.tell_code(reply, parsed.blocks)
    return reply, parsed, await execute(run, parsed.blocks)


def _reason_to_end(run: Run) -> BudgetExceededError | None:
    """Say why the next turn must be the last, which asks for the best answer."""
    if run.iteration == 0 or run.is_mid_turn:
        return None
    limit = run.config.max_iterations
    if run.iteration + 1 >= limit:
        return BudgetExceededError(f"The last of {limit} turns was reached.", limit="iterations")
    if run.fruitless >= MAX_FRUITLESS_TURNS:
        return BudgetExceededError(
            f"{run.fruitless} turns in a row held neither new code nor an answer.",
            limit="iterations",
        )
    scarce = run.engine.budget.last_turn_limit
    if scarce is not None:
        return BudgetExceededError(f"The budget of {scarce} is left for one turn.", limit=scarce)
    return None


async def _best_answer(run: Run, reason: BudgetExceededError) -> Outcome:
    if run.iteration >= run.config.max_iterations:
        return Outcome("exhausted", run.guess, origin="guess", error=reason)
    if run.begin_last_word():
        if is_small(run.config) and run.found and run.engine.answer_schema is None:
            run.start_over(answer_from_output(run.question, run.found))
        else:
            run.tell(best_answer_request(run.question, reason.message, run.config))
    with turn_span(run.engine.tracer, run.iteration + 1):
        _, parsed, turn = await _turn(run)
        final, origin = await take_best(run, parsed, turn)
    return await accept_best(run, final, origin, reason)


async def _out_of_time(run: Run) -> Outcome:
    """Ask for the best answer in what is left of the time."""
    seconds = run.config.max_seconds
    reason = BudgetExceededError(f"The {seconds} seconds are nearly over.", limit="seconds")
    with anyio.move_on_after(run.engine.budget.seconds_left):
        return await _best_answer(run, reason)
    return Outcome("exhausted", run.guess, origin="guess", error=reason)


def _loop_seconds(engine: Engine) -> float | None:
    left = engine.budget.seconds_left
    return None if left is None else left - min(left * LAST_WORD_SHARE, LAST_WORD_SECONDS)


async def _respond(run: Run, outcome: Outcome) -> RLMResponse:
    if outcome.answer is not None:
        final = FinalAnswer(
            answer=outcome.answer,
            data=outcome.data,
            origin=outcome.origin,
            status=outcome.status,
            direct=run.is_direct,
        )
        await run.emit(final, preview(outcome.answer))
    usage = run.engine.budget.snapshot()
    return RLMResponse(
        answer=outcome.answer,
        status=outcome.status,
        iterations=run.iteration,
        sub_calls=usage.sub_calls,
        total_input_tokens=usage.input_tokens,
        total_output_tokens=usage.output_tokens,
        elapsed_seconds=run.engine.budget.elapsed_seconds,
        cost=usage.cost_usd,
        cached_sub_calls=usage.cached_sub_calls,
        error=outcome.error,
        data=outcome.data,
        direct=run.is_direct,
        history=run.history,
        repl_variables=await run.variables(),
    )


def calls_of(engine: Engine) -> SubCaller:
    """Make what answers `llm_query` and `rlm_query` for code that no root model wrote."""
    return SubCaller(engine, partial(_recurse, engine))


async def _recurse(
    engine: Engine, question: str, source: ContextSource, part: InnerPart
) -> RLMResponse:
    """Answer `rlm_query`: a run one level down, in a REPL of its own."""
    inner = replace(
        engine,
        root=engine.sub,
        answer_schema=None,
        on_root_delta=None,
        depth=engine.depth + 1,
        recording=part.recording,
        emit=part.within(engine.emit),
    )
    options = repl_options(engine.config, seed=part.seed)
    async with engine.sandbox.open_repl(source, options) as repl:
        return await answer(question, source, repl, inner)
