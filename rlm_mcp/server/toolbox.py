"""The tools of a server: listed as they are on record, made when the service opens.

Making the schemas of all tools from their functions takes longer than everything else that a host
wants before its first call. So their list is in a file, which `python -m tests.surface` writes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio.to_thread
from mcp.server.mcpserver.tools import Tool
from mcp_types import Tool as ListedTool

from rlm_mcp.errors import NotFoundError
from rlm_mcp.server.tool import ArgumentRules, ToolSpec, make_tool
from rlm_mcp.text import nearest, preview

RECORD = Path(__file__).with_name("tools.json")
# The tools that a server has only where it is made with them.
OPTIONAL = frozenset({"rlm_context_upload_url"})


@dataclass(frozen=True)
class MadeTool:
    """A tool that can be called, and the rules for what callers send it."""

    tool: Tool
    rules: ArgumentRules


class Toolbox:
    """All tools of one server.

    Args:
        more: tools beside those that every server has.
    """

    def __init__(self, more: Sequence[ToolSpec] = ()) -> None:
        self._more = more
        names = {spec.function.__name__ for spec in more}
        recorded = json.loads(RECORD.read_text(encoding="utf-8"))
        self._record = [one for one in recorded if one["name"] not in OPTIONAL - names]
        self._made: Mapping[str, MadeTool] | None = None

    def listed(self, *, with_apps: bool) -> list[ListedTool]:
        """Return the tools as a client sees them; those of the MCP App only if it shows apps."""
        shown = [one for one in self._record if with_apps or not _is_for_apps(one)]
        return [ListedTool.model_validate(one, by_name=False) for one in shown]

    async def find(self, name: str) -> MadeTool | None:
        """Return a tool that can be called."""
        return (self._made or await anyio.to_thread.run_sync(self.make)).get(name)

    def unknown(self, name: str) -> NotFoundError:
        """The error for a tool that does not exist."""
        names = [tool.name for tool in self.listed(with_apps=False)]
        near = "".join(f"Did you mean {one!r}? " for one in nearest(name, names)[:1])
        return NotFoundError(
            f"There is no tool {preview(name)!r}.", fix=f"{near}The tools are {', '.join(names)}."
        )

    def make(self) -> Mapping[str, MadeTool]:
        """Load and make the tools, once; blocks."""
        if self._made is None:
            tools = map(make_tool, all_specs(self._more))
            self._made = {tool.name: MadeTool(tool, ArgumentRules(tool)) for tool in tools}
        return self._made


def _all_specs() -> tuple[Sequence[ToolSpec], ...]:
    # Loading these is what a host need not wait for.
    from rlm_mcp.server.app_view import VIEW_TOOLS  # noqa: PLC0415
    from rlm_mcp.server.context_tools import CONTEXT_TOOLS  # noqa: PLC0415
    from rlm_mcp.server.run_tools import RUN_TOOLS  # noqa: PLC0415

    return CONTEXT_TOOLS, RUN_TOOLS, VIEW_TOOLS


def all_specs(more: Sequence[ToolSpec]) -> Sequence[ToolSpec]:
    """Return what is known of every tool, in the order of the list."""
    for_texts, for_runs, for_view = _all_specs()
    return [*for_texts, *more, *for_runs, *for_view]


def _is_for_apps(recorded: Mapping[str, Any]) -> bool:
    ui = recorded.get("_meta", {}).get("ui", {})
    return ui.get("visibility") == ["app"]
