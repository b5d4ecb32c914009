"""The hosts that `install` knows: where each keeps its servers, and in which form."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlm_mcp.cli.hosts.host import SERVER, Fields, Host
from rlm_mcp.errors import InvalidInputError
from rlm_mcp.settings import application_directory, directory_named_by

DESCRIPTION = "Answers questions over texts far larger than a context window."
VSCODE_KEY: Mapping[str, Any] = {
    "id": "rlm-key",
    "type": "promptString",
    "description": "API key",
    "password": True,
}

_GOOSE_FIELDS = Fields(command="cmd", variables="envs")
_OPENCODE_FIELDS = Fields(arguments="", variables="environment")


def _cline_file() -> Path:
    """Where Cline keeps its servers: for its extension and its command alike."""
    data = directory_named_by("CLINE_DIR", Path.home() / ".cline") / "data"
    settings = directory_named_by("CLINE_DATA_DIR", data) / "settings" / "cline_mcp_settings.json"
    file = directory_named_by("CLINE_MCP_SETTINGS_PATH", settings)
    older = application_directory("Code") / "User" / "globalStorage" / "saoudrizwan.claude-dev"
    older_file = older / "settings" / "cline_mcp_settings.json"  # a newer version takes it over
    return older_file if older_file.exists() and not file.exists() else file


def _continue_file() -> Path:
    directory = directory_named_by("CONTINUE_GLOBAL_DIR", Path.home() / ".continue")
    file = directory / "config.yaml"
    if (directory / "config.json").exists() and not file.exists():
        raise InvalidInputError(
            f"{str(directory)!r} has a config.json, which Continue ignores once there is a "
            "config.yaml.",
            fix="Turn it into a config.yaml first: Continue's documentation says how.",
        )
    return file


def _goose_file() -> Path:
    if os.name == "nt":
        return application_directory("Block") / "goose" / "config" / "config.yaml"
    return _dot_config() / "goose" / "config.yaml"


def _lm_studio_file() -> Path:
    """LM Studio says in a file where its home is; older ones are in the cache directory."""
    home = Path.home() / ".lmstudio"
    pointer = Path.home() / ".lmstudio-home-pointer"
    if pointer.is_file():
        named = Path(pointer.read_text("utf-8").strip())
        home = named if named.is_dir() else home
    return home / "mcp.json"


def _opencode_file() -> Path:
    directory = _dot_config() / "opencode"
    with_comments = directory / "opencode.jsonc"
    return with_comments if with_comments.exists() else directory / "opencode.json"


def _zed_file() -> Path:
    if os.name == "nt":
        return application_directory("Zed") / "settings.json"
    directory = Path.home() / ".config" if sys.platform == "darwin" else _dot_config()
    return directory_named_by("FLATPAK_XDG_CONFIG_HOME", directory) / "zed" / "settings.json"


def _dot_config() -> Path:
    """Where programs of the terminal keep their configuration, on macOS too."""
    return directory_named_by("XDG_CONFIG_HOME", Path.home() / ".config")


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
        first={"type": "stdio"},
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
        first={"type": "stdio"},
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
        file=lambda: directory_named_by("GEMINI_CLI_HOME", Path.home()) / ".gemini/settings.json",
        after="Restart Gemini CLI; /mcp shows the server.",
        project_file=".gemini/settings.json",
    ),
    "opencode": Host(
        "OpenCode",
        servers="mcp",
        file=_opencode_file,
        after="Restart OpenCode; `opencode mcp list` shows the server.",
        project_file="opencode.json",
        inner="servers",  # of version 2, which reads the form of version 1 too
        fields=_OPENCODE_FIELDS,
        first={"type": "local"},
        extra={"timeout": 120_000},  # ms for every request, 5 s otherwise
        beginning='{\n  "$schema": "https://opencode.ai/config.json"\n}\n',
    ),
    "qwen-code": Host(
        "Qwen Code",
        servers="mcpServers",
        file=lambda: directory_named_by("QWEN_HOME", Path.home() / ".qwen") / "settings.json",
        after="Restart Qwen Code; /mcp shows the server.",
        project_file=".qwen/settings.json",
    ),
    "goose": Host(
        "Goose",
        servers="extensions",
        file=_goose_file,
        after="Start a new session of Goose.",
        language="yaml",
        fields=_GOOSE_FIELDS,
        first={"enabled": True, "type": "stdio", "name": SERVER, "description": DESCRIPTION},
        extra={"timeout": 300},
    ),
    "zed": Host(
        "Zed",
        servers="context_servers",
        file=_zed_file,
        after="Zed loads it at once; the settings of its agent show the server.",
        project_file=".zed/settings.json",
        first={"source": "custom"},  # older versions ask for it; newer ones take it out
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
        file=_lm_studio_file,
        after="LM Studio loads it at once; switch it on in a chat.",
    ),
    "cline": Host(
        "Cline",
        servers="mcpServers",
        file=_cline_file,
        after="Cline loads it at once; see its list of MCP servers.",
    ),
    "continue": Host(
        "Continue",
        servers="mcpServers",
        file=_continue_file,
        after="Continue loads it at once; it is used in agent mode.",
        language="yaml",
        project_file=".continue/mcpServers/rlm.yaml",
        first={"name": SERVER},
        extra={"connectionTimeout": 60_000},  # ms; 20 s otherwise
        beginning="name: Local Config\nversion: 1.0.0\nschema: v1\n",
    ),
}
