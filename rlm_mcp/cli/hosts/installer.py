"""The work of `rlm-mcp install`: plan a change of a host's file, show it, write it."""

from __future__ import annotations

import difflib
import glob
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio
import click

from rlm_mcp.cli.commands.options import Launch
from rlm_mcp.cli.failures import REFUSED
from rlm_mcp.cli.hosts.files import (
    entry_in,
    hide_secrets,
    holds_key,
    with_server,
    without_server,
)
from rlm_mcp.cli.hosts.host import Host, ServerCommand, own_command
from rlm_mcp.cli.hosts.known import HOSTS
from rlm_mcp.cli.output import say
from rlm_mcp.engine.models.http_provider import OPENAI_BASE_URL
from rlm_mcp.errors import InvalidInputError, SandboxError
from rlm_mcp.sandbox.choice import make_sandbox
from rlm_mcp.settings import Settings, as_variables, variables_in_force

_PRIVATE = 0o600


@dataclass(frozen=True)
class InstallRequest:
    """What `install` was asked for."""

    host: str
    is_project: bool = False
    with_key: bool = False
    is_removal: bool = False


@dataclass(frozen=True)
class Change:
    """A host's file before and after; None where it does not exist.

    `exact` are the bytes of a file that is put back as it was.
    """

    path: Path
    before: bytes | None
    after: str | None
    exact: bytes | None = None

    @property
    def text_before(self) -> str:
        """The file's text with plain line ends, empty where there is no file."""
        return _text_of(self.before or b"")

    @property
    def is_needed(self) -> bool:
        """Whether there is anything to write or to delete."""
        return self.after != self.text_before

    def diff(self) -> list[str]:
        """The lines that change, with those around them; secrets are stars."""
        return [
            hide_secrets(line)
            for line in difflib.unified_diff(
                self.text_before.splitlines(),
                (self.after or "").splitlines(),
                str(self.path) if self.before is not None else os.devnull,
                str(self.path) if self.after is not None else os.devnull,
                n=2,
                lineterm="",
            )
        ]


def _text_of(content: bytes) -> str:
    return content.decode("utf-8-sig").replace("\r\n", "\n")


def server_command(launch: Launch, *, with_key: bool = False) -> ServerCommand:
    """How a host starts this server with the current settings."""
    settings = launch.settings
    command, arguments = own_command()
    variables = as_variables(settings)
    if launch.config_file is not None:
        arguments = (*arguments, "--config", str(launch.config_file.absolute()))
        # The file is named, so its settings are not repeated; a variable would override it.
        variables = {name: variables[name] for name in variables_in_force() & variables.keys()}
    key = settings.api_key.get_secret_value() if settings.api_key and with_key else None
    return ServerCommand(command, arguments, variables, key, needs_key=_needs_key(settings))


def _needs_key(settings: Settings) -> bool:
    return settings.api_key is not None or (settings.base_url or OPENAI_BASE_URL).startswith(
        OPENAI_BASE_URL
    )


def plan(path: Path, host: Host, server: ServerCommand | None) -> Change:
    """Plan the change of a host's file; None for `server` removes the server.

    Raises:
        InvalidInputError: the file is not one of this host, and cannot be edited.
    """
    change = Change(path, path.read_bytes() if path.exists() else None, "")
    try:
        text = change.text_before
        if server is None:
            return _removal(change, host) if text else change
        return replace(change, after=with_server(text, host, server.entry(host)))
    except (InvalidInputError, UnicodeError) as error:
        raise InvalidInputError(
            f"{str(path)!r} was not changed. {error}",
            fix="Add what is printed here to it by hand."
            if server
            else "Remove the server by hand.",
        ) from error


def _removal(change: Change, host: Host) -> Change:
    """Plan to take the server out: the file as it was before, if nothing else has changed since."""
    text = change.text_before
    left = without_server(text, host)
    if left == text:
        return replace(change, after=text)
    entry = entry_in(text, host)
    for copy in sorted(change.path.resolve().parent.glob(_copies(change.path)), reverse=True):
        content = copy.read_bytes()
        if _leads_to(text, content, host, entry):
            return replace(change, after=_text_of(content), exact=content)
    if with_server("", host, entry) == text:
        return replace(change, after=None)  # `install` made the file, and nobody else wrote to it
    return replace(change, after=left)


def _leads_to(text: str, content: bytes, host: Host, entry: Mapping[str, Any]) -> bool:
    """Whether a file had no server of ours, and has become `text` when it was added."""
    try:
        before = _text_of(content)
        if entry_in(before, host):
            return False
        return with_server(before, host, entry) == text
    except (InvalidInputError, UnicodeError):
        return False


def _copies(path: Path) -> str:
    """The names of copies that `write` keeps of a file."""
    return f"{glob.escape(path.resolve().name)}.*.bak"


def _file_of(host: Host, request: InstallRequest) -> Path:
    if not request.is_project:
        return host.file()
    if not host.project_file:
        raise InvalidInputError(f"{host.title} has no project file.", fix="Leave out --project.")
    if request.with_key:
        raise InvalidInputError(
            "A project's file is shared, and the key would be too.",
            fix="Leave out --with-key, or --project.",
        )
    return Path.cwd() / host.project_file


