"""The MCP App: the page's view of one run, which a host shows beside a tool's result."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

import anyio
from mcp.server.apps import APP_MIME_TYPE
from mcp.server.lowlevel.helper_types import ReadResourceContents
from mcp_types import CallToolResult
from pydantic import Field

from rlm_mcp.server import schemas
from rlm_mcp.server.results import result
from rlm_mcp.server.tool import RUN_VIEW, RunId, ToolContext, ToolSpec, service_of
from rlm_mcp.server.view.bundle import inline_page, open_bundle
from rlm_mcp.server.view.lines import line_view

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlm_mcp.service.service import Service
    from rlm_mcp.store.runs.records import Event

LINES_A_CALL = 50
LONGEST_WAIT_SECONDS = 25


async def read_run_view() -> ReadResourceContents:
    """Return the view as one HTML document, which makes no request of its own."""
    before, after = inline_page("app", await open_bundle())
    ui: dict[str, Any] = {"prefersBorder": True, "csp": {}}
    return ReadResourceContents(before + after, APP_MIME_TYPE, {"ui": ui})


async def rlm_run_lines(
    ctx: ToolContext,
    *,
    run_id: RunId,
    after_event: Annotated[int, Field(ge=0, description="Last event seen; default 0.")] = 0,
    wait_seconds: Annotated[
        float, Field(ge=0, le=LONGEST_WAIT_SECONDS, description="0 to 25; default 20.")
    ] = 20,
) -> Annotated[CallToolResult, schemas.RunLines]:
    """Wait for the next events of a run, as the view of a run draws them."""
    service = await service_of(ctx)
    events = await service.runs.events(run_id, after_event, LINES_A_CALL)
    if not events:
        events = await _next_events(service, run_id, after_event, wait_seconds)
    state = await service.runs.state(run_id)
    last = events[-1].seq if events else after_event
    ended = state.status != "running" and state.last_event <= last
    lines = schemas.RunLines(lines=[line_view(event) for event in events], ended=ended)
    return result(lines, f"{len(events)} events of {run_id}")


async def _next_events(
    service: Service, run_id: str, after: int, seconds: float
) -> Sequence[Event]:
    with anyio.move_on_after(seconds):
        async with aclosing(service.runs.follow(run_id, after)) as pages:
            async for events in pages:
                if events:
                    return events
    return ()


VIEW_TOOLS = (
    ToolSpec(rlm_run_lines, "Follow a run", reads_only=True, repeats=True, is_for_apps=True),
)

__all__ = ["RUN_VIEW", "VIEW_TOOLS", "read_run_view"]
