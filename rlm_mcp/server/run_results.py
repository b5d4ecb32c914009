"""Runs as results of tools: the structure, and the short text beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mcp_types import CallToolResult

from rlm_mcp.errors import with_fix
from rlm_mcp.server import schemas
from rlm_mcp.server.results import MAX_TEXT_CHARS, beside, result, run_link
from rlm_mcp.server.schemas import Event, EventLine
from rlm_mcp.server.views import run_view
from rlm_mcp.service.runs.questions import progress_line
from rlm_mcp.text import counted, cut

if TYPE_CHECKING:
    from rlm_mcp.events import SubCall
    from rlm_mcp.store.runs.records import Event as StoredEvent
    from rlm_mcp.store.runs.records import RunRecord

_SHOWN_CALLS = 5
_SHOWN_CALL_CHARS = 300
_MIN_SHOWN_CHARS = 400
_SHOWN_CITATIONS = 20
_SHOWN_QUOTE_CHARS = 200


def run_result(state: RunRecord, note: str = "", page_url: str = "") -> CallToolResult:
    """The result of the tools that start and end runs.

    Args:
        page_url: where the page shows the run, if one is served.
    """
    run = run_view(state)
    if note:
        run.note = note
    if page_url:
        run.page_url = page_url
    return result(run, _run_text(run, state), run_link(state.run_id, state.question))


def waited_result(
    state: RunRecord, events: Sequence[StoredEvent], after_event: int, note: str = ""
) -> CallToolResult:
    """The result of waiting for a run: the run, and its events after `after_event`."""
    run = schemas.WaitedRun(
        **run_view(state, seen=events[-1].seq if events else after_event).model_dump(
            exclude_unset=True
        ),
        events=[EventLine.model_validate(event, from_attributes=True) for event in events],
    )
    if note:
        run.note = note
    return result(run, _run_text(run, state, run.events), run_link(state.run_id, state.question))


def _run_text(run: schemas.Run, state: RunRecord, events: Sequence[EventLine] = ()) -> str:
    tokens = f"{run.input_tokens:,} tokens in, {run.output_tokens:,} out"
    lines = [f"{run.run_id} is {run.status}: {progress_line(state)} · {tokens}"]
    if run.error:
        lines.append(f"{run.error.code}: {with_fix(run.error.message, run.error.fix)}")
    if run.answer is not None:
        lines[:0] = [run.answer + "\n", *citation_lines(run)]
    if run.next:
        lines.append(f"Next: {run.next}")
    if run.note:
        lines.append(run.note)
    if run.page_url:
        lines.append(f"Page: {run.page_url}")
    lines.extend(_event_line(event) for event in events)
    return "\n".join(lines)


def citation_lines(run: schemas.Run) -> list[str]:
    """What supports an answer: attempts that agree, and a line for each passage that it cites."""
    if run.support is None:
        return []
    agreed = [f"{run.support.agreement} attempts agree.", ""] if run.support.agreement else []
    cited = cited_lines(run.citations)
    return [*agreed, *cited, ""] if cited else agreed


def cited_lines(citations: Sequence[schemas.CitedPassage]) -> list[str]:
    """How many passages were found, and a line for each; empty where there are none."""
    if not citations:
        return []
    shown = [_cited_line(number, one) for number, one in enumerate(citations, 1)]
    left = len(shown) - _SHOWN_CITATIONS
    more = [f"… {left} more"] if left > 0 else []
    verified = sum(one.verified for one in citations)
    were = "was" if len(citations) == 1 else "were"
    head = f"{verified} of {counted(len(citations), 'citation')} {were} found in the text:"
    return [head, *shown[:_SHOWN_CITATIONS], *more]


def _cited_line(number: int, one: schemas.CitedPassage) -> str:
    quote = cut(" ".join(one.quote.split()), _SHOWN_QUOTE_CHARS)
    if not one.verified:
        return f"[{number}] {one.how.upper()}: {quote!r}"
    page = f", {one.page}" if one.page is not None else ""
    name = one.name or f"document {one.document}"
    return f"[{number}] {name}{page}, characters {one.start} to {one.end}: {quote!r}"


def trace_text(events: Sequence[Event], next_event: int | None) -> str:
    """Events with the code that ran, its output and some of the sub-calls; each gets equal room."""
    if not events:
        return "There is no such event yet."
    room = max(_MIN_SHOWN_CHARS, MAX_TEXT_CHARS // len(events) - 200)
    text = "\n".join(line for event in events for line in _shown(event, room))
    more = "the end so far" if next_event is None else f"more: after_event={next_event}"
    return beside(text, f"[{more}]")


def _event_line(event: EventLine) -> str:
    return f"{event.seq}. {event.type}: {event.preview}"


def _shown(event: Event, room: int) -> Iterator[str]:
    # The classes of events take long to load, and no host waits for a trace at its start.
    from rlm_mcp.events import (  # noqa: PLC0415
        CodeExecuted,
        CodeGenerated,
        SubCallsFinished,
        read_detail,
    )

    match read_detail(event):
        case CodeGenerated(code=text) | CodeExecuted(output=text) if text:
            yield f"{event.seq}. {event.type}:"
            yield cut(text, room)
        case SubCallsFinished(items=items):
            yield _event_line(event)
            yield from map(_call_shown, items[:_SHOWN_CALLS])
        case _:
            yield _event_line(event)


def _call_shown(call: SubCall) -> str:
    prompt = " ".join(call.prompt.split())
    reply = " ".join((call.error or call.reply).split())
    return f"   {cut(prompt, _SHOWN_CALL_CHARS)!r} → {cut(reply, _SHOWN_CALL_CHARS)!r}"
