"""Turns what the service returns into the structured results of tools and commands."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

from rlm_mcp.server import schemas
from rlm_mcp.service.runs.questions import ANSWER_NAME, more_room
from rlm_mcp.text import cut

if TYPE_CHECKING:
    from rlm_mcp.sandbox.types import Variable, VariableText
    from rlm_mcp.service.contexts.added import Added
    from rlm_mcp.service.contexts.contexts import FoundPage
    from rlm_mcp.store.contexts.records import ContextRecord, Page
    from rlm_mcp.store.runs.records import Event, RunRecord, RunSummary

MAX_ANSWER_CHARS = 16_000
MAX_DETAIL_CHARS = 60_000
MAX_DATA_CHARS = 50_000
MAX_CUT_TEXT_CHARS = 800
MAX_LISTED_SKIPS = 50
MAX_LISTED_VARIABLES = 200


def run_view(state: RunRecord, seen: int | None = None) -> schemas.Run:
    """A run; `seen` is the last event shown beside it."""
    answer = state.answer
    data = state.data if len(json.dumps(state.data)) <= MAX_DATA_CHARS else None
    place = state.queue_position
    given = {} if data is None else {"data": data}
    given |= {} if place is None else {"queue_position": place}
    figures = asdict(state.figures)
    if by_model := figures.pop("by_model"):
        given["usage_by_model"] = by_model
    return schemas.Run(
        run_id=state.run_id,
        status=state.status,
        answer=None if answer is None else cut(answer, MAX_ANSWER_CHARS),
        answer_chars=len(answer or ""),
        **_supported(state),
        **given,
        **figures,
        elapsed_seconds=round(state.elapsed_seconds, 3),
        error=schemas.ErrorInfo.model_validate(state.error) if state.error else None,
        last_event=state.last_event,
        next=_next_call(state, state.last_event if seen is None else seen),
    )


def _supported(state: RunRecord) -> dict[str, Any]:
    """What supports the answer, as far as the log says."""
    final = state.final
    if final is None or final.support is None:
        return {}
    return {
        "citations": [asdict(one) for one in final.citations or ()],
        "support": asdict(final.support),
    }


def asked_of(run: RunSummary | schemas.RunInfo) -> str:
    """Return what a run answers, in a line of a list."""
    return run.question or "Code of the caller"


def run_page(page: Page[RunSummary]) -> schemas.RunPage:
    """A page of the list of runs."""
    return schemas.RunPage(runs=list(map(_run_info, page.items)), next_cursor=page.next_cursor)


def _run_info(summary: RunSummary) -> schemas.RunInfo:
    info = schemas.RunInfo.model_validate(summary, from_attributes=True)
    return info.model_copy(update={"question": cut(info.question, 500)})


def trace_view(found: Sequence[Event], limit: int) -> schemas.RunTrace:
    """Events in full, up to `limit` and to what can be sent at once.

    Long texts of a single event that is too large are cut. Give one event more than the limit to
    say that there are more.
    """
    events: list[schemas.Event] = []
    size = 0
    for event in found[:limit]:
        full = event_view(event)
        size += len(full.model_dump_json())
        if events and size > MAX_DETAIL_CHARS:
            break
        events.append(full)
    is_more = len(found) > len(events)
    return schemas.RunTrace(events=events, next_event=events[-1].seq if is_more else None)


def event_view(event: Event) -> schemas.Event:
    """An event in full; long texts of one that is too large to send whole are cut."""
    return _bounded(schemas.Event.model_validate(event, from_attributes=True))


def variable_view(name: str, piece: VariableText) -> schemas.RunVariables:
    """A slice of one variable."""
    return schemas.RunVariables(
        name=name,
        type=piece.type,
        size=piece.size,
        text=piece.text,
        start=piece.start,
        end=piece.end,
        next_start=piece.end if piece.end < piece.total else None,
    )


def variables_view(found: Sequence[Variable], start: int = 0) -> schemas.RunVariables:
    """The variables of a run, from one of them on."""
    end = start + MAX_LISTED_VARIABLES
    variables = [
        schemas.VariableInfo.model_validate(variable, from_attributes=True)
        for variable in found[start:end]
    ]
    return schemas.RunVariables(variables=variables, next_start=end if end < len(found) else None)


def context_page(page: Page[ContextRecord]) -> schemas.ContextPage:
    """A page of the list of contexts."""
    return schemas.ContextPage(
        contexts=[
            schemas.ContextInfo.model_validate(record, from_attributes=True)
            for record in page.items
        ],
        next_cursor=page.next_cursor,
    )


def search_page(found: FoundPage) -> schemas.SearchPage:
    """A page of matches."""
    matches = [
        schemas.SearchMatch.model_validate(match, from_attributes=True) for match in found.matches
    ]
    return schemas.SearchPage(
        matches=matches, truncated=found.next_cursor is not None, next_cursor=found.next_cursor
    )


def added_view(added: Added) -> schemas.AddedContext:
    """A stored text."""
    skipped = [{"path": path, "reason": why} for path, why in added.skipped[:MAX_LISTED_SKIPS]]
    fields = asdict(added) | {
        "skipped": skipped,
        "skipped_total": added.skipped_total,
    }
    del fields["note"]  # stands in a result only where there is one
    return schemas.AddedContext.model_validate(fields)


def _next_call(state: RunRecord, seen: int) -> str | None:
    if state.status == "running":
        return f'rlm_run_wait(run_id="{state.run_id}", after_event={seen})'
    if len(state.answer or "") > MAX_ANSWER_CHARS:
        return (
            f'rlm_run_variables(run_id="{state.run_id}", name="{ANSWER_NAME}", '
            f"start={MAX_ANSWER_CHARS - 60})"
        )
    return None if state.status == "completed" else _going_on(state)


def _going_on(state: RunRecord) -> str:
    """The call that continues a run; one without a question continues with more code."""
    if not state.question:
        return f'rlm_exec(run_id="{state.run_id}", code=...)'
    budget = more_room(state) if state.status == "exhausted" else {}
    more = f", budget={json.dumps(budget)}" if budget else ""
    return f'rlm_run_resume(run_id="{state.run_id}"{more})'


def _bounded(event: schemas.Event) -> schemas.Event:
    if len(event.model_dump_json()) <= MAX_DETAIL_CHARS:
        return event
    return event.model_copy(update={"detail": _with_short_texts(event.detail)})


def _with_short_texts(value: Any) -> Any:
    match value:
        case str():
            return cut(value, MAX_CUT_TEXT_CHARS)
        case dict():
            fields = cast("dict[str, Any]", value)
            return {key: _with_short_texts(item) for key, item in fields.items()}
        case list():
            return [_with_short_texts(item) for item in cast("list[Any]", value)]
        case _:
            return value
