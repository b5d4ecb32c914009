"""Builds the MCP server: its lifespan, its tools, and the one place that translates errors."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import anyio
from mcp.server import MCPServer
from mcp.server.apps import Apps, client_supports_apps
from mcp.server.caching import CacheableMethod, CacheHint
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import NotificationOptions
from mcp.server.lowlevel.helper_types import ReadResourceContents
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import (
    ResourceError,
    ResourceNotFoundError,
    ToolError,
    UnexpectedToolError,
)
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolResult,
    CompleteRequestParams,
    Icon,
    ListToolsResult,
    NotificationParams,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
    ResourceTemplate,
    SubscribeRequestParams,
    SubscriptionsListenRequestParams,
    UnsubscribeRequestParams,
)
from mcp_types import Tool as ListedTool
from pydantic import AnyUrl, ValidationError

from rlm_mcp import __version__
from rlm_mcp.errors import NotFoundError, RLMError, TooManyFilesError, lacks_descriptors
from rlm_mcp.server.completions import complete
from rlm_mcp.server.messages import HALVES_META_KEY
from rlm_mcp.server.pending import OpenPage, OpenService, PendingService
from rlm_mcp.server.prompts import PROMPTS
from rlm_mcp.server.resources import KINDS, list_resources, read_resource
from rlm_mcp.server.results import (
    TEXTS,
    error_result,
    invalid_arguments,
    invalid_parameters,
    protocol_error,
    with_notes,
)
from rlm_mcp.server.stdio import serve_stdio
from rlm_mcp.server.tasks import Tasks
from rlm_mcp.server.tool import RUN_VIEW, ToolSpec, fit_for, service_of
from rlm_mcp.server.toolbox import Toolbox
from rlm_mcp.server.updates import Updates

if TYPE_CHECKING:
    from rlm_mcp.service.service import Service

log = logging.getLogger(__name__)

_HALVES_NOTE = (
    "Half a character (a lone surrogate) in the arguments became '?': cut texts between characters."
)
# What the SDK says of a request before the handshake.
_TOO_EARLY = "Invalid request parameters"
WEBSITE = "https://pypi.org/project/rlm-mcp/"
# Three lines of a text, and the piece of it that somebody looks at.
ICON = (
    "data:image/svg+xml,%3Csvg%20xmlns=%27http://www.w3.org/2000/svg%27%20viewBox=%270%200%20"
    "16%2016%27%3E%3Cpath%20d=%27M2%203h12M2%208h5M2%2013h12%27%20stroke=%27%23777%27%20strok"
    "e-width=%272%27/%3E%3Ccircle%20cx=%2711%27%20cy=%278%27%20r=%272.5%27%20fill=%27%23d60%2"
    "7/%3E%3C/svg%3E"
)
# The lists of tools, prompts and templates are the same as long as the server runs; that of texts
# and runs changes, and each caller has one of his own.
# A stored text never changes, but it may be deleted.
_SEALED_MS = 600_000
_FIXED = CacheHint(ttl_ms=3_600_000, scope="public")
CACHE_HINTS: Mapping[CacheableMethod, CacheHint] = {
    "tools/list": _FIXED,
    "prompts/list": _FIXED,
    "resources/templates/list": _FIXED,
    "resources/list": CacheHint(ttl_ms=2000),
}

INSTRUCTIONS = """\
Ask questions over text that is too long for a context window. Texts are stored once and have \
handles; a question runs a Recursive Language Model over them: a model writes Python that reads, \
searches and splits the text, and calls models on the pieces.

1. rlm_context_add stores a text: give `path` for files on the server's machine (a file, a \
directory or a glob), above all for large ones. It returns a handle such as ctx_....
2. rlm_query asks a question over one or more handles. The answering model sees only the question \
and the texts, nothing of your conversation. It waits up to wait_seconds; if the run is still \
`running` then, make the call that `next` names. Runs continue by themselves: nothing is lost when \
a call ends or times out, and a run that ended too early continues with rlm_run_resume.
3. rlm_run_trace shows what a run did, rlm_run_variables what its REPL holds. Look there when an \
answer surprises you.

