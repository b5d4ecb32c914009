"""What follows from a turn: an answer, or what the model is told next."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from anyio import to_thread

from rlm_mcp.engine.loop.run import Run
from rlm_mcp.engine.loop.turn import Turn, execute_one
from rlm_mcp.engine.models.chat import ChatReply
from rlm_mcp.engine.parsing.evidence import (
    EMPTY_ANSWERS,
    is_computed,
    is_empty_output,
    is_shown,
    number_tested_as_text,
)
from rlm_mcp.engine.parsing.reply import Directive, ParsedReply
from rlm_mcp.engine.parsing.typed_answer import read_typed_answer
from rlm_mcp.engine.prompts import (
    NudgeReason,
    closing,
    confirm_final,
    doubt_empty,
    doubt_unseen,
    feedback,
    is_small,
    missing_variable,
    nudge,
    question_nothing,
    schema_repair,
    went_in_circles,
)
from rlm_mcp.engine.types import RunStatus
from rlm_mcp.errors import BudgetExceededError, InvalidInputError, ModelReplyError, RLMError
from rlm_mcp.sandbox.types import Final

MAX_SCHEMA_REPAIRS = 3

Origin = Literal["code", "variable", "text", "prose", "guess"]


@dataclass(frozen=True)
class Outcome:
    """How a run ends. `origin` says where the answer came from."""

    status: RunStatus
    answer: str | None = None
    data: Any = None
    origin: Origin | None = None
    error: RLMError | None = None


async def judge(run: Run, reply: ChatReply, parsed: ParsedReply, turn: Turn) -> Outcome | None:
    """Decide after a turn; None goes on, with what the model is told already added.

    Code comes first: its own final counts, then a `FINAL_VAR`, whose value is what the code made.
    A `FINAL` text beside code was written before the output was seen.
    """
    is_repeated = run.note_reply(reply.text)
    if turn.cells and turn.cells[-1].final is not None:
        return await _judge_code(run, turn.cells[-1].final, parsed.blocks[len(turn.cells) - 1].code)
    if parsed.final is None or parsed.problem is not None or turn.has_failed:
        _go_on(run, parsed, turn, is_repeated=is_repeated)
        return None
    if await _names_variable(run, parsed.final):
        final, problem = await take_variable(run, parsed.final)
        if final is not None:
            is_doubted = question(run, final.text, is_computed=True)
            return None if is_doubted else await _accept(run, final, "variable")
        run.fruitless = 0 if turn.cells else run.fruitless + 1
        run.tell(feedback(run.question, (*turn.shown, problem), run.next_turn(), run.config))
        return None
    return await _judge_text(run, parsed.final.value, turn)


async def _names_variable(run: Run, final: Directive) -> bool:
    """Whether the value of a variable is meant: `FINAL(total)` too, where the code made `total`."""
    if final.kind == "variable":
        return True
    return final.is_name and final.value in await run.variables()


async def _judge_code(run: Run, final: Final, code: str) -> Outcome | None:
    if question(run, final.text, is_computed=is_computed(code)):
        return None
    return await _accept(run, final, "code")


async def _judge_text(run: Run, text: str, turn: Turn) -> Outcome | None:
    if turn.cells and text != run.guess and run.guesses_doubted < MAX_GUESSES_DOUBTED:
        run.guess = text
        run.guesses_doubted += 1
        run.tell(confirm_final(text, "\n".join(turn.shown)))
        return None
    if question(run, text):
        return None
    return await _accept(run, Final(text, "str"), "text")


def _go_on(run: Run, parsed: ParsedReply, turn: Turn, *, is_repeated: bool) -> None:
    """Show what the code did, or say what was missing."""
    reason: NudgeReason | None = parsed.problem
    if reason is None and is_repeated:
        reason = "repeated"
    if not turn.cells and reason is None:
        reason = "no_code"
    if parsed.final is not None and parsed.final.kind == "text" and not turn.has_failed:
        run.guess = parsed.final.value
    run.fruitless = 0 if turn.cells and not is_repeated else run.fruitless + 1
    detail = parsed.syntax or ""
    before = run.next_turn()
    if is_repeated and is_small(run.config):
        run.begin_again(went_in_circles(run.printed, before, run.config))
    elif reason is None:
        shown = with_hint(run, turn, parsed.blocks[len(turn.cells) - 1].code)
        run.tell(feedback(run.question, shown, before, run.config))
    else:
        said = nudge(
            reason, run.question, before, run.config, detail=detail, shown_cells=turn.shown
        )
        run.tell(said)


async def take_variable(run: Run, directive: Directive) -> tuple[Final | None, str]:
    """Read the value that `FINAL_VAR` names in the REPL; without one, say why."""
    name = directive.value
    if name.isidentifier():
        existing = tuple(await run.variables())
        if name not in existing and name != "context":
            return None, missing_variable(name, existing)
    # An expression is its own value; a string that it gives is not the name of another.
    code = f"FINAL_VAR({name!r})" if name.isidentifier() else f"FINAL({name})"
    result, shown = await execute_one(run, code)
    return result.final, shown


async def _accept(run: Run, final: Final, origin: Origin) -> Outcome | None:
    """Take an answer, once it fits the schema if there is one."""
    schema = run.engine.answer_schema
    if schema is None:
        return Outcome("completed", final.text, _data_of(final), origin)
    try:
        data = await _typed(final, schema)
    except InvalidInputError as error:
        run.repairs += 1
        run.guess = final.text
        if run.repairs > MAX_SCHEMA_REPAIRS:
            unfit = ModelReplyError(f"The answer does not fit the schema: {error.message}")
            return Outcome("failed", final.text, None, origin, unfit)
        run.tell(schema_repair(error.message, run.repairs, MAX_SCHEMA_REPAIRS))
        return None
    return Outcome("completed", final.text, data, origin)


async def _typed(final: Final, schema: Mapping[str, Any]) -> Any:
    # In a thread: the validator is loaded on first use, and an answer may be long.
    return await to_thread.run_sync(read_typed_answer, final, schema)


async def take_best(run: Run, parsed: ParsedReply, turn: Turn) -> tuple[Final | None, Origin]:
    """Take whatever a last reply holds: a final of any kind, an earlier guess, or its prose."""
    if turn.cells and turn.cells[-1].final is not None:
        return turn.cells[-1].final, "code"
    if parsed.final is not None and await _names_variable(run, parsed.final):
        final, _ = await take_variable(run, parsed.final)
        if final is not None:
            return final, "variable"
    elif parsed.final is not None and parsed.final.value.strip():
        return Final(parsed.final.value, "str"), "text"
    # Words around code, and words that only announce what comes next, answer nothing.
    is_answer = not parsed.blocks and parsed.problem not in {"promise", "tool_call", "not_code"}
    prose = Final(parsed.prose, "str") if is_answer and parsed.prose else None
    if run.guess and not (prose and run.has_started_over):
        return Final(run.guess, "str"), "guess"
    return prose, "prose"


async def accept_best(
    run: Run, final: Final | None, origin: Origin, reason: BudgetExceededError
) -> Outcome:
    """End a run that was stopped, with the best that it has."""
    if final is None:
        return Outcome("exhausted", error=reason)
    schema = run.engine.answer_schema
    if schema is None:
        return Outcome("exhausted", final.text, _data_of(final), origin, reason)
    try:
        data = await _typed(final, schema)
    except InvalidInputError:
        data = None
    return Outcome("exhausted", final.text, data, origin, reason)


def _data_of(final: Final) -> Any:  # any JSON
    return json.loads(final.json) if final.json is not None and final.type != "str" else None


MAX_GUESSES_DOUBTED = 3


def question(run: Run, answer: str, *, is_computed: bool = False) -> bool:
    """Question an answer where there is cause to; gives whether the model was told.

    Args:
        run: keeps the answer as its guess.
        answer: as text.
        is_computed: whether code made it from the text, so that it need not have been shown.
    """
    is_known = answer == run.guess
    run.guess = answer
    if is_known or not is_small(run.config) or run.guesses_doubted >= MAX_GUESSES_DOUBTED:
        return False
    turn = run.next_turn()
    if not run.has_run_code and not run.is_direct:
        run.tell(nudge("no_code", run.question, turn, run.config))
    elif answer.strip() in EMPTY_ANSWERS:
        # The code stands in the conversation, and would be written again.
        run.begin_again(f"{doubt_empty(answer)}\n{closing(run.question, turn, run.config)}")
    elif not (is_computed or run.is_direct or is_shown(answer, run.shown, run.question)):
        run.tell(f"{doubt_unseen(answer)}\n{closing(run.question, turn, run.config)}")
    else:
        return False
    run.guesses_doubted += 1
    return True


def with_hint(run: Run, turn: Turn, code: str) -> tuple[str, ...]:
    """Show the outputs, and say to a small model that printed a zero what that often means."""
    last = turn.cells[-1]
    if is_small(run.config) and last.error is None and is_empty_output(last.output):
        number = number_tested_as_text(code)
        hint = question_nothing(of_replies="llm_query" in code, number=number)
        return (*turn.shown[:-1], f"{turn.shown[-1]}\n{hint}")
    return turn.shown
