"""What the root is told of earlier questions, where a run goes on in their REPL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlm_mcp.sandbox.types import Variable
from rlm_mcp.text import cut, names_in_line, preview

MAX_QUESTION_CHARS = 500
MAX_ANSWER_CHARS = 1_500
MAX_VARIABLES = 40
MAX_PREVIEW_CHARS = 80


@dataclass(frozen=True)
class Earlier:
    """A question that was asked before; `answer` is None where it had none."""

    question: str
    answer: str | None


def describe_earlier(
    earlier: Sequence[Earlier], variables: Sequence[Variable], lost: Sequence[str]
) -> str:
    """Say what was asked and answered, and which variables there are.

    Args:
        earlier: the questions, oldest first.
        variables: those in the REPL.
        lost: those that could not be restored, each with the reason.
    """
    lines = ["This REPL has answered questions before; their variables are still there."]
    for one in earlier:
        answer = cut(one.answer, MAX_ANSWER_CHARS) if one.answer is not None else "(no answer)"
        lines += [f"Asked: {cut(one.question, MAX_QUESTION_CHARS)}", f"Answered: {answer}"]
    lines += [
        f"- `{one.name}` ({one.type}, {one.size:,}): {_preview(one)}"
        for one in variables[-MAX_VARIABLES:]
    ]
    if not variables:
        lines.append("It has no variables.")
    elif len(variables) > MAX_VARIABLES:
        lines.append(f"- and {len(variables) - MAX_VARIABLES:,} more; SHOW_VARS() lists them")
    if lost:
        lines.append(f"Lost variables: {names_in_line(lost)}.")
    return "\n".join(lines)


def _preview(variable: Variable) -> str:
    return preview(variable.preview, MAX_PREVIEW_CHARS)