To look something up, use rlm_context_search or rlm_context_read: they call no model and are free.
"""


def build_server(
    open_service: OpenService,
    more_tools: Sequence[ToolSpec] = (),
    more_instructions: str = "",
    open_page: OpenPage | None = None,
) -> MCPServer[PendingService]:
    """Build the server; `open_service` is entered once, in the background, when it serves.

    Args:
        open_page: what serves the page beside it, where its own transport does not.
        more_tools: tools that only some transports have.
        more_instructions: what the instructions say about them.
    """
    updates, toolbox = Updates(), Toolbox(more_tools)

    def open_all() -> AbstractAsyncContextManager[Service]:
        toolbox.make()
        return open_service()

    def lifespan(_: MCPServer[PendingService]) -> AbstractAsyncContextManager[PendingService]:
        return _while_serving(PendingService(open_all, open_page), updates)

    return RLMServer(
        toolbox,
        updates,
        name="rlm-mcp",
        title="Recursive Language Models",
        version=__version__,
        website_url=WEBSITE,
        icons=[Icon(src=ICON, mime_type="image/svg+xml", sizes=["any"])],
        cache_hints=CACHE_HINTS,
        instructions=INSTRUCTIONS + more_instructions,
        lifespan=lifespan,
        extensions=[Tasks(), Apps()],
        middleware=[_explained],
        log_level="WARNING",
    )


@asynccontextmanager
async def _while_serving(
    pending: PendingService, updates: Updates
) -> AsyncGenerator[PendingService]:
    """Hold the service and watch for updates while the server serves."""
    async with anyio.create_task_group() as holding:
        holding.start_soon(pending.hold)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(updates.watch, pending)
            try:
                yield pending
            finally:
                tasks.cancel_scope.cancel()
                pending.close()


class RLMServer(MCPServer[PendingService]):
    """An `MCPServer` whose errors say what was wrong and what to do, in every tool."""

    def __init__(self, toolbox: Toolbox, updates: Updates, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._toolbox = toolbox
        self._add_methods(updates)
        for prompt in PROMPTS:
            self.add_prompt(prompt)

    def _add_methods(self, updates: Updates) -> None:
        """Add the requests that the SDK lacks, or answers without pages or callers."""
        server = self._lowlevel_server
        serve = server.add_request_handler
        serve("tools/list", PaginatedRequestParams, self._list_tools_for)
        serve("resources/list", PaginatedRequestParams, list_resources)
        self._read = server.get_request_handler("resources/read")
        serve("resources/read", ReadResourceRequestParams, self._read_with_hint)
        serve("completion/complete", CompleteRequestParams, complete)
        serve("subscriptions/listen", SubscriptionsListenRequestParams, updates.listen)
        serve("resources/subscribe", SubscribeRequestParams, updates.subscribe)
        serve("resources/unsubscribe", UnsubscribeRequestParams, updates.unsubscribe)
        server.add_notification_handler(
            "notifications/initialized", NotificationParams, updates.greet
        )
        # Transports call this without arguments; it must say that the list of resources changes.
        server.create_initialization_options = partial(  # pyright: ignore[reportAttributeAccessIssue]  # fewer parameters
            server.create_initialization_options, NotificationOptions(resources_changed=True)
        )

    async def _list_tools_for(
        self, ctx: ServerRequestContext[PendingService, Any], params: PaginatedRequestParams
    ) -> ListToolsResult:
        """List the tools; those of the MCP App only to clients that can show one."""
        del params
        return ListToolsResult(tools=self._toolbox.listed(with_apps=client_supports_apps(ctx)))

    async def list_tools(self) -> list[ListedTool]:
        """List all tools."""
        return self._toolbox.listed(with_apps=True)

    async def _read_with_hint(
        self, ctx: ServerRequestContext[PendingService, Any], params: ReadResourceRequestParams
    ) -> HandlerResult:
        """Read a resource; a stored text is the same as long as it is there."""
        if self._read is None:
            raise AssertionError  # the SDK serves it
        result = await self._read.handler(ctx, params)
        if isinstance(result, ReadResourceResult) and str(params.uri).startswith(TEXTS):
            return result.model_copy(update={"ttl_ms": _SEALED_MS, "cache_scope": "private"})
        return result

    async def run_stdio_async(self) -> None:
        """Serve over stdin and stdout until the host closes them."""
        await serve_stdio(self._lowlevel_server)

    async def call_tool(
        self,
        name: str,
        arguments: dict[str, Any],
        context: Context[PendingService, Any] | None = None,
    ) -> Any:
        """Call a tool; an error that it raises on purpose becomes a typed result."""
        try:
            made = await self._toolbox.find(name)
            if made is None:
                raise self._toolbox.unknown(name)
            arguments, notes = made.rules.usable(arguments)
            context = context or Context(mcp_server=self)
            if (context.request_context.meta or {}).get(HALVES_META_KEY):
                notes.append(_HALVES_NOTE)
            result = await made.tool.run(arguments, context, convert_result=True)
            return fit_for(context.request_context, with_notes(result, notes))
        except RLMError as error:
            return error_result(error)
        except UnexpectedToolError as error:
            return _translated(name, error) or _crashed(name, error)
        except ToolError as error:
            translated = _translated(name, error)
            if translated is None:
                raise
            return translated

    async def list_resource_templates(self) -> list[ResourceTemplate]:
        """List the templates of resources."""
        return [kind.listed() for kind in KINDS]

    async def read_resource(
        self, uri: AnyUrl | str, context: Context[PendingService, Any] | None = None
    ) -> list[ReadResourceContents]:
        """Read a resource; the error for an unknown one names similar ones."""
        if context is None:
            raise ResourceError(f"Reading {str(uri)!r} needs a request.")
        if str(uri) == RUN_VIEW:
            await self._toolbox.find("")  # loads what draws it
            from rlm_mcp.server.app_view import read_run_view  # noqa: PLC0415  # at its first use

            return [await read_run_view()]
        try:
            return [await read_resource(await service_of(context), str(uri))]
        except NotFoundError as error:
            raise ResourceNotFoundError(str(error)) from error
        except RLMError as error:
            raise protocol_error(error) from error

    async def get_prompt(
        self,
        name: str,
        arguments: dict[str, Any] | None = None,
        context: Context[PendingService, Any] | None = None,
    ) -> Any:
        """Return a prompt; the error for an unknown one names those that exist."""
        try:
            return await super().get_prompt(name, arguments, context)
        except ValueError as error:
            known = ", ".join(prompt.name for prompt in PROMPTS)
            raise MCPError(INVALID_PARAMS, f"{error}. The prompts are {known}.") from error


async def _explained(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """Answer a message; the SDK's own refusals of it say no more than that it was refused.

    Raises:
        MCPError: in place of a `ValidationError`, and what answering raised.
    """
    try:
        return await call_next(_without_null_token(ctx))
    except ValidationError as error:
        raise invalid_parameters(ctx.method, error) from error
    except MCPError as error:
        if (error.error.code, error.error.message) != (INVALID_PARAMS, _TOO_EARLY):
            raise
        told = f"{ctx.method} came before the session began: send `initialize` first."
        raise MCPError(INVALID_PARAMS, told) from error


def _without_null_token(ctx: ServerRequestContext[Any, Any]) -> ServerRequestContext[Any, Any]:
    """Drop a progress token that is null, which clients send that must fill every field."""
    params = ctx.params or {}
    meta: Any = params.get("_meta")
    if not isinstance(meta, dict):
        return ctx
    fields = cast("dict[str, Any]", meta)
    if fields.get("progressToken", "") is not None:
        return ctx
    kept = {name: one for name, one in fields.items() if name != "progressToken"}
    return replace(ctx, params={**params, "_meta": kept})


def _translated(name: str, error: ToolError) -> CallToolResult | None:
    cause = error.__cause__
    if isinstance(cause, RLMError):
        return error_result(cause)
    if isinstance(cause, ValidationError):
        return error_result(invalid_arguments(name, cause))
    return None


def _crashed(name: str, error: UnexpectedToolError) -> CallToolResult:
    if lacks_descriptors(error):
        log.warning("%s failed: too many open files", name)
        return error_result(TooManyFilesError())
    log.error("%s failed", name, exc_info=error.__cause__)
    return error_result(
        RLMError(f"{name} failed: a fault in the server.", fix="Its log on stderr has the details.")
    )
