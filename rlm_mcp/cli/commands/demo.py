"""`rlm-mcp demo`."""

from __future__ import annotations

import anyio
import click

from rlm_mcp.cli.commands.options import CheckedCommand, Launch


@click.command(
    cls=CheckedCommand, short_help="Show a question over a long text, from text to answer."
)
@click.pass_obj
def demo(launch: Launch) -> None:
    """Store a text of some megabytes, ask a question over it, and show the work."""
    from rlm_mcp.cli.demo_run import run_demo

    if not anyio.run(run_demo, launch.settings):
        raise SystemExit(1)
