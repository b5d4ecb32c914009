"""`rlm-mcp install`."""

from __future__ import annotations

import click

from rlm_mcp.cli.commands.options import CheckedCommand, Launch, refuse_without_effect

HOST_NAMES = (
    "claude-desktop",
    "claude-code",
    "cursor",
    "vscode",
    "codex",
    "gemini-cli",
    "opencode",
    "qwen-code",
    "goose",
    "zed",
    "windsurf",
    "lm-studio",
    "cline",
    "continue",
)


@click.command(cls=CheckedCommand, short_help="Connect an assistant to this server.")
@click.argument("host", type=click.Choice(HOST_NAMES), metavar="HOST")
@click.option(
    "--project",
    is_flag=True,
    help="Write the project's file in the working directory, not the user's.",
)
@click.option("--with-key", is_flag=True, help="Write the API key, not a placeholder.")
@click.option("--remove", is_flag=True, help="Remove the server from the file.")
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option("--yes", is_flag=True, help="Write without asking.")
@click.pass_obj
def install(launch: Launch, host: str, **given: bool) -> None:
    """Connect an assistant to this server, with the current settings.

    HOST is claude-desktop, claude-code, cursor, vscode, codex, gemini-cli, opencode, qwen-code,
    goose, zed, windsurf, lm-studio, cline or continue.

    Shows the change of the host's file, asks, keeps a copy of the file beside it, and leaves
    everything else in it as it is.
    """
    from rlm_mcp.cli.hosts.installer import InstallRequest, install_server

    refuse_without_effect(("with_key", "remove"), ("yes", "dry_run"))
    request = InstallRequest(host, given["project"], given["with_key"], given["remove"])
    install_server(launch, request, ask=not given["yes"], is_dry_run=given["dry_run"])
