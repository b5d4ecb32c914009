"""Where an answer or an output of a weak model gives cause to doubt, and what it is told then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlm_mcp.engine.parsing.evidence import (
    EMPTY_ANSWERS,
    has_found_nothing,
    has_many_ties,
    is_echo,
    is_empty_output,
    is_shown,
    is_yes,
    number_tested_as_text,
)
from rlm_mcp.engine.prompts.asked import (
    YES_OR_NO,
    asks_for_extreme,
    asks_for_number_in_text,
    compare_all,
    find_by_form,
    lacks_number,
    take_number,
    tell_apart,
)
from rlm_mcp.engine.prompts.first_look import describe_parts
from rlm_mcp.engine.prompts.messages import (
    doubt_empty,
    doubt_form,
    doubt_one_of_many,
    doubt_unseen,
    doubt_yes,
    judge_items,
    question_nothing,
    want_number,
)

if TYPE_CHECKING:
    from rlm_mcp.engine.loop.run import Run
    from rlm_mcp.engine.loop.turn import Turn

MAX_GUESSES_DOUBTED = 3


@dataclass(frozen=True)
class Doubt:
    """What a model is told of its answer, and whether its conversation begins again with that."""

    message: str
    restarts: bool = False


def doubt(run: Run, answer: str, *, is_computed: bool) -> Doubt | None:
    """Question an answer of a weak model where there is cause to; the same one again is taken.

    Args:
        run: what was printed and asked so far.
        answer: as text.
        is_computed: whether code made it from the text, so that it need not have been shown.
    """
    state, prompts = run.state, run.prompts
    if answer == state.guess or not prompts.is_for_weak_models:
        return None
    if state.doubts >= MAX_GUESSES_DOUBTED:
        return None
    turn = run.next_turn()
    if not run.cells.memory.has_run_code and not run.is_direct:
        return Doubt(prompts.nudge("no_code", run.question, turn))
    closing = prompts.closing(run.question, turn)
    if answer.strip() in EMPTY_ANSWERS:
        # The code is in the conversation, and would be written again.
        said = doubt_empty(answer, _hint_after_nothing(run))
        return Doubt(f"{said}\n{closing}", restarts=True)
    said = _cause(run, answer, is_computed=is_computed)
    return Doubt(f"{said}\n{closing}") if said else None


def _cause(run: Run, answer: str, *, is_computed: bool) -> str:
    """Say why an answer is doubted; empty where nothing speaks against it."""
    question, printed = run.question, run.cells.memory.last_printed
    if lacks_number(answer, question):
        return doubt_form(answer, take_number(answer, question) or _parts(run))
    is_from_guess = bool(run.state.guess) and is_shown(answer, run.state.guess or "", "")
    if is_computed or run.is_direct or is_from_guess:
        return ""
    if YES_OR_NO.search(question) and is_yes(answer) and has_found_nothing(printed):
        return doubt_yes(answer)
    if has_many_ties(printed) and not YES_OR_NO.search(question):
        return doubt_one_of_many(answer, _hint_after_ties(run))
    return "" if _is_supported(run, answer) else doubt_unseen(answer)


def _is_supported(run: Run, answer: str) -> bool:
    """Whether what was shown contains the answer; after nothing, not the question's own words."""
    printed = run.cells.memory.last_printed
    if printed and has_found_nothing(printed) and is_echo(answer, run.question):
        return False
    return is_shown(answer, run.shown, run.question)


def with_hint(run: Run, turn: Turn) -> tuple[str, ...]:
    """Return the outputs; a weak model whose code failed or found too little gets a hint."""
    last = turn.cells[-1]
    if not run.prompts.is_for_weak_models:
        return turn.shown
    hint = ""
    if last.error:
        hint = _parts(run)
    elif has_found_nothing(last.output):
        hint = _hint_after_nothing(run, turn.code, has_searched=not is_empty_output(last.output))
    elif has_many_ties(last.output):
        hint = _hint_after_ties(run)
    elif asks_for_number_in_text(run.question) and not any(map(str.isdigit, last.output)):
        hint = want_number()
    return (*turn.shown[:-1], f"{turn.shown[-1]}\n{hint}") if hint else turn.shown


def _hint_after_nothing(run: Run, code: str = "", *, has_searched: bool = False) -> str:
    """Say what an empty result often means for a text and a question like these.

    After a search it means that the text has none of the words, which is said already.
    """
    number = number_tested_as_text(code)
    has_asked = "ask_each" in code or "llm_query" in code
    can_ask = run.engine.config.enable_sub_calls and not has_asked
    if run.shape == "items" and can_ask and not number:
        return judge_items()
    by_form = find_by_form(run.question, is_list=run.source.is_list)
    if by_form and not number and "findall" not in code:
        return by_form
    if has_searched:
        return ""
    said = question_nothing(of_replies="llm_query" in code, number=number)
    return "\n".join(filter(None, (said, _parts(run))))


def _hint_after_ties(run: Run) -> str:
    if asks_for_extreme(run.question):
        return compare_all(run.question, run.sample)
    return tell_apart(run.question)


def _parts(run: Run) -> str:
    return "\n".join(describe_parts(run.sample)) if run.sample else ""
