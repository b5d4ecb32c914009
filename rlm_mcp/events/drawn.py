"""What a page draws of an event: its detail without the long texts.

A page follows runs of a hundred thousand sub-calls, and asks for a text when somebody looks at it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlm_mcp.events import LoggedEvent, RunWarning

MAX_TEXT_CHARS = 160
MAX_PROMPT_CHARS = 60
MAX_ANSWER_CHARS = 16_000

DRAWN: Mapping[str, frozenset[str]] = {
    "run_started": frozenset({"question", "contexts", "options", "resumed", "batch", "n"}),
    "iteration_start": frozenset({"of", "last_word"}),
    "code_generated": frozenset(
        {"reply", "code", "input_tokens", "output_tokens", "model", "cost_usd"}
        | {"seconds", "first_token_seconds", "retries"}
    ),
    "code_executed": frozenset(
        {"by", "code", "output", "output_chars", "error", "timed_out"}
        | {"elapsed_seconds", "wall_seconds"}
    ),
    "sub_calls_started": frozenset({"calls", "name", "model", "batch"}),
    "sub_calls_finished": frozenset({"finished", "of", "seconds", "batch"}),
    "warning": frozenset({"limit"}),
    "final_answer": frozenset({"answer", "data", "origin", "status", "citations", "support"}),
    "run_finished": frozenset({"status", "error", "usage_by_model"}),
}
"""By type of event, the keys that are drawn; of `items` and `inner` see below."""

DRAWN_OF_CALL = frozenset(
    {"n", "slot", "began", "queued", "ended", "input_tokens", "output_tokens", "cached"}
    | {"model", "cost_usd"}
)
TEXTS = frozenset({"prompt", "reply", "output", "error", "quote"})
"""The keys of drawn texts that may hold a part of what the run read."""

_OPTIONS = (
    *("max_iterations", "root_model", "sub_model"),
    *("cost_per_input_token", "cost_per_output_token"),
)
_WHOLE = frozenset({"answer", "question"})


def drawn_detail(event: LoggedEvent) -> dict[str, Any]:
    """Return what is drawn of an event's detail; absent keys and nulls are left out."""
    detail = event.detail
    kept = DRAWN.get(event.type, frozenset()) | {"inner"}
    drawn = {
        key: _short(key, value)
        for key, value in detail.items()
        if key in kept and value is not None
    }
    if "options" in drawn:
        drawn["options"] = {key: drawn["options"].get(key) for key in _OPTIONS}
    if "items" in detail:
        drawn["items"] = [_drawn_call(item) for item in detail["items"]]
    return drawn


def without_texts(detail: Mapping[str, Any], mark: str) -> dict[str, Any]:
    """Return a detail with `mark` for each text of the run; what failed still shows that."""
    blank = _blanked(detail, mark)
    blank.pop("citations", None)  # which quote the texts
    for key in ("citations", "cited"):
        if blank.get(key):
            blank[key] = [_blanked(item, mark) for item in blank[key]]
    if "items" in blank:
        blank["items"] = [_blanked(item, mark) for item in blank["items"]]
    return blank


def _blanked(fields: Mapping[str, Any], mark: str) -> dict[str, Any]:
    return {
        key: mark if key in TEXTS and isinstance(value, str) else value
        for key, value in fields.items()
    }


def is_deleted(event: LoggedEvent) -> bool:
    """Return whether the detail was deleted with a text; some warnings never had one."""
    return not event.detail and event.type != RunWarning.type


def _drawn_call(item: Mapping[str, Any]) -> dict[str, Any]:
    call = {key: value for key, value in item.items() if key in DRAWN_OF_CALL}
    call["prompt"] = item.get("prompt", "")[:MAX_PROMPT_CHARS]
    if item.get("error") is not None:
        call["error"] = item["error"][:MAX_TEXT_CHARS]
    return call


def _short(key: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return value[: MAX_ANSWER_CHARS if key in _WHOLE else MAX_TEXT_CHARS]
