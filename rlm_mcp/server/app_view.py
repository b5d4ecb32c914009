"""The MCP App: the page's view of one run, which a host shows beside a tool's result."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

import anyio
from mcp.server.apps import APP_MIME_TYPE
from mcp.server.lowlevel.helper_types import ReadResourceContents
from mcp.server.mcpserver.tools import Tool
from mcp_types import CallToolResult
from pydantic import Field, ValidationError

from rlm_mcp.server import schemas
from rlm_mcp.server.results import invalid_arguments, result
from rlm_mcp.server.run_tools import QUERY_TOOL
from rlm_mcp.server.tool import (
    RUN_VIEW,
    ArgumentRules,
    RunId,
    ToolContext,
    ToolSpec,
    make_tool,
    service_of,
)
from rlm_mcp.server.view.bundle import inline_page, open_bundle
from rlm_mcp.server.view.lines import line_view
from rlm_mcp.service.runs.questions import Question

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
    run_id: RunId = "",
    question_of: Annotated[
        dict[str, Any] | None,
        Field(description="Instead of run_id: the arguments of a call of rlm_query that waits."),
    ] = None,
    after_event: Annotated[int, Field(ge=0, description="Last event seen; default 0.")] = 0,
    wait_seconds: Annotated[
        float, Field(ge=0, le=LONGEST_WAIT_SECONDS, description="0 to 25; default 20.")
    ] = 20,
) -> Annotated[CallToolResult, schemas.RunLines]:
    """Wait for the next events of a run, as the view of a run draws them."""
    service = await service_of(ctx)
    if not run_id:
        run_id = await _run_of(service, question_of or {}, wait_seconds)
    if not run_id:
        return result(schemas.RunLines(run_id=None, lines=[], ended=False), "no such run yet")
    events = await service.runs.events(run_id, after_event, LINES_A_CALL)
    if not events:
        events = await _next_events(service, run_id, after_event, wait_seconds)
    state = await service.runs.state(run_id)
    last = events[-1].seq if events else after_event
    ended = state.status != "running" and state.last_event <= last
    drawn = [line_view(event) for event in events]
    lines = schemas.RunLines(run_id=run_id, lines=drawn, ended=ended)
    return result(lines, f"{len(events)} events of {run_id}")


async def _run_of(service: Service, arguments: Mapping[str, Any], seconds: float) -> str:
    """Wait for the run that a call of rlm_query with these arguments began, or found at work.

    A call that waits gives its result at its end, and the view does not know its run until then.
    """
    question = _question_of(arguments)
    with anyio.move_on_after(seconds):
        while True:
            version = await service.version()
            if run_id := await service.runs.find(question):
                return run_id
            await service.changed(version)
    return ""


def _question_of(arguments: Mapping[str, Any]) -> Question:
    """Read arguments as rlm_query does.

    Raises:
        InvalidInputError: they are not arguments of rlm_query.
    """
    usable, _ = ArgumentRules(_query_tool()).usable(arguments)
    try:
        asked = _query_tool().fn_metadata.validate_arguments(usable)
    except ValidationError as error:
        raise invalid_arguments(_query_tool().name, error) from error
    budget = asked["budget"]
    return Question(
        text=asked["question"],
        contexts=tuple(asked["contexts"]),
        inline_text=asked["text"],
        root_model=asked["root_model"],
        sub_model=asked["sub_model"],
        budget=budget.model_dump(exclude_none=True) if budget else {},
        options=asked["options"] or {},
        answer_schema=asked["answer_schema"],
        continue_run=asked["continue_run"],
        idempotency_key=asked["idempotency_key"],
    )


@cache
def _query_tool() -> Tool:
    return make_tool(QUERY_TOOL)


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
