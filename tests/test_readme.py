"""The README names all that exists, and shows only what works."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import rlm_mcp
from rlm_mcp import cli
from rlm_mcp.settings import PREFIX, Settings
from tests.surface import surface

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


async def test_every_tool_is_named_and_no_other() -> None:
    tools = {tool["name"] for tool in (await surface())["tools"]}

    assert set(re.findall(r"^\| `(rlm_\w+)` \|", README, re.MULTILINE)) == tools
    assert set(re.findall(r"\brlm_(?:context|run|query|status)\w*", README)) <= tools


def test_every_setting_is_named_and_no_other() -> None:
    settings = {PREFIX + name.upper() for name in Settings.model_fields}

    assert set(re.findall(r"RLM_MCP_[A-Z_]+", README)) == settings


def test_every_default_is_the_real_one() -> None:
    rows = re.findall(r"^\| (`RLM_MCP_[^|]*) \| ([^|]*) \|", README, re.MULTILINE)
    for names, defaults in rows:
        fields = [name.removeprefix(PREFIX).lower() for name in re.findall(r"RLM_MCP_\w+", names)]
        shown = re.findall(r"`([^`]*)`", defaults)
        real = [as_shown(Settings.model_fields[field].default) for field in fields]
        assert not shown or shown * (len(real) // len(shown)) == real, names


def as_shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        elif not command.hidden:
            yield f"{path} {name}", command


@pytest.mark.parametrize(("path", "command"), list(commands(cli.main, "rlm-mcp")))
def test_every_command_is_named_with_its_options_and_no_others(
    path: str, command: click.Command
) -> None:
    options = {
        name
        for parameter in command.params
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("--")
    }
    [row] = re.findall(rf"^\| `{path}\b(.*)$", README, re.MULTILINE)

    assert set(re.findall(r"`(--[a-z-]+)", row)) == options
    assert command.help


@pytest.mark.parametrize("block", blocks("json"))
def test_a_json_block_is_json_that_starts_the_server(block: str) -> None:
    config = json.loads(block)
    [server] = (config.get("mcpServers") or config["servers"]).values()

    assert (server["command"], server["args"]) == ("uvx", ["rlm-mcp"])
    assert all(name.removeprefix(PREFIX).lower() in Settings.model_fields for name in server["env"])


@pytest.mark.parametrize("block", blocks("toml"))
def test_a_toml_block_is_toml_that_starts_the_server(block: str) -> None:
    [server] = tomllib.loads(block)["mcp_servers"].values()

    assert (server["command"], server["args"]) == ("uvx", ["rlm-mcp"])
    assert all(name.removeprefix(PREFIX).lower() in Settings.model_fields for name in server["env"])


@pytest.mark.parametrize("block", blocks("python"))
def test_a_python_block_parses_and_imports_what_exists(block: str) -> None:
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom) and node.module == "rlm_mcp":
            for alias in node.names:
                assert hasattr(rlm_mcp, alias.name)


def test_the_test_command_is_the_one_that_is_run_before_a_change_lands() -> None:
    command = "pip install uv && uv run pytest"

    assert f"```bash\n{command}\n```" in README
    assert any(
        line.endswith(command.replace("install uv", "install --quiet uv"))
        for line in (ROOT / ".ci" / "run").read_text().splitlines()
    )


def test_every_host_is_told_how_to_connect() -> None:
    for host in ("Claude Desktop", "Claude Code", "VS Code", "Cursor", "Codex"):
        assert f"**{host}**" in README
