"""`rlm-mcp install`."""

from __future__ import annotations

import click

from rlm_mcp.cli.commands.options import Launch

HOST_NAMES = ("claude-desktop", "claude-code", "cursor", "vscode", "codex")


@click.command(short_help="Tell an assistant to use this server.")
@click.argument("host", type=click.Choice(HOST_NAMES), metavar="HOST")
@click.option("--project", is_flag=True, help="Write the working directory's file, not the user's.")
@click.option("--with-key", is_flag=True, help="Write the API key too, not a placeholder for it.")
@click.option("--remove", is_flag=True, help="Take the server out again.")
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def install(launch: Launch, host: str, **given: bool) -> None:
    """Tell an assistant to use this server, with the settings in force.

    HOST is claude-desktop, claude-code, cursor, vscode or codex.

    Shows what will change in the host's file, asks, keeps a copy of the file beside it, and leaves
    all else in it as it is.
    """
    from rlm_mcp.cli.installer import Wanted, install_server

    wanted = Wanted(host, given["project"], given["with_key"], given["remove"])
    install_server(launch, wanted, ask=not given["yes"], is_dry_run=given["dry_run"])
