"""What a small model's answer is questioned about before it is taken.

Such models answer before they have looked, hand over a zero where their code did not fit the text,
and make up a value after an error. Each is told once; the same answer again is taken.
"""

from __future__ import annotations

from rlm_mcp.engine.cells import Turn
from rlm_mcp.engine.evidence import (
    EMPTY_ANSWERS,
    is_empty_output,
    is_shown,
    number_tested_as_text,
)
from rlm_mcp.engine.prompt import (
    closing,
    doubt_empty,
    doubt_unseen,
    is_small,
    nudge,
    question_nothing,
)
from rlm_mcp.engine.run import Run

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
