"""`rlm-mcp runs`: the questions that were asked."""

from __future__ import annotations

from typing import Any

import anyio
import click

from rlm_mcp.cli.commands.options import (
    Launch,
    budget_options,
    complete_runs,
    detail_of,
    given_budget,
    json_option,
)
from rlm_mcp.cli.failures import INTERRUPTED, tell_interrupted

STATUSES = ("running", "completed", "exhausted", "cancelled", "failed", "interrupted")


@click.group()
def runs() -> None:
    """List runs, look into them, stop them and go on with them."""


@runs.command("list")
@click.option("--status", type=click.Choice(STATUSES), help="Only runs that are so.")
@click.option("--limit", type=click.IntRange(1, 200), default=20, show_default=True)
@click.option("--cursor", default="", help="Go on where an earlier list ended.")
@json_option
@click.pass_obj
def list_(launch: Launch, **given: Any) -> None:
    """List runs, newest first."""
    from rlm_mcp.cli.stored_runs import list_runs

    as_json = given.pop("as_json")
    anyio.run(list_runs, launch, given, as_json)


@runs.command()
@click.argument("run_id", metavar="RUN", shell_complete=complete_runs)
@click.option("--follow", is_flag=True, help="Wait until it ends, showing how far it is.")
@click.option("--trace", is_flag=True, help="Show the code, its output and the sub-calls.")
@click.option("--after", default=0, help="With --trace: only events after this one.")
@click.option("--variables", is_flag=True, help="List the REPL's variables.")
@click.option("--variable", default="", metavar="NAME", help="Print this variable as text.")
@json_option
@click.pass_obj
def show(launch: Launch, **given: Any) -> None:
    """Print the answer of RUN and what it took; or its log; or its variables.

    Ends with 1 if RUN ended without an answer.
    """
    from rlm_mcp.cli import stored_runs
    from rlm_mcp.cli.questions import Shown, watch

    run_id, as_json = given["run_id"], given["as_json"]
    if given["variable"]:
        anyio.run(stored_runs.show_variable, launch, run_id, given["variable"], as_json)
    elif given["variables"]:
        anyio.run(stored_runs.show_variables, launch, run_id, as_json)
    elif given["trace"]:
        anyio.run(stored_runs.show_trace, launch, run_id, given["after"], as_json)
    else:
        shown = Shown("progress", as_json, run_id)
        seconds = float("inf") if given["follow"] else 0.0
        shown.finish(anyio.run(watch, launch, shown, seconds))


@runs.command()
@click.argument("run_id", metavar="RUN", shell_complete=complete_runs)
@budget_options
@click.option("-v", "--verbose", is_flag=True, help="Show the code, its output and the sub-calls.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@json_option
@click.pass_obj
def resume(launch: Launch, **given: Any) -> None:
    """Let RUN go on where it was, and print its answer; nothing on record is paid twice.

    For runs that were interrupted, exhausted, cancelled or failed. Limits are for the whole run.
    """
    from rlm_mcp.cli.questions import Shown, go_on

    shown = Shown(detail_of(given), given["as_json"], given["run_id"])
    try:
        state = anyio.run(go_on, launch, shown, given_budget(given))
    except KeyboardInterrupt:
        tell_interrupted(shown.run_id)
        raise SystemExit(INTERRUPTED) from None
    shown.finish(state)


@runs.command()
@click.argument("run_id", metavar="RUN", shell_complete=complete_runs)
@json_option
@click.pass_obj
def cancel(launch: Launch, run_id: str, as_json: bool) -> None:
    """Stop RUN and its spending; what it found so far stays readable."""
    from rlm_mcp.cli.stored_runs import cancel_run

    anyio.run(cancel_run, launch, run_id, as_json)
