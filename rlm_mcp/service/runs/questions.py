"""What a caller asks, checked before anything is started, and how far its run is.

Loads nothing else of the service.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from rlm_mcp.engine.config import RLMConfig
from rlm_mcp.errors import InvalidInputError
from rlm_mcp.text import dollars, duration, nearest

if TYPE_CHECKING:
    from rlm_mcp.store.runs.records import RunRecord


MAX_QUESTION_CHARS = 20_000
LARGEST_NUMBER = (1 << 63) - 1
BUDGET_FIELDS = {
    "max_usd": "max_usd",
    "max_tokens": "max_tokens",
    "max_seconds": "max_seconds",
    "max_sub_calls": "max_sub_calls",
    "max_iterations": "max_iterations",
    "max_depth": "max_recursion_depth",
}
# Prices are the operator's to know, the log is not a terminal, and all runs share the endpoint.
_NOT_OPTIONS = {
    "cost_per_input_token",
    "cost_per_output_token",
    "max_concurrent_calls",
    "verbose",
}
_OPTIONS = sorted(RLMConfig.model_fields.keys() - BUDGET_FIELDS.values() - _NOT_OPTIONS)


@dataclass(frozen=True)
class Question:
    """One question as it was asked; empty strings mean not given.

    `budget` has the names of the tool's budget, `options` those of `RLMConfig`.
    """

    text: str
    contexts: tuple[str, ...] = ()
    inline_text: str = ""
    root_model: str = ""
    sub_model: str = ""
    budget: Mapping[str, Any] = field(default_factory=dict[str, Any])
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    answer_schema: Mapping[str, Any] | None = None
    continue_run: str = ""
    idempotency_key: str = ""


@dataclass(frozen=True)
class RunDefaults:
    """What a question that does not say otherwise is answered with."""

    config: RLMConfig
    root_model: str | None
    sub_model: str | None


@dataclass(frozen=True)
class Begun:
    """A run that answers a question; `is_attached`: it was at work already."""

    run_id: str
    is_attached: bool = False


def check_question(question: Question) -> None:
    """Refuse what cannot be asked.

    Raises:
        InvalidInputError: the question is empty or too long, or there is nothing to ask it of.
    """
    if not question.text.strip():
        raise InvalidInputError("The question is empty.", fix="Ask what you want to find out.")
    if len(question.text) > MAX_QUESTION_CHARS:
        raise InvalidInputError(
            f"The question has {len(question.text):,} characters "
            f"(it starts with {question.text[:60]!r}); the limit is {MAX_QUESTION_CHARS:,}.",
            fix="Store its long part with rlm_context_add and ask a short question over the "
            "handle.",
        )
    if not (question.contexts or question.inline_text or question.continue_run):
        raise InvalidInputError(
            "There is no text to ask about: contexts, text and continue_run are all empty.",
            fix="Give handles from rlm_context_list, or store a text with rlm_context_add.",
        )


def run_config(defaults: RLMConfig, question: Question) -> RLMConfig:
    """Lay the caller's budget and options over the server's defaults.

    Raises:
        InvalidInputError: a name is unknown or a value out of range; names both.
    """
    unknown = sorted(question.options.keys() - set(_OPTIONS))
    if unknown:
        raise InvalidInputError(_unknown_option(unknown[0]), fix=f"Options: {', '.join(_OPTIONS)}.")
    chosen = _chosen(question.budget)
    config = _valid(defaults.model_dump() | dict(question.options) | chosen)
    if question.continue_run and config.attempts > 1:
        return _in_one_attempt(config, question)
    return config


def _in_one_attempt(config: RLMConfig, question: Question) -> RLMConfig:
    """Continue a run in one attempt, since the variables to go on with are in one REPL.

    Raises:
        InvalidInputError: the caller asked for several.
    """
    if "attempts" in question.options:
        raise InvalidInputError(
            f"attempts={config.attempts!r} and continue_run cannot go together: each attempt has a "
            "REPL of its own, and the variables to go on with are in one.",
            fix="Leave out attempts, or ask over the contexts without continue_run.",
        )
    return config.model_copy(update={"attempts": 1})


def with_budget(config: RLMConfig, budget: Mapping[str, Any]) -> RLMConfig:
    """Replace limits by those of a budget that has the names of the tool's.

    Raises:
        InvalidInputError: a name is unknown or a value out of range; names both.
    """
    return _valid(config.model_dump() | _chosen(budget))


def _chosen(budget: Mapping[str, Any]) -> dict[str, Any]:
    return {BUDGET_FIELDS.get(name, name): value for name, value in budget.items()}


def _valid(fields: Mapping[str, Any]) -> RLMConfig:
    for name, value in fields.items():
        if isinstance(value, int) and value > LARGEST_NUMBER:  # no float holds some of these
            raise InvalidInputError(
                f"{name} is larger than {LARGEST_NUMBER}.",
                fix="Give a smaller number, or leave it out for the default.",
            )
    try:
        return RLMConfig.model_validate(fields)
    except ValidationError as error:
        problems = "; ".join(
            f"{_place(problem['loc'])}={problem['input']!r}: "
            f"{problem['msg'][:1].lower()}{problem['msg'][1:]}"
            for problem in error.errors(include_url=False)
        )
        raise InvalidInputError(
            f"These options cannot be used: {problems}.",
            fix="Correct them and ask again; nothing was started.",
        ) from error


def _place(loc: Sequence[int | str]) -> str:
    """Name a field as callers do: those of the budget have other names in the config."""
    names = {field: name for name, field in BUDGET_FIELDS.items()}
    return ".".join(names.get(str(part), str(part)) for part in loc)


def _unknown_option(name: str) -> str:
    in_budget = name in BUDGET_FIELDS or name in BUDGET_FIELDS.values()
    near = nearest(name, _OPTIONS)
    if in_budget:
        return f"{name!r} is a part of `budget`, not of `options`."
    return f"There is no option {name!r}" + (f"; did you mean {near[0]!r}?" if near else ".")


ANSWER_NAME = "FINAL"
_NEXT_LIMIT = 2  # a limit that is used up is proposed again, this many times as large


def progress_line(run: RunRecord) -> str:
    """Say turn, calls of those allowed, cost and time: `turn 3 · 12/40 calls · $0.04 · 31 s`.

    Of a run that has not begun, how many begin before it: `waiting, 3 ahead`.
    """
    if run.queue_position is not None:
        return f"waiting, {run.queue_position - 1} ahead"
    figures = run.figures
    parts = [f"turn {figures.iterations:,}", calls_of_allowed(figures.sub_calls, run.config)]
    if figures.cost_usd is not None:
        parts.append(dollars(figures.cost_usd))
    parts.append(duration(run.elapsed_seconds))
    return " · ".join(parts)


def calls_of_allowed(calls: int, config: Mapping[str, Any]) -> str:
    """Say how many sub-calls were made of those allowed, as in `12/500 calls`."""
    allowed = config.get("max_sub_calls")
    return f"{calls:,}/{'?' if allowed is None else f'{allowed:,}'} calls"


def more_room(record: RunRecord) -> dict[str, Any]:
    """Propose a larger budget for a run that is exhausted: twice each limit that it reached."""
    used = used_of(asdict(record.figures), record.elapsed_seconds)
    config = record.config
    limits = {name: config.get(field) for name, field in BUDGET_FIELDS.items() if name in used}
    reached = {name: limit for name, limit in limits.items() if limit and used[name] >= limit * 0.8}
    return {name: limit * _NEXT_LIMIT for name, limit in reached.items()}


def used_of(figures: Mapping[str, Any], elapsed_seconds: float) -> dict[str, float]:
    """What a run has used of each limit, by the names of the tool's budget."""
    return {
        "max_usd": figures["cost_usd"] or 0.0,
        "max_tokens": figures["input_tokens"] + figures["output_tokens"],
        "max_seconds": elapsed_seconds,
        "max_sub_calls": figures["sub_calls"],
        "max_iterations": figures["iterations"],
    }
