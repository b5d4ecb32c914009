"""What is wrong with a reply that cannot be acted on, in words for the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from rlm_mcp.engine.parsing.problems import ReplyProblem

NudgeReason = ReplyProblem | Literal["repeated"]

WHAT_WAS_WRONG: Mapping[NudgeReason, str] = {
    "empty": "Your reply was empty.",
    "no_code": "Your reply contained neither a code block nor a final answer, so nothing was run. "
    "If it was the answer, put it into FINAL(...) on a line of its own.",
    "promise": "You said what you would do, but nothing was run. Do it now, in code.",
    "not_code": "None of your blocks was Python, so nothing was run.",
    "tool_call": "There are no tools to call here. Call all functions in Python code.",
    "cut": "Your reply reached its length limit before it came to code or an answer. Be brief.",
    "unclosed_fence": "Your code block has no end, so it was not run. Write it again, shorter; "
    "split the work over several turns.",
    "unclosed_final": "Your FINAL( was cut off before its closing parenthesis. Build a long answer "
    "in a variable and return it with FINAL_VAR, or answer more briefly.",
    "unclosed_reasoning": "Your thinking did not end, so nothing was run. Think less, and write "
    "the code.",
    "empty_final": "Your FINAL was empty. Put the answer into it.",
    "bad_variable": "FINAL_VAR takes the name of one variable. Put words into FINAL(...).",
    "repeated": "This is the same code as before, and its output is the same. Do something "
    "different, or answer.",
}
