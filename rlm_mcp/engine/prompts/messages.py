"""What is said to a root model from turn to turn. Pure: values in, text out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlm_mcp.engine.config import RLMConfig
from rlm_mcp.engine.prompts.display import cut_middle
from rlm_mcp.text import nearest

_MAX_NAMES = 30
_MAX_GUESS_CHARS = 1_000
_MAX_ERROR_CHARS = 2_000
_MAX_REMEMBERED_CHARS = 600


@dataclass(frozen=True)
class TurnInfo:
    """Where the run stands before the turn that is asked for; None: no such limit.

    Args:
        iteration: the turn to be written, from 1.
        max_iterations: turns in all.
        sub_calls_left: sub-calls left in the whole tree of the run.
        seconds_left: wall-clock seconds left.
        usd_left: USD left.
        tokens_left: tokens left, in and out.
    """

    iteration: int
    max_iterations: int
    sub_calls_left: int | None = None
    seconds_left: float | None = None
    usd_left: float | None = None
    tokens_left: int | None = None

    @property
    def is_last(self) -> bool:
        """Whether no turn follows this one."""
        return self.iteration >= self.max_iterations


@dataclass(frozen=True)
class Glimpse:
    """What the first message shows of a text besides its description.

    `matches` is what `search(question)` printed. `whole` is the whole text with its description,
    which it then stands for.
    """

    matches: str = ""
    whole: str = ""


def is_small(config: RLMConfig) -> bool:
    """Whether messages are written for a weak model with a small window."""
    return config.prompt_variant == "small_context"


def first_message(
    question: str,
    description: str,
    config: RLMConfig,
    *,
    turn: TurnInfo | None = None,
    schema: Mapping[str, Any] | None = None,
    glimpse: Glimpse | None = None,
) -> str:
    """Ask the question.

    Args:
        question: the user's, as it is.
        description: what `describe_context` says.
        config: its variant.
        turn: what is left; None shows nothing.
        schema: the JSON Schema that the answer must fit.
        glimpse: more of the text, where a look was taken at it.
    """
    seen = glimpse or Glimpse()
    parts = ["New session." if is_small(config) else "", f"Question: {question}"]
    parts.append(seen.whole or description)
    parts.append(f"Places that match the question:\n{seen.matches}" if seen.matches.strip() else "")
    parts.append(schema_instructions(schema) if schema is not None else "")
    left = f"{status(turn, config)} " if turn else ""
    parts.append(left + _wanted_first(config, is_whole=bool(seen.whole)))
    return ("\n" if is_small(config) else "\n\n").join(part for part in parts if part)


def _wanted_first(config: RLMConfig, *, is_whole: bool) -> str:
    if is_whole:
        block = "```python" if is_small(config) else "```repl"
        return (
            "The text is short, so you have read all of it. If reading is enough, answer now with "
            f"FINAL(...) on a line of its own. What has to be counted or computed, do in a {block} "
            "block."
        )
    if is_small(config):
        return "Write the code for turn 1."
    return "Look at the text first: write a ```repl block."


def feedback(question: str, shown_cells: Sequence[str], turn: TurnInfo, config: RLMConfig) -> str:
    """Show what the cells of the last turn gave (each by `show_cell`) and ask for the next."""
    return f"{show_outputs(shown_cells)}\n{closing(question, turn, config)}"


def show_outputs(shown_cells: Sequence[str]) -> str:
    """Put the outputs of one turn under headings."""
    if len(shown_cells) == 1:
        return f"Output:\n{shown_cells[0]}"
    numbered = enumerate(shown_cells, 1)
    return "\n".join(f"Output of block {number}:\n{shown}" for number, shown in numbered)


def closing(question: str, turn: TurnInfo, config: RLMConfig) -> str:
    """End a message: what is left, and what is wanted now."""
    if not is_small(config):
        last = " This is the last turn: answer now with FINAL or FINAL_VAR." if turn.is_last else ""
        return f"\n{status(turn, config)}{last}"
    asked = (
        "This is the last turn: call FINAL with the answer now, in one ```python block."
        if turn.is_last
        else f"Write one ```python block for turn {turn.iteration}, or call FINAL with the answer."
    )
    return f"Question: {question}\n{status(turn, config)} {asked}"


def status(turn: TurnInfo, config: RLMConfig) -> str:
    """Say in one line what is left."""
    parts = [f"Turn {turn.iteration} of {turn.max_iterations}"]
    if turn.sub_calls_left is not None and config.enable_sub_calls:
        parts.append(f"{turn.sub_calls_left} sub-calls left")
    if turn.seconds_left is not None:
        parts.append(f"{max(0, round(turn.seconds_left))} s left")
    if turn.usd_left is not None:
        parts.append(f"${max(0.0, turn.usd_left):.2f} left")
    if turn.tokens_left is not None:
        parts.append(f"{turn.tokens_left} tokens left")
    return f"[{' · '.join(parts)}]"


def confirm_final(guess: str, output: str) -> str:
    """Show the output of code that ran after `guess` was written, and ask to confirm it.

    `output` is what `show_cell` or `show_outputs` gave.
    """
    return (
        f"You wrote this answer before you saw what your code prints:\n"
        f"{cut_middle(guess, _MAX_GUESS_CHARS)}\n\n"
        f"The code has run now. It printed:\n{output}\n\n"
        "Does the output bear the answer out? If so, give the same FINAL again, without code. If "
        "not, correct it, or go on with code."
    )


def doubt_empty(value: str) -> str:
    """Ask once about an answer that is empty or zero."""
    return f"Your answer {value!r} was not taken yet. {question_nothing()}"


def question_nothing(*, of_replies: bool = False, number: str = "") -> str:
    """Say what a zero or an empty result often means.

    Args:
        of_replies: whether replies to sub-calls were looked through, and not the text.
        number: a number that the code looked for as text.
    """
    if of_replies:
        return (
            "An empty or zero result often means that the code does not fit the way the replies "
            'are written: "Yes." is not "yes". Print a few of them, and look at them.'
        )
    told = (
        "An empty or zero result often means that the code does not fit the way the text is "
        "written. Print a few lines that should match, for example with search(…), and look at "
        "them."
    )
    if not number:
        return told
    pattern = re.sub(r"\d+", lambda _: r"(\d+)", number, count=1)
    return (
        f"{told} Your code looks for the very text {number!r}: to compare numbers, take them out "
        f'of a line, as in int(re.search(r"{pattern}", line).group(1)).'
    )


def went_in_circles(printed: str, turn: TurnInfo, config: RLMConfig) -> str:
    """Say to a model that begins again, without the turns before, what they gave."""
    asked = "call FINAL now" if turn.is_last else "call FINAL with the answer, or try another way"
    shown = (
        f"Earlier code printed:\n{cut_middle(printed, _MAX_REMEMBERED_CHARS)}\n" if printed else ""
    )
    return f"{shown}{status(turn, config)} The same code gives the same again: {asked}."


def doubt_unseen(value: str) -> str:
    """Ask about an answer that nothing printed so far holds."""
    return (
        f"Your answer {cut_middle(value, _MAX_GUESS_CHARS)!r} was not taken yet: nothing that your "
        "code printed holds it. Find it in `context` with code and print it, or compute it."
    )


def context_replaced() -> str:
    """Say that code put something else in the place of the text."""
    return (
        "[Your code assigned `context`. The text was put back there: read it, do not make up "
        "another, and give what you make of it a name of its own.]"
    )


def answer_from_output(question: str, shown: str) -> str:
    """Ask for the answer in a fresh conversation, from what was printed."""
    return (
        f"Question: {question}\n\nA program read the text for it and printed:\n{shown}\n\n"
        "Give the answer to the question and nothing else."
    )


def missing_variable(name: str, existing: Sequence[str]) -> str:
    """Say that `FINAL_VAR(name)` names nothing, and what exists."""
    told = f"There is no variable `{cut_middle(name, 100)}`."
    if not existing:
        return f"{told} Your code has not assigned any yet: assign it in a code block first."
    close = nearest(name, existing)
    hint = f" Did you mean `{close[0]}`?" if close else ""
    names = ", ".join(existing[-_MAX_NAMES:])
    more = f" and {len(existing) - _MAX_NAMES} more" if len(existing) > _MAX_NAMES else ""
    return f"{told}{hint} These exist: {names}{more}. Assign it in a code block, or name another."


def best_answer_request(
    question: str, reason: str, config: RLMConfig, *, shown_cells: Sequence[str] = ()
) -> str:
    """Ask for the best answer from what is known.

    Args:
        question: the user's.
        reason: why there is no more, e.g. "the last turn is over".
        config: its variant.
        shown_cells: outputs not yet shown, or to be shown again to a fresh conversation.
    """
    shown = f"{show_outputs(shown_cells)}\n\n" if shown_cells else ""
    asked = f"{shown}Question: {question}\nNo more code will run: {reason.rstrip('.')}."
    if is_small(config):
        return f"{asked} Write the answer as FINAL(...), with nothing else."
    return (
        f"{asked} Give the best answer that the output so far supports, as FINAL(...), or as "
        "FINAL_VAR(...) if a variable holds it. If it is not complete or not certain, say so in it."
    )


def finish_soon(limit: str) -> str:
    """Say that a limit is nearly used up."""
    return (
        f"[{limit} are used up. Finish now: do only what the answer still needs, and give it with "
        "what you have.]"
    )


def reopened(question: str, turn: TurnInfo, config: RLMConfig) -> str:
    """Say that work goes on after its end, with all that was there."""
    return (
        "The work goes on: there is room again, code runs again, and your variables are as you "
        "left them. If your last answer is whole and borne out, give it again; if not, go on.\n"
        f"{closing(question, turn, config)}"
    )


def schema_instructions(schema: Mapping[str, Any]) -> str:
    """Say that the answer must be JSON that fits `schema`."""
    return (
        "The answer must be JSON that fits this JSON Schema:\n"
        f"{json.dumps(schema, ensure_ascii=False)}\n"
        "Build it in code as a dict, list, str, number or bool, and hand it over with FINAL(value)."
    )


def schema_repair(error: str, attempt: int, max_attempts: int) -> str:
    """Say why the last answer did not fit the schema, in the validator's words.

    `attempt` counts the repairs asked for, from 1.
    """
    return (
        f"The answer does not fit the JSON Schema (repair {attempt} of {max_attempts}):\n"
        f"{cut_middle(error, _MAX_ERROR_CHARS)}\n"
        "Mend just this and give the whole answer again with FINAL(value)."
    )
