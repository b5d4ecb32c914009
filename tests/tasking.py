"""A client that knows tasks, as far as tests need one: it shows what is on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from mcp.client.extension import ClaimContext, ClientExtension, ResultClaim
from mcp_types import CallToolResult, Request, RequestParams, Result
from pydantic import ConfigDict

from rlm_mcp.server.tasks import TASKS_EXTENSION
from tests.serving import Served


class Created(Result):
    """What creates a task, with all its fields."""

    model_config = ConfigDict(extra="allow")

    result_type: Literal["task"]


class Told(Result):
    """What is told of a task, with all its fields."""

    model_config = ConfigDict(extra="allow")


class KnowsTasks(ClientExtension):
    """Declares the extension with every request."""

    identifier = TASKS_EXTENSION

    def claims(self) -> Sequence[ResultClaim[Any]]:
        return (ResultClaim(result_type="task", model=Created, resolve=self._resolve),)

    async def _resolve(self, created: Created, ctx: ClaimContext) -> CallToolResult:
        raise AssertionError((created, ctx))


class Params(RequestParams):
    model_config = ConfigDict(extra="allow")


async def begin(served: Served, tool: str = "rlm_query", **arguments: Any) -> dict[str, Any]:
    """Call a tool, and give what came in place of its result."""
    came = await served.client.session.call_tool(tool, arguments, allow_claimed=True)
    return came.model_dump(by_alias=True, mode="json", exclude={"meta"})


async def ask(served: Served, method: str, **params: Any) -> dict[str, Any]:
    """Send a request about tasks."""
    request = Request[Params, str](method=method, params=Params(**params))
    told = await served.client.session.send_request(request, Told)
    return told.model_dump(by_alias=True, mode="json", exclude={"meta"})


async def settled(served: Served, task_id: str) -> dict[str, Any]:
    """Wait for a task's run to end, and give the task."""
    await served.ended(task_id)
    return await ask(served, "tasks/get", taskId=task_id)
