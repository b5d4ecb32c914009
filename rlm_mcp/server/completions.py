"""Completes the arguments of resource templates and prompts by prefix."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mcp.server.context import ServerRequestContext
from mcp_types import CompleteRequestParams, CompleteResult, Completion

from rlm_mcp.errors import RLMError
from rlm_mcp.server.pending import PendingService
from rlm_mcp.server.tool import service_in

if TYPE_CHECKING:
    from rlm_mcp.service.service import Service

# The protocol's limit.
_MAX_VALUES = 100


async def complete(
    ctx: ServerRequestContext[PendingService, Any], params: CompleteRequestParams
) -> CompleteResult:
    """Return possible values of an argument, newest first; none where none are known."""
    known = params.context.arguments if params.context else None
    values: Sequence[str] = ()
    with suppress(RLMError):  # such as an unknown run id or a busy REPL: nothing to offer
        service = await service_in(ctx)
        values = await _values(service, params.argument.name, params.argument.value, known or {})
    return CompleteResult(
        completion=Completion(values=list(values[:_MAX_VALUES]), has_more=len(values) > _MAX_VALUES)
    )


async def _values(service: Service, name: str, prefix: str, known: dict[str, str]) -> Sequence[str]:
    match name:
        case "handle":
            return await service.contexts.starting_with(prefix, _MAX_VALUES + 1)
        case "run_id":
            return await service.runs.starting_with(prefix, _MAX_VALUES + 1)
        case "name" if "run_id" in known:
            found = await service.runs.variables(known["run_id"])
            return [one.name for one in found if one.name.startswith(prefix)]
        case "path":
            return await service.contexts.paths_starting_with(prefix, _MAX_VALUES + 1)
        case _:
            return ()
