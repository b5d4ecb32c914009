"""A run's log as lines, each with what a page draws of an event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlm_mcp.events.drawn import MAX_TEXT_CHARS, drawn_detail, is_deleted

if TYPE_CHECKING:
    from rlm_mcp.store.runs.records import Event


def line_view(event: Event) -> dict[str, Any]:
    """An event as a page draws it, with the run's figures after it.

    `usage` has sub-calls, tokens in and out, USD, and cached sub-calls; `deleted` says that the
    event's detail was deleted together with a text.
    """
    figures = event.figures
    line: dict[str, Any] = {
        "seq": event.seq,
        "at": event.at,
        "type": event.type,
        "iteration": event.iteration,
        "depth": event.depth,
        "preview": event.preview[:MAX_TEXT_CHARS],
        "detail": drawn_detail(event),
        "usage": [
            figures.sub_calls,
            figures.input_tokens,
            figures.output_tokens,
            figures.cost_usd,
            figures.cached_sub_calls,
        ],
    }
    if is_deleted(event):
        line["deleted"] = True
    return line
