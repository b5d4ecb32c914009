"""Runs as tasks: the extension `io.modelcontextprotocol/tasks`, for clients that declare it.

A task is another view of a run: it has the run's id, and its state is read from the store, also
when another process works on the run, and after a restart.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.extension import Extension, MethodBinding
from mcp.server.mcpserver import require_client_extension
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import MCP_NAME_HEADER, decode_header_value
from mcp_types import CallToolRequestParams, CallToolResult, RequestParams
from mcp_types.jsonrpc import HEADER_MISMATCH, INTERNAL_ERROR
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from rlm_mcp.errors import RLMError
from rlm_mcp.server.results import protocol_errors
from rlm_mcp.server.tool import fit_for, page_of, service_in
from rlm_mcp.service.runs.questions import progress_line

if TYPE_CHECKING:
    from rlm_mcp.service.service import Service
    from rlm_mcp.store.runs.records import RunRecord

TASKS_EXTENSION = "io.modelcontextprotocol/tasks"
TASK_TOOLS = frozenset({"rlm_query", "rlm_run_resume"})
POLL_INTERVAL_MS = 1000
_VERSIONS = frozenset(MODERN_PROTOCOL_VERSIONS)

Request = ServerRequestContext[Any, Any]
TaskStatus = Literal["working", "completed", "failed", "cancelled"]


class TaskParams(RequestParams):
    """The task that a request is about."""

    task_id: str


class UpdateParams(TaskParams):
    """Answers to a task's questions; runs ask none."""

    input_responses: dict[str, Any]


class Tasks(Extension):
    """Returns a task instead of making the caller wait, and serves requests about tasks."""

    identifier = TASKS_EXTENSION

    def methods(self) -> Sequence[MethodBinding]:
        """The requests that belong to tasks."""
        return [
            MethodBinding("tasks/get", TaskParams, _get, _VERSIONS),
            MethodBinding("tasks/update", UpdateParams, _update, _VERSIONS),
            MethodBinding("tasks/cancel", TaskParams, _cancel, _VERSIONS),
        ]

    async def intercept_tool_call(
        self, params: CallToolRequestParams, ctx: Request, call_next: CallNext
    ) -> HandlerResult:
        """Begin a run as for any client, and return its task once the run is in the store."""
        arguments = params.arguments or {}
        # A caller that does not wait wants the run itself, which is available at once.
        is_task = params.name in TASK_TOOLS and arguments.get("wait_seconds") != 0
        if not is_task or not _declares_tasks(ctx):
            return await call_next(ctx)
        # The tool gets this very object; a context cannot carry other arguments to it.
        params.arguments = {**arguments, "wait_seconds": 0}
        begun = await call_next(ctx)
        if not isinstance(begun, CallToolResult) or begun.is_error:
            return begun
        run = begun.structured_content
        if run["status"] != "running":
            return begun
        service = await service_in(ctx)
        state = await service.runs.state(run["run_id"])
        return {"resultType": "task", **await _task(service, state)}


async def _get(ctx: Request, params: TaskParams) -> HandlerResult:
    async with _asked_of(ctx, params) as service:
        state = await service.runs.state(params.task_id)
        task = await _task(service, state)
    match task["status"]:
        case "completed":
            from rlm_mcp.server.run_results import run_result  # noqa: PLC0415  # loaded by now

            told = run_result(state, page_url=page_of(ctx, state.run_id))
            result = fit_for(ctx, told, is_host=True)  # frameworks know no tasks
            # SEP-2663: only this flag marks an error that a tool reports.
            result.is_error = state.status == "failed"
            fields = result.model_dump(mode="json", by_alias=True, exclude_none=True)
            return {**task, "result": fields}
        case "failed":
            error = state.error or {}
            message = f"{error.get('message', '')} {error.get('fix', '')}".strip()
            return {**task, "error": {"code": INTERNAL_ERROR, "message": message, "data": error}}
        case _:
            return task


async def _update(ctx: Request, params: UpdateParams) -> HandlerResult:
    async with _asked_of(ctx, params) as service:
        await service.runs.state(params.task_id)
    return {}


async def _cancel(ctx: Request, params: TaskParams) -> HandlerResult:
    async with _asked_of(ctx, params) as service:
        await service.runs.cancel(params.task_id)
    return {}


@asynccontextmanager
async def _asked_of(ctx: Request, params: TaskParams) -> AsyncGenerator[Service]:
    """Check what every request about a task must satisfy, and translate our errors.

    Raises:
        MCPError: the client did not declare the extension, or the header names another task.
    """
    require_client_extension(ctx, TASKS_EXTENSION)
    header = ctx.request.headers.get(MCP_NAME_HEADER) if ctx.request is not None else None
    # Some clients leave the header out; a wrong one would mislead a router.
    if header is not None and decode_header_value(header) != params.task_id:
        raise MCPError(
            HEADER_MISMATCH, f"{MCP_NAME_HEADER} is {header!r}, not the task {params.task_id!r}."
        )
    with protocol_errors():
        yield await service_in(ctx)


async def _task(service: Service, state: RunRecord) -> dict[str, Any]:
    """The fields that a task has in every status."""
    kept = service.kept_seconds
    last = await service.runs.events(state.run_id, max(0, state.last_event - 1), 1)
    return {
        "taskId": state.run_id,
        "status": _status(state),
        "statusMessage": progress_line(state),
        "createdAt": state.created_at,
        "lastUpdatedAt": last[0].at if last else state.created_at,
        # Counted from the creation, so an ended run is kept longer than this says.
        "ttlMs": None if kept is None else round(kept * 1000),
        "pollIntervalMs": POLL_INTERVAL_MS,
    }


def _status(state: RunRecord) -> TaskStatus:
    """Return the state of a task; a failed run is a completed task whose result is an error.

    SEP-2663: `failed` is for errors of the server, never for those that a tool reports.
    """
    match state.status:
        case "running":
            return "working"
        case "cancelled":
            return "cancelled"
        case "interrupted":
            return "failed"
        case "failed" if (state.error or {}).get("code") == RLMError.code:
            return "failed"
        case _:
            return "completed"


def _declares_tasks(ctx: Request) -> bool:
    """Whether the client declared the extension on this very request."""
    declared = ctx.session.client_capabilities
    return ctx.protocol_version in _VERSIONS and TASKS_EXTENSION in (
        (declared and declared.extensions) or {}
    )
