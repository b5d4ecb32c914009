"""What a tool is, and how the SDK gets it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from mcp.server.context import ServerRequestContext
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.tools import Tool
from mcp_types import CallToolResult, ToolAnnotations
from pydantic import BeforeValidator, Field

from rlm_mcp.server.pending import PendingService
from rlm_mcp.server.schema_trim import input_outline, output_outline

if TYPE_CHECKING:
    from rlm_mcp.service.service import Service

RUN_VIEW = "ui://rlm/run.html"

ToolContext = Context[PendingService, Any]
# Models give a single string where a list of one is meant.
Strings = Annotated[
    Sequence[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
]
# Far more than hosts show by default, and less than what any transport stumbles over.
MAX_RESULT_CHARS = 100_000
Cursor = Annotated[str, Field(description="next_cursor of the page before.")]
Handle = Annotated[str, Field(description="Handle (ctx_...).")]
RunId = Annotated[str, Field(description="Run (run_...).")]
ToolFunction = Callable[..., Awaitable[CallToolResult]]


@dataclass(frozen=True)
class ToolSpec:
    """A tool: its function, whose docstring is its description, and its hints.

    Args:
        function: has the tool's name.
        title: for people.
        reads_only: it changes nothing.
        destroys: it deletes or stops something for good.
        repeats: a second call with the same arguments changes nothing more.
        open_world: it reaches beyond this server, its texts and the one configured endpoint.
        has_view: a host may show its run in the MCP App.
        is_for_apps: it is for the MCP App, and hidden from the model.
        loads_always: hosts that load tools on demand should load it at once.
        max_result_chars: how long a result may be, where hosts would cut it sooner.
    """

    function: ToolFunction
    title: str
    reads_only: bool = False
    destroys: bool = False
    repeats: bool = False
    open_world: bool = False
    has_view: bool = False
    is_for_apps: bool = False
    loads_always: bool = False
    max_result_chars: int | None = None

    @property
    def meta(self) -> dict[str, Any] | None:
        """Hints of single hosts, in `_meta`."""
        found: dict[str, Any] = {}
        if self.has_view:
            found["ui"] = {"resourceUri": RUN_VIEW}
        if self.is_for_apps:
            found["ui"] = {"visibility": ["app"]}
        if self.loads_always:
            found["anthropic/alwaysLoad"] = True
        if self.max_result_chars:
            found["anthropic/maxResultSizeChars"] = self.max_result_chars
        return found or None


def make_tool(spec: ToolSpec) -> Tool:
    """Make the SDK's tool; its schemas are shortened to save room in the model's window."""
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
        meta=spec.meta,
    )
    tool.parameters = input_outline(tool.parameters)
    tool.fn_metadata.output_schema = output_outline(tool.fn_metadata.output_schema or {})
    return tool


def page_of(request: ServerRequestContext[PendingService, Any], run_id: str) -> str:
    """The address of a run on the page, where one is served; it never holds a token.

    Over HTTP it is that of the server by the name under which its caller reached it.
    """
    http = request.request
    own = request.lifespan_context.page_url
    root = own if http is None else f"{http.url.scheme}://{http.url.netloc}"
    return f"{root}/#/run/{run_id}" if root else ""


async def service_of(ctx: ToolContext) -> Service:
    """The service as the caller of a tool sees it.

    Raises:
        RLMError: it failed to open.
    """
    return await service_in(ctx.request_context)


async def service_in(request: ServerRequestContext[PendingService, Any]) -> Service:
    """The service as the sender of any request sees it.

    Over HTTP every request has a caller; one without must not pass for the machine's owner.

    Raises:
        RLMError: it failed to open.
    """
    http = request.request
    return await request.lifespan_context.get("" if http is None else http.state.caller)


def is_cancelled_by_client(request: ServerRequestContext[PendingService, Any]) -> bool:
    """Return whether the client sent `notifications/cancelled` for a request at work."""
    # The SDK shows handlers the cancellation alone, which a lost connection causes as well.
    channel = request.session._request_outbound  # pyright: ignore[reportPrivateUsage]
    return channel.cancel_requested.is_set()
