"""Reasons why a reply of the root model cannot be acted on."""

from __future__ import annotations

from typing import Literal

ReplyProblem = Literal[
    "empty",  # only white space
    "no_code",  # prose alone
    "promise",  # prose that says what will be done
    "not_code",  # fenced blocks, none of them Python
    "tool_call",  # looks like a tool call, but contains no code
    "cut",  # ended by the length limit before any code or answer
    "unclosed_fence",  # a code block without an end, cut or not parsing
    "unclosed_final",  # FINAL( without its closing parenthesis; `final` holds the text so far
    "unclosed_reasoning",  # thinking without an end
    "empty_final",  # FINAL() with nothing in it
    "bad_variable",  # FINAL_VAR( ) of something that is not a Python expression
]
