"""What `install` has to know of a host, and of this server."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rlm_mcp.settings import PREFIX

SERVER = "rlm"
KEY = PREFIX + "API_KEY"
KEY_PLACEHOLDER = "sk-..."


@dataclass(frozen=True)
class Fields:
    """The names under which a host keeps how it starts a server.

    Args:
        arguments: empty where they follow the command in one list.
    """

    command: str = "command"
    arguments: str = "args"
    variables: str = "env"


@dataclass(frozen=True)
class Host:
    """One host.

    Args:
        title: for people.
        language: what its file is written in.
        servers: the key of the file's table of servers.
        file: gives the file of the user's own configuration.
        project_file: the file of a project, from its directory; empty where there is none.
        inner: a table between `servers` and the server, in files that have it.
        fields: the names of command, arguments and environment.
        first: what is put at the beginning of each entry.
        extra: what is put at the end of each entry.
        beginning: what a file begins with that only this program has written.
        key: the placeholder for the API key.
        inputs: what the host asks its user for, at the file's top level.
        after: what the user has to do once the file is written.
    """

    title: str
    servers: str
    file: Callable[[], Path]
    after: str
    language: Literal["json", "toml", "yaml"] = "json"
    project_file: str = ""
    inner: str = ""
    fields: Fields = Fields()
    first: Mapping[str, Any] = field(default_factory=dict[str, Any])
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])
    beginning: str = ""
    key: str = KEY_PLACEHOLDER
    inputs: tuple[Mapping[str, Any], ...] = ()


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
        names = host.fields
        if names.arguments:
            start = {names.command: self.command, names.arguments: list(self.arguments)}
        else:
            start = {names.command: [self.command, *self.arguments]}
        return {**host.first, **start, names.variables: {**key, **self.variables}, **host.extra}


def own_command() -> tuple[str, tuple[str, ...]]:
    """The command that starts this program from anywhere: `uvx`, or this script's path."""
    if any(part.startswith("archive-v") for part in Path(sys.prefix).parts):
        return "uvx", ("rlm-mcp",)  # an environment in uv's cache, which may be gone tomorrow
    suffix = ".exe" if os.name == "nt" else ""
    script = Path(sysconfig.get_path("scripts")) / f"rlm-mcp{suffix}"
    if script.exists():
        return str(script), ()
    return sys.executable, ("-m", "rlm_mcp")
