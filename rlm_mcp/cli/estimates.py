"""Prints what a question would cost."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from rlm_mcp.cli.output import say
from rlm_mcp.service.runs.estimating import DirectCall, Estimate, RecordedRuns
from rlm_mcp.text import counted, dollars, duration

_LIMITS: Mapping[str, Callable[[Any], str]] = {
    "max_usd": dollars,
    "max_tokens": lambda tokens: counted(tokens, "token"),
    "max_seconds": duration,
    "max_sub_calls": lambda calls: counted(calls, "sub-call"),
    "max_iterations": lambda turns: counted(turns, "turn"),
}


def show_estimate(estimate: Estimate, *, as_json: bool) -> None:
    """Print an estimate as a few lines, or as JSON."""
    if as_json:
        say(json.dumps(asdict(estimate), ensure_ascii=False, indent=2))
        return
    say(f"Texts: {estimate.characters:,} characters.")
    say(f"One direct call of {estimate.root_model}: {_direct_call(estimate.direct_call)}.")
    say(f"Recorded runs over texts of that size: {_recorded(estimate.recorded)}.")
    say(f"Limits of this run: {_limits(estimate.limits)}.")
    say("No model was asked.")


def _direct_call(call: DirectCall) -> str:
    cost = "no price is known" if call.cost_usd is None else f"about {dollars(call.cost_usd)}"
    tokens = f"{call.input_tokens:,} tokens in, {call.output_tokens:,} out"
    if call.fits is None:
        return f"{cost} ({tokens}); its window is not known"
    verb = "fit" if call.fits else "do not fit"
    return f"{cost} ({tokens}), which {verb} its window of {call.context_tokens:,}"


def _recorded(recorded: RecordedRuns) -> str:
    if not recorded.runs or recorded.tokens is None or recorded.seconds is None:
        return "none with these models yet"
    cost = "cost not known" if recorded.cost_usd is None else dollars(recorded.cost_usd)
    return (
        f"{recorded.runs:,} with these models; median {cost}, {recorded.tokens:,.0f} tokens, "
        f"{duration(recorded.seconds)}"
    )


def _limits(limits: Mapping[str, Any]) -> str:
    said = [write(limits[name]) for name, write in _LIMITS.items() if limits[name] is not None]
    if limits["max_usd"] is None:
        said.append("none in USD")
    return ", ".join(said)
