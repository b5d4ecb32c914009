"""The score `regex`: a batch's own pattern is looked for where it can hold nobody for ever."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

from rlm_mcp.engine.parsing.guarded_process import PROCESSOR_SECONDS, run_guarded
from rlm_mcp.engine.parsing.pattern_costs import most_steps
from rlm_mcp.errors import InvalidInputError
from rlm_mcp.service.batch.matching import is_found

# They take less time than the process would need to start.
_FEW_STEPS = 1_000_000
_PROGRAM = Path(__file__).with_name("matching.py")


def why_invalid(pattern: str) -> str:
    """Say what keeps a pattern from being used; empty where nothing does."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of what may mean something else one day
            re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return str(error)
    return ""


async def match_score(answer: str, pattern: str) -> float:
    """Return 1 where a pattern is found in an answer, else 0.

    Raises:
        InvalidInputError: that takes too long.
        SandboxError: no process can be started.
    """
    if most_steps({"pattern": pattern}, len(answer)) <= _FEW_STEPS:
        return float(is_found(pattern, answer))
    asked = json.dumps([pattern, answer]).encode()
    said = await run_guarded(["-S", str(_PROGRAM), str(PROCESSOR_SECONDS)], asked)
    if said is None:
        raise InvalidInputError(
            f"Looking for the pattern {pattern[:100]!r} took over {PROCESSOR_SECONDS} s.",
            fix="Avoid nested repetition such as (a+)+ in it.",
        )
    return float(json.loads(said))
