"""The tool that only HTTP has: it makes a URL to which a client can upload a text."""

from __future__ import annotations

import shlex
from typing import Annotated

from mcp_types import CallToolResult
from pydantic import Field
from starlette.requests import Request

from rlm_mcp.server import schemas
from rlm_mcp.server.http.addresses import UPLOADS
from rlm_mcp.server.results import result
from rlm_mcp.server.tool import ToolContext, ToolSpec, service_of


async def rlm_context_upload_url(
    ctx: ToolContext,
    *,
    name: Annotated[str, Field(description="A name for people.")],
    sha256: Annotated[str, Field(description="Refuse a text with another SHA-256.")] = "",
) -> Annotated[CallToolResult, schemas.UploadURL]:
    """Get a URL for one upload (HTTP PUT) of a text of any size, for files that are not on the
    server's machine. The answer to the PUT holds the handle."""
    secret, ticket = await (await service_of(ctx)).transfers.issue_ticket(name, sha256)
    request: Request | None = ctx.request_context.request
    if request is None:
        raise AssertionError  # only HTTP serves this tool
    url = f"{request.url.scheme}://{request.url.netloc}{UPLOADS}{secret}"
    answer = schemas.UploadURL(url=url, expires_at=ticket.expires)
    command = f"curl -T FILE {shlex.quote(url)}"
    return result(answer, f"{command}\n[one PUT, until {answer.expires_at}]")


UPLOAD_TOOL = ToolSpec(rlm_context_upload_url, "Get an upload URL")
