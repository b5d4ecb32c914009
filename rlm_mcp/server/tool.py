"""What a tool is, how the SDK gets it, and how arguments of callers become those that it takes.

Frameworks that must fill every field send null, an empty value or 0 for what they leave out, and
models ask for more than a page holds. None of that is a mistake that a caller could correct.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, cast

from annotated_types import Ge, Gt, Le
from mcp.server.context import ServerRequestContext
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.tools import Tool
from mcp_types import CallToolResult, ResourceLink, ToolAnnotations
from pydantic import BeforeValidator, Field

from rlm_mcp.errors import InvalidInputError
from rlm_mcp.server.pending import PendingService
from rlm_mcp.server.schema_trim import input_outline, output_outline
from rlm_mcp.text import nearest

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


Arguments = dict[str, Any]
# In these, 0 stands for "the default", and too much is cut to the maximum.
_PAGES = ("limit", "timeout_seconds")
# In these, 0 stands for "not given".
_GROUPS = ("budget",)

# Seconds to wait for a run where the caller does not say, by the name in `clientInfo`.
CALLER_SECONDS: Mapping[str, float] = {
    # Its limit is hours, and progress resets its clock for silence: 5 min over HTTP, 30 over stdio.
    "claude-code": 3600,
    # A call may take 60 s, unless the configuration says otherwise (`install codex` does).
    "codex-mcp-client": 50,
    # It sends no progress token, but waits a minute.
    "Cline": 45,
}
# Hosts with a limit of their own at about a minute, whether or not they show progress.
USUAL_SECONDS = 45.0
# Agent frameworks end a call after 5 to 10 s, and none that asks for no progress waits longer. The
# run's id must reach the model before that.
SILENT_SECONDS = 4.0
# What the SDKs call clients that do not say who they are.
_UNNAMED = ("", "mcp")


class ArgumentRules:
    """What one tool takes: the names, which are required, and the bounds of numbers."""

    def __init__(self, tool: Tool) -> None:
        self._tool = tool.name
        self._names = list(tool.parameters["properties"])
        self._required = frozenset(tool.parameters.get("required", ()))
        fields = tool.fn_metadata.arg_model.model_fields
        self._pages = {
            name: (_bounds(fields[name].metadata), fields[name].default)
            for name in _PAGES
            if name in fields
        }

    def usable(self, given: Mapping[str, Any]) -> tuple[Arguments, list[str]]:
        """Return the arguments to call the tool with, and what was changed in them.

        Raises:
            InvalidInputError: the tool has no argument of some name.
        """
        self._refuse_unknown(given)
        notes: list[str] = []
        arguments = {
            name: value
            for name, value in given.items()
            if name in self._required or value not in (None, "", [], {})
        }
        for name in self._pages.keys() & arguments.keys():
            self._fit(name, arguments, notes)
        for name in arguments.keys() & set(_GROUPS):
            arguments[name] = _group_given(name, arguments[name], notes)
        if isinstance(options := arguments.get("options"), dict):
            fields = cast("Arguments", options)
            arguments["options"] = {
                key: value for key, value in fields.items() if value is not None
            }
        return arguments, notes

    def _fit(self, name: str, arguments: Arguments, notes: list[str]) -> None:
        (_, most), usual = self._pages[name]
        number = _number(arguments[name])
        if number == 0:
            del arguments[name]
            notes.append(f"{name}=0 was taken as the default, {usual}.")
        elif number is not None and most is not None and number > most:
            arguments[name] = most
            notes.append(f"{name}={arguments[name]} is the maximum; {number:g} was asked for.")

    def _refuse_unknown(self, given: Iterable[str]) -> None:
        unknown = sorted(set(given) - set(self._names))
        if unknown:
            near = nearest(unknown[0], self._names)
            hint = f"Did you mean {near[0]!r}? " if near else ""
            raise InvalidInputError(
                f"{self._tool} has no argument {unknown[0]!r}.",
                fix=f"{hint}It takes: {', '.join(self._names)}. Nothing was changed.",
            )


def usual_wait(client: str, *, has_progress: bool) -> float:
    """Seconds to wait for a caller that gave no `wait_seconds`.

    Args:
        client: its name; empty where it gave none.
        has_progress: whether it asked for progress.
    """
    default = USUAL_SECONDS if has_progress else SILENT_SECONDS
    return CALLER_SECONDS.get(client, default)


def takes_links(client: str, *, has_progress: bool) -> bool:
    """Return whether links in results do a caller good.

    Hosts say who they are and ask for progress. Frameworks pass each block of a result on to the
    API of a model, and chat completions refuse a link, which ends the agent.
    """
    return has_progress and client not in _UNNAMED


def caller_of(request: ServerRequestContext[PendingService, Any]) -> tuple[str, bool]:
    """Return the name that a caller gives itself, and whether it asks for progress."""
    client = request.session.client_params
    has_progress = bool(request.meta and request.meta.get("progress_token"))
    return client.client_info.name if client else "", has_progress


def fit_for(
    request: ServerRequestContext[PendingService, Any], value: Any, *, is_host: bool = False
) -> Any:
    """Return a tool's result as its caller can use it.

    Args:
        is_host: the request itself says so.
    """
    client, has_progress = caller_of(request)
    is_whole = takes_links(client, has_progress=is_host or has_progress)
    if is_whole or not isinstance(value, CallToolResult):
        return value
    kept = [part for part in value.content if not isinstance(part, ResourceLink)]
    return value.model_copy(update={"content": kept})


def _group_given(group: str, value: Any, notes: list[str]) -> Any:
    """Drop the fields of a group that are null or 0; what is not a group is left to validation."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return value
    if not isinstance(value, dict):
        return value
    fields = cast("Arguments", value)
    zeros = [name for name, one in fields.items() if _number(one) == 0]
    if zeros:
        named = ", ".join(f"{group}.{name}" for name in zeros)
        notes.append(f"{named}: 0 was taken as not given, so the default holds.")
    return {
        name: one for name, one in fields.items() if one not in (None, "") and name not in zeros
    }


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _bounds(metadata: Iterable[object]) -> tuple[Any, Any]:
    least = most = None
    for rule in metadata:
        match rule:
            case Ge(ge=least) | Gt(gt=least):
                pass
            case Le(le=most):
                pass
            case _:
                pass
    return least, most
