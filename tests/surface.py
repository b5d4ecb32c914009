"""All that a client sees of this server.

`python -m tests.surface` renews the snapshot of it, and the parts of the documents made from it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn, cast

import anyio
import anyio.to_thread
from mcp.server.mcpserver.tools import Tool
from mcp_types import ListPromptsResult, ListResourceTemplatesResult, ListToolsResult
from mcp_types import Tool as ListedTool

from rlm_mcp.server.http.serving import build_http_mcp
from rlm_mcp.server.http.upload_tool import UPLOAD_TOOL
from rlm_mcp.server.tool import make_tool
from rlm_mcp.server.toolbox import RECORD, all_specs
from rlm_mcp.service.service import Service

SNAPSHOT = Path(__file__).parent / "surface.json"


def no_service() -> NoReturn:
    """Lists are given out by a server that serves nothing yet."""
    raise AssertionError(Service)


def as_listed(tool: Tool) -> ListedTool:
    """Return a tool as a client sees it."""
    return ListedTool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=tool.parameters,
        output_schema=tool.output_schema,
        annotations=tool.annotations,
        icons=tool.icons,
        _meta=tool.meta,
    )


async def surface() -> dict[str, Any]:
    """Instructions, tools, prompts and templates, as they are sent over HTTP, which has most."""
    server = await anyio.to_thread.run_sync(build_http_mcp, no_service)
    made = [as_listed(make_tool(spec)) for spec in all_specs([UPLOAD_TOOL])]
    listed = (
        ListToolsResult(tools=made),
        ListPromptsResult(prompts=await server.list_prompts()),
        ListResourceTemplatesResult(resource_templates=await server.list_resource_templates()),
    )
    found: dict[str, Any] = {"instructions": (server.instructions or "").splitlines()}
    for result in listed:
        found |= result.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {name: found[name] for name in ("instructions", "tools", "prompts", "resourceTemplates")}


def as_text(value: Any, indent: str = "") -> str:
    """JSON with what fits on one line there, so that a change shows as the lines that changed."""
    line = json.dumps(value, ensure_ascii=False)
    if len(indent + line) <= 100 or not isinstance(value, dict | list):
        return line
    deeper = indent + " "
    if isinstance(value, list):
        items = [as_text(item, deeper) for item in cast("list[Any]", value)]
        return _broken("[]", items, indent)
    fields = cast("dict[str, Any]", value).items()
    return _broken(
        "{}", [f"{json.dumps(name)}: {as_text(item, deeper)}" for name, item in fields], indent
    )


def _broken(brackets: str, parts: list[str], indent: str) -> str:
    inner = ",\n".join(f"{indent} {part}" for part in parts)
    return f"{brackets[0]}\n{inner}\n{indent}{brackets[1]}"


if __name__ == "__main__":
    from tests.reference import main as renew_documents  # which imports this module

    found = anyio.run(surface)
    SNAPSHOT.write_text(as_text(found) + "\n")
    RECORD.write_text(as_text(found["tools"]) + "\n")
    renew_documents()
