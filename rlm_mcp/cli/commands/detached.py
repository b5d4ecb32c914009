"""The hidden command that `query --detach` starts."""

from __future__ import annotations

import anyio
import click

from rlm_mcp.cli.commands.options import CheckedCommand, Launch


@click.command(cls=CheckedCommand, hidden=True)
@click.pass_obj
def work_detached(launch: Launch) -> None:
    """Work on the question given on standard input."""
    from rlm_mcp.cli import detaching

    anyio.run(detaching.work_detached, launch, detaching.read_question())
