"""The hosts that `install` knows: where each keeps its servers, and in which form."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rlm_mcp.settings import PREFIX, application_directory, directory_named_by

SERVER = "rlm"
# In the directory of VS Code, whose extension it is.
CLINE_FILE = "User/globalStorage/saoudrizwan.claude-dev/settings/cline_mcp_settings.json"
KEY = PREFIX + "API_KEY"
KEY_PLACEHOLDER = "sk-..."
VSCODE_KEY: Mapping[str, Any] = {
    "id": "rlm-key",
    "type": "promptString",
    "description": "API key",
    "password": True,
}


@dataclass(frozen=True)
class Host:
    """One host.

    Args:
        title: for people.
        language: what its file is written in.
        servers: the key of the file's table of servers.
        file: gives the file of the user's own configuration.
        project_file: the file of a project, from its directory; empty where there is none.
        extra: what stands in each entry besides command, arguments and environment.
        key: the placeholder for the API key.
        inputs: what the host asks its user for, at the file's top level.
        after: what the user has to do once the file is written.
    """

    title: str
    servers: str
    file: Callable[[], Path]
    after: str
    language: Literal["json", "toml"] = "json"
    project_file: str = ""
    extra: Mapping[str, Any] | None = None
    key: str = KEY_PLACEHOLDER
    inputs: tuple[Mapping[str, Any], ...] = ()


HOSTS: Mapping[str, Host] = {
    "claude-desktop": Host(
        "Claude Desktop",
        servers="mcpServers",
        file=lambda: application_directory("Claude") / "claude_desktop_config.json",
        after="Quit Claude Desktop and start it again.",
    ),
    "claude-code": Host(
        "Claude Code",
        servers="mcpServers",
        file=lambda: directory_named_by("CLAUDE_CONFIG_DIR", Path.home()) / ".claude.json",
        after="Restart Claude Code; /mcp shows the server.",
        project_file=".mcp.json",
        extra={"type": "stdio"},
    ),
    "cursor": Host(
        "Cursor",
        servers="mcpServers",
        file=lambda: Path.home() / ".cursor" / "mcp.json",
        after="Cursor asks whether to enable it; see Settings, MCP.",
        project_file=".cursor/mcp.json",
    ),
    "vscode": Host(
        "VS Code",
        servers="servers",
        file=lambda: application_directory("Code") / "User" / "mcp.json",
        after="Run 'MCP: List Servers' in VS Code to start it.",
        project_file=".vscode/mcp.json",
        extra={"type": "stdio"},
        key="${input:rlm-key}",
        inputs=(VSCODE_KEY,),
    ),
    "codex": Host(
        "Codex",
        servers="mcp_servers",
        file=lambda: directory_named_by("CODEX_HOME", Path.home() / ".codex") / "config.toml",
        after="Restart Codex; /mcp shows the server.",
        language="toml",
        # It asks its model at once otherwise, which then has none of the tools in its first turn.
        extra={"tool_timeout_sec": 120, "startup_timeout_sec": 60, "required": True},
    ),
    "gemini-cli": Host(
        "Gemini CLI",
        servers="mcpServers",
        file=lambda: Path.home() / ".gemini" / "settings.json",
        after="Restart Gemini CLI; /mcp shows the server.",
        project_file=".gemini/settings.json",
    ),
    "qwen-code": Host(
        "Qwen Code",
        servers="mcpServers",
        file=lambda: Path.home() / ".qwen" / "settings.json",
        after="Restart Qwen Code; /mcp shows the server.",
        project_file=".qwen/settings.json",
    ),
    "windsurf": Host(
        "Windsurf",
        servers="mcpServers",
        file=lambda: Path.home() / ".codeium" / "windsurf" / "mcp_config.json",
        after="Refresh the list of MCP servers in Windsurf's settings.",
    ),
    "lm-studio": Host(
        "LM Studio",
        servers="mcpServers",
        file=lambda: Path.home() / ".lmstudio" / "mcp.json",
        after="LM Studio loads it at once; switch it on in a chat.",
    ),
    "cline": Host(
        "Cline",
        servers="mcpServers",
        file=lambda: application_directory("Code") / CLINE_FILE,
        after="Cline loads it at once; see its list of MCP servers.",
    ),
}


@dataclass(frozen=True)
class ServerCommand:
    """How a host starts this server: command, arguments and environment."""

    command: str
    arguments: tuple[str, ...]
    variables: Mapping[str, str]
    key: str | None = None
    """The API key to write; None writes the host's placeholder."""
    needs_key: bool = True

    def entry(self, host: Host) -> dict[str, Any]:
        """The server's entry in a host's file."""
        key = {KEY: self.key or host.key} if self.needs_key else {}
        extra = dict(host.extra or {})
        kind = {"type": extra.pop("type")} if "type" in extra else {}
        named = {"command": self.command, "args": list(self.arguments)}
        return {**kind, **named, "env": {**key, **self.variables}, **extra}


def own_command() -> tuple[str, tuple[str, ...]]:
    """The command that starts this program from anywhere: `uvx`, or this script's path."""
    if any(part.startswith("archive-v") for part in Path(sys.prefix).parts):
        return "uvx", ("rlm-mcp",)  # an environment in uv's cache, which may be gone tomorrow
    suffix = ".exe" if os.name == "nt" else ""
    script = Path(sysconfig.get_path("scripts")) / f"rlm-mcp{suffix}"
    if script.exists():
        return str(script), ()
    return sys.executable, ("-m", "rlm_mcp")
