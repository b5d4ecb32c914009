"""A run's log as text, for readers that get no structured content."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rlm_mcp.server.results import MAX_TEXT_CHARS, beside, cut
from rlm_mcp.server.schemas import Event, EventLine

_SHOWN_CALLS = 5
_SHOWN_CALL_CHARS = 300
_MIN_SHOWN_CHARS = 400


def event_line(event: EventLine) -> str:
    """One event in one line."""
    return f"{event.seq}. {event.type}: {event.preview}"


def trace_text(events: Sequence[Event], next_event: int | None) -> str:
    """Events with the code that ran, its output and some of the sub-calls, fairly cut."""
    if not events:
        return "No such event yet."
    room = max(_MIN_SHOWN_CHARS, MAX_TEXT_CHARS // len(events) - 200)
    text = "\n".join(line for event in events for line in _shown(event, room))
    more = "the end so far" if next_event is None else f"more: after_event={next_event}"
    return beside(text, f"[{more}]")


def _shown(event: Event, room: int) -> Iterator[str]:
    detail = event.detail
    match event.type:
        case "code_generated" if detail.get("code"):
            yield f"{event.seq}. {event.type}:"
            yield cut(str(detail["code"]), room)
        case "code_executed" if detail.get("output"):
            yield f"{event.seq}. {event.type}:"
            yield cut(str(detail["output"]), room)
        case "sub_calls_finished":
            yield event_line(event)
            yield from map(_call_shown, detail.get("items", [])[:_SHOWN_CALLS])
        case _:
            yield event_line(event)


def _call_shown(call: dict[str, Any]) -> str:
    asked = " ".join(str(call.get("prompt", "")).split())
    told = " ".join(str(call.get("error") or call.get("reply", "")).split())
    return f"   {cut(asked, _SHOWN_CALL_CHARS)!r} → {cut(told, _SHOWN_CALL_CHARS)!r}"
