"""`rlm-mcp doctor`."""

from __future__ import annotations

import click

from rlm_mcp.cli.commands.options import Launch, json_option
from rlm_mcp.cli.failures import NO_ANSWER


@click.command(short_help="Try all that a question needs, and say what to mend.")
@json_option
@click.pass_obj
def doctor(launch: Launch, as_json: bool) -> None:
    """Try all that a question needs, and say what to mend and what to paste into each host.

    Calls each model once, for one token. Ends with 1 if something that is needed does not work.
    """
    from rlm_mcp.cli.checks import examine, report

    if not report(launch, examine(launch), as_json=as_json):
        raise SystemExit(NO_ANSWER)
