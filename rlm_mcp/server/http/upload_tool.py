"""The tool that is there over HTTP alone: a URL to which a client sends a text of its own."""

from __future__ import annotations

import shlex
from typing import Annotated

from mcp_types import CallToolResult
from starlette.requests import Request

from rlm_mcp.server import schemas
from rlm_mcp.server.http.routes import UPLOADS
from rlm_mcp.server.results import result
from rlm_mcp.server.tool import ToolContext, ToolSpec, service_of
from rlm_mcp.store.runs.rows import iso


async def rlm_context_upload_url(
    ctx: ToolContext,
    *,
    name: str,
    sha256: str = "",
) -> Annotated[CallToolResult, schemas.UploadURL]:
    """Get a URL for one PUT of a text of any size, for files that are not on the server's machine.
    The PUT answers with the handle."""
    secret, ticket = service_of(ctx).transfers.issue_ticket(name, sha256)
    request: Request | None = ctx.request_context.request
    if request is None:
        raise AssertionError  # this tool is there over HTTP alone
    url = f"{request.url.scheme}://{request.url.netloc}{UPLOADS}{secret}"
    answer = schemas.UploadURL(url=url, expires_at=iso(ticket.expires_at))
    command = f"curl -T FILE {shlex.quote(url)}"
    return result(answer, f"{command}\n[one PUT, until {answer.expires_at}]")


UPLOAD_TOOL = ToolSpec(rlm_context_upload_url, "Get a URL to send a text to")
