"""What a tool is here, and how it is told to the server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from mcp.server.context import ServerRequestContext
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.tools import Tool
from mcp_types import CallToolResult, ToolAnnotations
from pydantic import BeforeValidator

from rlm_mcp.server.schema_trim import input_outline, output_outline
from rlm_mcp.service.service import Service

ToolContext = Context[Service, Any]
# Models give a single string where a list of one is meant.
Strings = Annotated[
    Sequence[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
]
ToolFunction = Callable[..., Awaitable[CallToolResult]]


@dataclass(frozen=True)
class ToolSpec:
    """A tool: its function, whose docstring is its description, and its hints.

    Args:
        function: named as the tool is.
        title: for people.
        reads_only: it changes nothing.
        destroys: it takes away something that cannot be had again.
        repeats: calling it again with the same arguments changes nothing more.
        open_world: it reaches beyond this server (a model endpoint, files).
    """

    function: ToolFunction
    title: str
    reads_only: bool = False
    destroys: bool = False
    repeats: bool = False
    open_world: bool = False


def make_tool(spec: ToolSpec) -> Tool:
    """Make the SDK's tool, its schemas without what only takes up the reader's window."""
    tool = Tool.from_function(
        spec.function,
        title=spec.title,
        description=" ".join((spec.function.__doc__ or "").split()),
        annotations=ToolAnnotations(
            read_only_hint=spec.reads_only,
            destructive_hint=spec.destroys,
            idempotent_hint=spec.repeats,
            open_world_hint=spec.open_world,
        ),
    )
    tool.parameters = input_outline(tool.parameters)
    tool.fn_metadata.output_schema = output_outline(tool.fn_metadata.output_schema or {})
    return tool


def service_of(ctx: ToolContext) -> Service:
    """The service that this server was started with, as it is to whoever calls."""
    return service_in(ctx.request_context)


def service_in(request: ServerRequestContext[Service, Any]) -> Service:
    """The service as a request that is no tool's finds it.

    Over HTTP every request has a caller; one that nobody noted must not pass for this machine's.
    """
    service, http = request.lifespan_context, request.request
    return service if http is None else service.as_caller(http.state.caller)
