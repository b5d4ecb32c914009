"""What others rely on: the names of the library and of the server, and how the layers lie."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from mcp_types import ListToolsResult

import rlm_mcp
from rlm_mcp import errors
from rlm_mcp.server.app import build_server
from rlm_mcp.server.http.serving import build_http_mcp
from rlm_mcp.server.toolbox import RECORD
from tests.serving import open_served, turns
from tests.surface import SNAPSHOT, no_service, surface

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "rlm_mcp"


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def test_only_the_settings_read_the_environment() -> None:
    reading = re.compile(r"os\.environ(?!\.clear\(\)|\[\"\w+\"\] = )|getenv")
    readers = {path.name for path in modules() if reading.search(path.read_text())}

    assert readers <= {"settings.py"}


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = "('openai', 'mcp', 'sqlite_utils', 'pydantic', 'rich', 'click')"
    code = f"import sys, rlm_mcp; print([name for name in {heavy} if name in sys.modules])"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("layer", ["service", "store"])
def test_every_refusal_says_what_to_do(layer: str) -> None:
    kinds = {
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and "fix" in inspect.signature(kind).parameters
    }
    silent = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in (PACKAGE / layer).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in kinds
        if "fix" not in {argument.arg for argument in node.keywords}
    ]

    assert silent == []


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert project["version"] == rlm_mcp.__version__


def test_every_dependency_is_bounded_from_above() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = settings["project"]["dependencies"] + settings["dependency-groups"]["dev"]

    assert [one for one in wanted if "<" not in one and "==" not in one] == []


async def test_the_surface_is_the_one_that_was_reviewed() -> None:
    found = await surface()

    reviewed = json.loads(await anyio.Path(SNAPSHOT).read_text())
    assert found == reviewed, "Run `python -m tests.surface`, and look at what changed in the file."


async def test_the_tools_that_are_listed_are_those_that_are_called() -> None:
    """The list stands in a file, so that a host has it before the tools are loaded."""
    server = await anyio.to_thread.run_sync(build_http_mcp, no_service)
    listed = ListToolsResult(tools=await server.list_tools())

    found = listed.model_dump(mode="json", by_alias=True, exclude_none=True)["tools"]
    assert found == (await surface())["tools"], "Run `python -m tests.surface`."


def test_the_options_that_a_tool_names_are_options_of_a_run() -> None:
    tools = {tool["name"]: tool for tool in json.loads(RECORD.read_text(encoding="utf-8"))}
    said = tools["rlm_query"]["inputSchema"]["properties"]["options"]["description"]
    named = re.findall(r"\w+_\w+|temperature", said)

    assert named
    assert set(named) <= rlm_mcp.RLMConfig.model_fields.keys()


async def test_every_tool_says_what_it_is_and_does(tmp_path: Path) -> None:
    async with open_served(tmp_path, turns("never")) as served:
        found = await served.client.list_tools()

    assert len(found.tools) > 10
    for tool in found.tools:
        assert tool.title
        assert tool.description
        assert len(tool.description) < 1000
        assert tool.output_schema is not None
        hints = tool.annotations
        assert hints is not None
        assert None not in (
            hints.read_only_hint,
            hints.destructive_hint,
            hints.idempotent_hint,
            hints.open_world_hint,
        )


@pytest.mark.parametrize("build", [build_server, build_http_mcp])
async def test_a_list_of_all_tools_leaves_a_window_to_its_owner(build: Any) -> None:
    server = await anyio.to_thread.run_sync(build, no_service)
    # What is for the MCP App alone is not listed to others, and `_meta` is not shown to models.
    tools = [tool for tool in await server.list_tools() if tool.name != "rlm_run_lines"]
    bare = [tool.model_copy(update={"meta": None}) for tool in tools]
    found = ListToolsResult(tools=bare)

    tools = found.model_dump(mode="json", by_alias=True, exclude_none=True)["tools"]
    for tool in tools:
        tool.pop("_meta", None)  # what a host reads, and no model
    read_by_models = [
        {name: tool[name] for name in ("name", "description", "inputSchema")} for tool in tools
    ]

    assert len(compact(tools)) < 15_500
    assert len(compact(read_by_models)) < 9_000
    assert len(server.instructions or "") < 2000


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


async def test_the_server_introduces_itself(tmp_path: Path) -> None:
    async with open_served(tmp_path, turns("never"), mode="legacy") as served:
        instructions = served.client.instructions
        info = served.client.server_info

    assert info is not None
    assert (info.name, info.version) == ("rlm-mcp", rlm_mcp.__version__)
    assert (info.website_url or "").startswith("https://")
    assert [icon.mime_type for icon in info.icons or ()] == ["image/svg+xml"]
    assert instructions is not None
    assert "rlm_context_add" in instructions
    assert len(instructions) < 2000
