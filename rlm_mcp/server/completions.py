"""Completion of what people type into templates and prompts, by prefix."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from mcp.server.context import ServerRequestContext
from mcp_types import CompleteRequestParams, CompleteResult, Completion

from rlm_mcp.errors import RLMError
from rlm_mcp.server.tool import service_in
from rlm_mcp.service.service import Service

# The protocol's limit.
_MAX_VALUES = 100


async def complete(
    ctx: ServerRequestContext[Service, Any], params: CompleteRequestParams
) -> CompleteResult:
    """Give what an argument may be, newest first; nothing where nothing is known."""
    known = params.context.arguments if params.context else None
    values: Sequence[str] = ()
    with suppress(RLMError):  # a wrong run id or a busy REPL: there is nothing to offer
        values = await _values(
            service_in(ctx), params.argument.name, params.argument.value, known or {}
        )
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