def snippet(host: Host, server: ServerCommand) -> str:
    """The text of a host's file that holds only this server."""
    return with_server("", host, server.entry(host))


def write(change: Change) -> Path | None:
    """Replace a file in one step, with its permissions; return the copy of the old one.

    A file that held nothing but the server is deleted.

    A file that holds a key is readable only by its owner. A link stays a link.

    Raises:
        InvalidInputError: it was changed since it was read.
        OSError: it cannot be written.
    """
    target = change.path.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    if (target.read_bytes() if target.exists() else None) != change.before:
        raise InvalidInputError(
            f"{str(change.path)!r} has changed since it was read.", fix="Run the command again."
        )
    backup = None
    if change.after is None:
        target.unlink()
        return None
    if change.before is not None:
        stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S-%f")
        backup = target.with_name(f"{target.name}.{stamp}.bak")
        shutil.copy2(target, backup)
    _replace(target, change)
    return backup


def _replace(target: Path, change: Change) -> None:
    mode = target.stat().st_mode & 0o777 if change.before is not None else _PRIVATE
    if holds_key(change.after or ""):
        mode &= _PRIVATE
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    written = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(_encoded(change))
            file.flush()
            os.fsync(file.fileno())
        written.chmod(mode)
        written.replace(target)
    except BaseException:
        written.unlink(missing_ok=True)
        raise


def _encoded(change: Change) -> bytes:
    """The new text with the file's line ends and byte order mark."""
    if change.exact is not None:
        return change.exact
    before, text = change.before or b"", change.after or ""
    if b"\r\n" in before:
        text = text.replace("\n", "\r\n")
    return text.encode("utf-8-sig" if before.startswith(b"\xef\xbb\xbf") else "utf-8")


def install_server(launch: Launch, request: InstallRequest, *, ask: bool, is_dry_run: bool) -> None:
    """Show the change of a host's file, ask, and write it.

    Raises:
        InvalidInputError: the file cannot be changed.
    """
    host = HOSTS[request.host]
    path = _file_of(host, request)
    server = None if request.is_removal else server_command(launch, with_key=request.with_key)
    try:
        change = plan(path, host, server)
    except InvalidInputError:
        if server is not None:
            say(hide_secrets(snippet(host, server)), nl=False)
        raise
    if not change.is_needed:
        state = "is not there" if request.is_removal else "is already there"
        say(f"Nothing to change: the server {state} ({change.path}).")
        return
    _show(change)
    if is_dry_run:
        _warn(launch, request)
        return
    if ask and not _is_agreed("Delete this file?" if change.after is None else "Write this?"):
        raise SystemExit(REFUSED)
    try:
        backup = write(change)
    except OSError as error:
        raise InvalidInputError(
            f"{str(change.path)!r} cannot be written: {error.strerror}.",
            fix="Check the permissions of the file and its directory.",
        ) from error
    kept = f"; the file as it was is {backup.name}" if backup else ""
    if change.after is None:
        say(f"Deleted: {change.path}; it held nothing else")
        return
    say(f"Written: {change.path}{kept}")
    if not request.is_removal:
        _advise(launch, host, change, request)
        prepare_sandbox(launch.settings)


def _is_agreed(question: str) -> bool:
    """Ask on the terminal.

    Raises:
        InvalidInputError: nobody answers.
    """
    try:
        return click.confirm(question, err=True)
    except click.Abort as error:
        if sys.stdin.isatty():
            raise  # an interrupt
        raise InvalidInputError(
            "Nothing was changed: there was no answer.", fix="Give --yes to be asked nothing."
        ) from error


def prepare_sandbox(settings: Settings, platform: str = sys.platform) -> None:
    """Do now what the first question would wait for where the portable sandbox is used."""
    is_portable = settings.sandbox == "portable"
    if not is_portable and (settings.sandbox != "auto" or platform == "linux"):
        return
    say("Compiling the sandbox's Python for this machine, once.", err=True)
    try:
        anyio.run(make_sandbox("portable").prepare)
    except SandboxError as error:
        say(f"{error} Then run `rlm-mcp doctor`.", err=True)


def _show(change: Change) -> None:
    colours = {"+": "green", "-": "red", "@": "cyan"}
    for line in change.diff():
        say(line, colour=colours.get(line[:1]))


def _advise(launch: Launch, host: Host, change: Change, request: InstallRequest) -> None:
    if f'"{host.key}"' in (change.after or "") and not host.inputs:
        where = "" if request.is_project else ", or run the command again with --with-key"
        say(f"Replace {host.key} in that file by your API key{where}.")
    _warn(launch, request)
    say(host.after)


def _warn(launch: Launch, request: InstallRequest) -> None:
    if launch.settings.root_model is None and not request.is_removal:
        line = "No model is set. Set RLM_MCP_ROOT_MODEL and run the command again."
        say(line, err=True)
