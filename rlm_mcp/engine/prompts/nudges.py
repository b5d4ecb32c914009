"""What is said to a reply that cannot be acted on: what was wrong, and what is wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from rlm_mcp.engine.config import RLMConfig
from rlm_mcp.engine.parsing.reply import Problem
from rlm_mcp.engine.prompts.display import cut_middle
from rlm_mcp.engine.prompts.messages import TurnInfo, closing, is_small, show_outputs

NudgeReason = Problem | Literal["syntax", "repeated"]

_MAX_DETAIL_CHARS = 2_000

_WRONG: Mapping[NudgeReason, str] = {
    "empty": "Your reply was empty.",
    "no_code": "Your reply held neither a code block nor a final answer, so nothing was run. If "
    "it was the answer, put it into FINAL(...) on a line of its own.",
    "promise": "You said what you would do, and nothing was run. Do it now, in code.",
    "not_code": "None of your blocks was Python, so nothing was run.",
    "tool_call": "There are no tools to call here. All functions are called in Python code.",
    "cut": "Your reply reached its length limit before it came to code or an answer. Be brief.",
    "unclosed_fence": "Your code block has no end, so it was not run. Write it again, shorter; "
    "split the work over several turns.",
    "unclosed_final": "Your FINAL( was cut before its closing parenthesis. Build a long answer in "
    "a variable and hand that over with FINAL_VAR, or answer more briefly.",
    "unclosed_reasoning": "Your thinking came to no end, so nothing was run. Think less, and write "
    "the code.",
    "empty_final": "Your FINAL was empty. Put the answer into it.",
    "bad_variable": "FINAL_VAR takes the name of one variable. Words go into FINAL(...).",
    "syntax": "Your code does not parse, so it was not run:",
    "repeated": "This is the same code as before, and it gives the same output. Do something "
    "different, or answer.",
}


def nudge(
    reason: NudgeReason,
    question: str,
    turn: TurnInfo,
    config: RLMConfig,
    *,
    detail: str = "",
    shown_cells: Sequence[str] = (),
) -> str:
    """Say what was wrong with a reply, show the form that is wanted, and what is left.

    Args:
        reason: what the parser or the loop found wrong.
        question: the user's; repeated to weak models.
        turn: what is left.
        config: its variant.
        detail: the particulars, e.g. the syntax error with line and caret.
        shown_cells: outputs of the blocks that ran all the same.
    """
    parts = [show_outputs(shown_cells) if shown_cells else "", _WRONG[reason]]
    parts.append(cut_middle(detail, _MAX_DETAIL_CHARS))
    if is_small(config):
        parts.append("Write one block like this:\n```python\nprint(context[:300])\n```")
    elif not turn.is_last:
        parts.append(
            "Code goes into a fenced block that begins with ```repl and ends with ```; the answer "
            "into FINAL(...) or FINAL_VAR(...) at the start of a line."
        )
    parts.append(closing(question, turn, config))
    return "\n".join(part for part in parts if part)
