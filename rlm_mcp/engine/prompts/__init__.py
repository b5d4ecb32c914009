"""What is said to a root model, in one place to import it from."""

from __future__ import annotations

from rlm_mcp.engine.prompts.examples import worked_example
from rlm_mcp.engine.prompts.messages import (
    Glimpse,
    TurnInfo,
    answer_from_output,
    best_answer_request,
    closing,
    confirm_final,
    context_replaced,
    doubt_empty,
    doubt_unseen,
    feedback,
    finish_soon,
    first_message,
    is_small,
    missing_variable,
    question_nothing,
    reopened,
    schema_instructions,
    schema_repair,
    show_outputs,
    went_in_circles,
)
from rlm_mcp.engine.prompts.nudges import NudgeReason, nudge
from rlm_mcp.engine.prompts.system import system_prompt
from rlm_mcp.events import Message

__all__ = [
    "Glimpse",
    "Message",
    "NudgeReason",
    "TurnInfo",
    "answer_from_output",
    "best_answer_request",
    "closing",
    "confirm_final",
    "context_replaced",
    "doubt_empty",
    "doubt_unseen",
    "feedback",
    "finish_soon",
    "first_message",
    "is_small",
    "missing_variable",
    "nudge",
    "question_nothing",
    "reopened",
    "schema_instructions",
    "schema_repair",
    "show_outputs",
    "system_prompt",
    "went_in_circles",
    "worked_example",
]
