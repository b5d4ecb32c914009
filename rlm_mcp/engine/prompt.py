"""What is said to a root model, turn by turn. Pure: values in, text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rlm_mcp.engine.config import RLMConfig
from rlm_mcp.engine.messages import Message
from rlm_mcp.engine.parser import Problem
from rlm_mcp.engine.system_prompt import system_prompt, worked_example

__all__ = [
    "Message",
    "NudgeReason",
    "TurnInfo",
    "best_answer_request",
    "confirm_final",
    "doubt_empty",
    "feedback",
    "first_message",
    "missing_variable",
    "nudge",
    "schema_instructions",
    "schema_repair",
    "system_prompt",
    "worked_example",
]

NudgeReason = Problem | Literal["syntax", "repeated"]


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


def first_message(
    question: str,
    description: str,
    config: RLMConfig,
    *,
    turn: TurnInfo | None = None,
    schema: Mapping[str, Any] | None = None,
    matches: str = "",
) -> str:
    """Ask the question. `description` is `describe_context`'s; `matches` what `search` found."""
    raise NotImplementedError


def feedback(question: str, shown_cells: Sequence[str], turn: TurnInfo, config: RLMConfig) -> str:
    """Show what the cells of the last turn gave (each by `show_cell`) and ask for the next."""
    raise NotImplementedError


def nudge(
    reason: NudgeReason, question: str, turn: TurnInfo, config: RLMConfig, *, detail: str = ""
) -> str:
    """Say what was wrong with a reply and what is wanted; `detail` is e.g. the syntax error."""
    raise NotImplementedError


def confirm_final(guess: str, output: str) -> str:
    """Show the output of code that ran after `guess` was written, and ask to confirm it."""
    raise NotImplementedError


def doubt_empty(value: str) -> str:
    """Ask once about an answer that is empty or zero."""
    raise NotImplementedError


def missing_variable(name: str, existing: Sequence[str]) -> str:
    """Say that `FINAL_VAR(name)` names nothing, and what exists."""
    raise NotImplementedError


def best_answer_request(
    question: str, reason: str, config: RLMConfig, *, shown_cells: Sequence[str] = ()
) -> str:
    """Ask for the best answer from what is known; `reason` says why there is no more."""
    raise NotImplementedError


def schema_instructions(schema: Mapping[str, Any]) -> str:
    """Say that the answer must be JSON that fits `schema`."""
    raise NotImplementedError


def schema_repair(error: str, attempt: int, max_attempts: int) -> str:
    """Say why the last answer did not fit the schema, in the validator's words."""
    raise NotImplementedError
