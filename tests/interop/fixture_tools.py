"""The tools that the suite's scenarios of tasks call, done with this server's own.

Each is a question, which the real engine works on behind the real extension; how long that takes
and how it ends is up to the scripted model.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from mcp.server import MCPServer
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp_types import CallToolResult, TextContent

from rlm_mcp.server.http.serving import Place, build_http_mcp, open_http_server
from rlm_mcp.server.pending import OpenService, PendingService
from rlm_mcp.testing.scripted_model import open_scripted_model
from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView, Reply, unauthorized
from tests.serving import settings_in

TOOLS = {"slow_compute", "failing_job", "protocol_error_job"}


def script(request: ChatRequestView) -> Answer:
    """Think for as long as the question says, or refuse to."""
    if "failing_job" in request.text:
        return unauthorized()
    seconds = re.search(r"for (\d+) seconds", request.text)
    return Reply("FINAL(computed)", latency_seconds=float(seconds[1]) if seconds else 60)


async def as_questions(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """Turn calls of the suite's tools into questions."""
    params = dict(ctx.params or {})
    name, arguments = params.get("name"), cast("dict[str, Any]", params.get("arguments") or {})
    if ctx.method != "tools/call" or name not in {*TOOLS, "greet"}:
        return await call_next(ctx)
    if name == "greet":
        return CallToolResult(content=[TextContent(text=f"Hello, {arguments['name']}!")])
    # Each is a question of its own, that none attaches to another's run.
    how = f"for {arguments.get('seconds', 'many')} seconds, as {arguments.get('label')!r}"
    question = f"Do {name} {how}, number {ctx.request_id}."
    asked = {"question": question, "text": "nothing"}
    told = await call_next(replace(ctx, params={**params, "name": "rlm_query", "arguments": asked}))
    if name == "protocol_error_job":
        pending: PendingService = ctx.lifespan_context
        await (await pending.get()).interrupt_runs()
    return told


def build(open_service: OpenService) -> MCPServer[PendingService]:
    """Build the server as it is over HTTP, with the suite's tools."""
    mcp = build_http_mcp(open_service)
    mcp.middleware.append(as_questions)
    return mcp


@asynccontextmanager
async def open_fixture_server(directory: Path) -> AsyncGenerator[str]:
    """Serve with the suite's tools; gives the URL."""
    async with open_scripted_model(script) as model:
        settings = settings_in(directory, base_url=model.base_url)
        async with open_http_server(settings, Place(port=0), build=build) as url:
            yield f"{url}/mcp"
