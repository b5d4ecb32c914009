"""What follows from a turn: an answer, or what the model is told next."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import Any, Literal

from rlm_mcp.engine.loop.doubts import MAX_GUESSES_DOUBTED, doubt, with_hint
from rlm_mcp.engine.loop.run import Run
from rlm_mcp.engine.loop.turn import Turn
from rlm_mcp.engine.parsing.evidence import is_computed
from rlm_mcp.engine.parsing.guarded_answer import read_answer
from rlm_mcp.engine.parsing.reply import Directive
from rlm_mcp.engine.prompts.messages import (
    confirm_extent,
    confirm_final,
    confirm_word,
    missing_variable,
    schema_repair,
    show_outputs,
    unfilled_template,
)
from rlm_mcp.engine.prompts.nudges import NudgeReason
from rlm_mcp.engine.types import RunStatus
from rlm_mcp.errors import BudgetExceededError, InvalidInputError, ModelReplyError, RLMError
from rlm_mcp.events import LoopState
from rlm_mcp.sandbox.types import Final

MAX_SCHEMA_REPAIRS = 3
GIVEN_NAMES = ("context", "context_names")
# {total} as a format string has it, and not \\frac{a} or ${x}.
TEMPLATE_FIELD = re.compile(r"(?<![\\\w$^}])\{([A-Za-z_]\w*)(?:[.\[!:][^{}]*)?\}")

# A reply that is an object or a list, in a fence or not.
BARE_JSON = re.compile(
    r"\s*(?:```|~~~)(?:json)?\s*[{\[].*[}\]]\s*(?:```|~~~)\s*|\s*[{\[].*[}\]]\s*", re.DOTALL
)
# Words that stand for the answer in examples of a call.
EXAMPLE_WORDS = frozenset(
    [
        *("answer", "final_answer", "my_answer", "result", "results", "final_result", "output"),
        *("value", "variable", "variable_name", "var_name", "response"),
    ]
)

Origin = Literal["code", "variable", "text", "prose", "guess"]


@dataclass(frozen=True)
class Outcome:
    """How a run ends. `origin` says where the answer came from, `citations` came beside it."""

    status: RunStatus
    answer: str | None = None
    data: Any = None
    origin: Origin | None = None
    error: RLMError | None = None
    citations: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """What follows from a turn.

    Args:
        state: what the run remembers from now on.
        outcome: how the run ends; None where it continues.
        message: what the model is told next.
        restarts: whether the conversation begins again with that message, without its turns.
    """

    state: LoopState
    outcome: Outcome | None = None
    message: str = ""
    restarts: bool = False


async def judge(run: Run, turn: Turn) -> Verdict:
    """Decide what follows from a turn; changes nothing itself.

    Code comes first: its own final counts, then a `FINAL_VAR`, whose value the code made. A `FINAL`
    text beside code was written before the output was seen.
    """
    verdict, final = await _judge(run, turn), turn.parsed.final
    if verdict.outcome is None or final is None:
        return verdict
    return replace(verdict, outcome=replace(verdict.outcome, citations=final.citations))


async def _judge(run: Run, turn: Turn) -> Verdict:
    parsed = turn.parsed
    if turn.final is not None:
        return await _decide(run, turn.final, "code", is_computed=is_computed(turn.code))
    if (typed := _bare_json(run, turn)) is not None:
        return await _decide(run, typed, "text")
    if parsed.final is None or parsed.problem is not None or turn.has_failed:
        return _continue(run, turn)
    if not await _names_variable(run, parsed.final):
        return await _judge_text(run, parsed.final, turn)
    final, problem = await _read_variable(run, parsed.final)
    if final is not None:
        return await _decide(run, final, "variable", is_computed=True)
    state = replace(run.state, fruitless=0 if turn.cells else run.state.fruitless + 1)
    shown = (*turn.shown, problem)
    return Verdict(state, message=run.prompts.feedback(run.question, shown, run.next_turn()))


def _bare_json(run: Run, turn: Turn) -> Final | None:
    """Return a reply that is nothing but JSON, where the answer is to be JSON."""
    parsed = turn.parsed
    is_given = run.engine.answer_schema is not None and not turn.cells
    if not is_given or (parsed.final is None and parsed.problem not in {"no_code", "not_code"}):
        return None
    return Final(parsed.prose, "str") if BARE_JSON.fullmatch(parsed.prose) else None


async def _names_variable(run: Run, final: Directive) -> bool:
    """Whether a value is meant: also by `FINAL(total)` and `FINAL(found["k"])`, if code made it."""
    if final.kind == "variable":
        return True
    known = {*GIVEN_NAMES, *await run.cells.variables()} if final.names else set[str]()
    return bool(final.names) and known.issuperset(final.names)


async def _judge_text(run: Run, final: Directive, turn: Turn) -> Verdict:
    state, text = run.state, final.value
    question = await _question_text(run, final)
    if question and text != state.guess and state.doubts < MAX_GUESSES_DOUBTED:
        state = replace(state, guess=text, doubts=state.doubts + 1)
        shown = show_outputs(turn.shown) if turn.shown else ""
        return Verdict(state, message="\n\n".join(filter(None, (shown, question))))
    if turn.cells and text != state.guess and state.doubts < MAX_GUESSES_DOUBTED:
        state = replace(state, guess=text, doubts=state.doubts + 1)
        return Verdict(state, message=confirm_final(text, "\n".join(turn.shown)))
    return await _decide(run, Final(text, "str"), "text")


async def _question_text(run: Run, final: Directive) -> str:
    """Say what is unclear in a text that was given as the answer; empty where nothing is."""
    names = TEMPLATE_FIELD.findall(final.value)
    if names and not set(names).isdisjoint(await run.cells.variables()):
        return unfilled_template(final.value)
    if final.names and final.value.lower() in EXAMPLE_WORDS:
        return confirm_word(final.value)
    return "" if final.is_certain else confirm_extent(final.value)


async def _decide(run: Run, final: Final, origin: Origin, *, is_computed: bool = False) -> Verdict:
    """Question an answer where there is cause to; otherwise accept it."""
    doubted = _doubt(run, final.text, is_computed=is_computed)
    return doubted or await _accept(run, final, origin)


def _doubt(run: Run, answer: str, *, is_computed: bool) -> Verdict | None:
    """Question an answer of a weak model where there is cause to."""
    doubted = doubt(run, answer, is_computed=is_computed)
    if doubted is None:
        return None
    state = replace(run.state, guess=answer, doubts=run.state.doubts + 1)
    return Verdict(state, message=doubted.message, restarts=doubted.restarts)


def _continue(run: Run, turn: Turn) -> Verdict:
    """Show what the code did, or say what was missing."""
    parsed, state = turn.parsed, run.state
    reason: NudgeReason | None = parsed.problem
    if reason is None and turn.is_repeated:
        reason = "repeated"
    if not turn.cells and reason is None:
        reason = "no_code"
    if parsed.final is not None and parsed.final.kind == "text" and not turn.has_failed:
        state = replace(state, guess=parsed.final.value)
    is_fruitful = turn.cells and not turn.is_repeated
    state = replace(state, fruitless=0 if is_fruitful else state.fruitless + 1)
    left, prompts = run.next_turn(), run.prompts
    if turn.is_repeated and prompts.is_for_weak_models:
        message = prompts.went_in_circles(run.cells.memory.printed, left)
        return Verdict(state, message=message, restarts=True)
    if reason is None:
        shown = with_hint(run, turn)
        message = prompts.feedback(run.question, shown, left, has_failed=turn.has_failed)
    else:
        message = prompts.nudge(
            reason, run.question, left, detail=parsed.syntax or "", shown_cells=turn.shown
        )
    return Verdict(state, message=message)


async def _read_variable(run: Run, directive: Directive) -> tuple[Final | None, str]:
    """Read the value that `FINAL_VAR` names in the REPL; without one, say why."""
    name = directive.value if directive.kind == "variable" else directive.expression
    if name.isidentifier():
        existing = tuple(await run.cells.variables())
        if name not in (*existing, *GIVEN_NAMES):
            return None, missing_variable(name, existing)
    # An expression is its own value; a string that it gives is not the name of another.
    code = f"FINAL_VAR({name!r})" if name.isidentifier() else f"FINAL({name})"
    result, shown = await run.cells.execute_one(code)
    return result.final, shown


async def _accept(run: Run, final: Final, origin: Origin) -> Verdict:
    """Accept an answer, once it fits the schema if there is one."""
    state = replace(run.state, guess=final.text)
    schema = run.engine.answer_schema
    if schema is None:
        return Verdict(state, Outcome("completed", final.text, _data_of(final), origin))
    try:
        data = await read_answer(final, schema)
    except InvalidInputError as error:
        state = replace(state, repairs=state.repairs + 1)
        if state.repairs <= MAX_SCHEMA_REPAIRS:
            message = schema_repair(error.message, state.repairs, MAX_SCHEMA_REPAIRS)
            return Verdict(state, message=message)
        unfit = ModelReplyError(f"The answer does not fit the schema: {error.message}")
        return Verdict(state, Outcome("failed", final.text, None, origin, unfit))
    return Verdict(state, Outcome("completed", final.text, data, origin))


async def judge_last(run: Run, turn: Turn, reason: BudgetExceededError) -> Outcome:
    """End a run that was stopped, with the best answer that its last turn or an earlier one gave.

    Args:
        run: its guess and its schema.
        turn: the one that was asked for the best answer.
        reason: what stopped it.
    """
    final, origin = await _best_of(run, turn)
    if final is None:
        return Outcome("exhausted", error=reason)
    schema = run.engine.answer_schema
    if schema is None:
        return Outcome("exhausted", final.text, _data_of(final), origin, reason)
    try:
        data = await read_answer(final, schema)
    except InvalidInputError:
        data = None
    return Outcome("exhausted", final.text, data, origin, reason)


async def _best_of(run: Run, turn: Turn) -> tuple[Final | None, Origin]:
    """Take whatever a last reply contains: a final of any kind, an earlier guess, or its prose."""
    parsed, guess = turn.parsed, run.state.guess
    if turn.final is not None:
        return turn.final, "code"
    if parsed.final is not None and await _names_variable(run, parsed.final):
        final, _ = await _read_variable(run, parsed.final)
        if final is not None:
            return final, "variable"
    elif parsed.final is not None and parsed.final.value.strip():
        return Final(parsed.final.value, "str"), "text"
    # Words around code, and words that only announce what comes next, answer nothing.
    is_answer = not parsed.blocks and parsed.problem not in {"promise", "tool_call", "not_code"}
    prose = Final(parsed.prose, "str") if is_answer and parsed.prose else None
    if guess and not (prose and run.state.has_started_over):
        return Final(guess, "str"), "guess"
    return prose, "prose"


def _data_of(final: Final) -> Any:  # any JSON
    return json.loads(final.json) if final.json is not None and final.type != "str" else None
