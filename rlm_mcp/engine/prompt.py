"""What is said to a root model, in one place to import it from."""

from __future__ import annotations

from rlm_mcp.engine.examples import worked_example
from rlm_mcp.engine.messages import Message
from rlm_mcp.engine.nudges import NudgeReason, nudge
from rlm_mcp.engine.system_prompt import system_prompt
from rlm_mcp.engine.turns import (
    Glimpse,
    TurnInfo,
    best_answer_request,
    confirm_final,
    doubt_empty,
    feedback,
    first_message,
    is_small,
    missing_variable,
    schema_instructions,
    schema_repair,
    show_outputs,
)

__all__ = [
    "Glimpse",
    "Message",
    "NudgeReason",
    "TurnInfo",
    "best_answer_request",
    "confirm_final",
    "doubt_empty",
    "feedback",
    "first_message",
    "is_small",
    "missing_variable",
    "nudge",
    "schema_instructions",
    "schema_repair",
    "show_outputs",
    "system_prompt",
    "worked_example",
]
