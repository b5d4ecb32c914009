"""`rlm-mcp runs`: recorded runs."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import anyio
import click

from rlm_mcp.cli.commands.options import (
    CheckedGroup,
    Launch,
    budget_options,
    complete_runs,
    given_budget,
    is_given,
    json_option,
    refuse_alone,
    refuse_without_effect,
    verbosity_of,
)
from rlm_mcp.cli.failures import INTERRUPTED, report_interrupted
from rlm_mcp.values import RUN_STATUSES


@click.group(cls=CheckedGroup)
def runs() -> None:
    """List, show, follow, resume, cancel and save runs."""


@runs.command("list")
@click.option("--status", type=click.Choice(RUN_STATUSES), help="Only runs with this status.")
@click.option(
    "--limit", type=click.IntRange(1, 200), default=20, show_default=True, help="How many to list."
)
@click.option("--cursor", default="", help="Continue the list that printed this cursor.")
@json_option
@click.pass_obj
def list_(launch: Launch, **given: Any) -> None:
    """List runs, newest first."""
    from rlm_mcp.cli.stored_runs import list_runs

    as_json = given.pop("as_json")
    anyio.run(list_runs, launch, given, as_json)


@runs.command()
@click.argument("run_id", metavar="RUN", shell_complete=complete_runs)
@click.option("--follow", is_flag=True, help="Wait until the run ends, and show its progress.")
@click.option("--trace", is_flag=True, help="Show the code, its output and the sub-calls.")
@click.option("--after", default=0, help="With --trace: only events after this one.")
@click.option("--variables", is_flag=True, help="List the REPL's variables.")
@click.option("--variable", default="", metavar="NAME", help="Print this variable as text.")
@json_option
@click.pass_obj
def show(launch: Launch, **given: Any) -> None:
    """Print a run's answer, its log or its variables.

    Exit code 1: RUN ended without an answer.
    """
    from rlm_mcp.cli import stored_runs
    from rlm_mcp.cli.questions import RunDisplay, watch

    refuse_without_effect(*combinations(("variable", "variables", "trace", "follow"), 2))
    refuse_alone("trace", "after")
    run_id, as_json = given["run_id"], given["as_json"]
    if is_given("variable"):
        anyio.run(stored_runs.show_variable, launch, run_id, given["variable"], as_json)
    elif given["variables"]:
        anyio.run(stored_runs.show_variables, launch, run_id, as_json)
    elif given["trace"]:
        anyio.run(stored_runs.show_trace, launch, run_id, given["after"], as_json)
    else:
        display = RunDisplay("progress", as_json, run_id)
        seconds = float("inf") if given["follow"] else 0.0
        display.finish(anyio.run(watch, launch, display, seconds))


@runs.command()
@click.argument("run_id", metavar="RUN", shell_complete=complete_runs)
@budget_options
@click.option("-v", "--verbose", is_flag=True, help="Show the code, its output and the sub-calls.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@json_option
@click.pass_obj
def resume(launch: Launch, **given: Any) -> None:
    """Resume a run where it stopped, and print its answer.

    RUN is an interrupted, exhausted, cancelled or failed run. What is on record is not paid
    for again. Limits are for the whole run, the part before included.
    """
    from rlm_mcp.cli.questions import RunDisplay, resume_run

    refuse_without_effect(("verbose", "quiet"))
    display = RunDisplay(verbosity_of(given), given["as_json"], given["run_id"])
    try:
        state = anyio.run(resume_run, launch, display, given_budget(given))
    except KeyboardInterrupt:
        report_interrupted(display.run_id)
        raise SystemExit(INTERRUPTED) from None
    display.finish(state)


@runs.command()
@click.argument("run_id", metavar="RUN", shell_complete=complete_runs)
@json_option
@click.pass_obj
def cancel(launch: Launch, run_id: str, as_json: bool) -> None:
    """Stop a run and its spending.

    What RUN found so far stays readable.
    """
    from rlm_mcp.cli.stored_runs import cancel_run

    anyio.run(cancel_run, launch, run_id, as_json)


@runs.command()
@click.argument("run_id", metavar="RUN", shell_complete=complete_runs)
@click.option("--html", "wanted", flag_value="html", default="html", help="A page in one file.")
@click.option("--json", "wanted", flag_value="json", help="The same data as JSON.")
@click.option("--trace", "wanted", flag_value="trace", help="A trace for Perfetto.")
@click.option(
    "--no-texts",
    is_flag=True,
    help="Leave out prompts, replies, outputs and values; question, code and answer stay.",
)
@click.argument("file", default="", metavar="[FILE]")
@click.pass_obj
def export(launch: Launch, run_id: str, *, wanted: str, no_texts: bool, file: str) -> None:
    """Save RUN as one file that needs no server.

    FILE may be -, for standard output. The file is a copy: deleting the run or its texts does not
    reach it.
    """
    from rlm_mcp.cli.stored_runs import export_run

    anyio.run(export_run, launch, run_id, wanted, file, not no_texts)
