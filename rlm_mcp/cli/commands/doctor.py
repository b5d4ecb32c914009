"""`rlm-mcp doctor`."""

from __future__ import annotations

import click

from rlm_mcp.cli.commands.options import CheckedCommand, Launch, json_option
from rlm_mcp.cli.failures import NO_ANSWER


@click.command(
    cls=CheckedCommand, short_help="Check everything that a question needs, and say how to fix it."
)
@json_option
@click.pass_obj
def doctor(launch: Launch, as_json: bool) -> None:
    """Check settings, store, sandbox and models.

    Says how to fix what fails, and what to write into a host's file. Calls each model once, for
    one token. Exit code 1: something that is needed does not work.
    """
    from rlm_mcp.cli.checks import report, run_checks

    if not report(launch, run_checks(launch), as_json=as_json):
        raise SystemExit(NO_ANSWER)
