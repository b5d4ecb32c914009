"""`rlm-mcp query`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import click

from rlm_mcp.cli.commands.options import (
    CheckedCommand,
    Launch,
    budget_options,
    complete_handles,
    complete_runs,
    given_budget,
    json_option,
    refuse_second_reading,
    refuse_without_effect,
    verbosity_of,
)
from rlm_mcp.cli.failures import INTERRUPTED, report_interrupted

if TYPE_CHECKING:
    from rlm_mcp.service.runs.questions import Question


def _a_number(
    _ctx: click.Context, _parameter: click.Parameter, value: float | None
) -> float | None:
    """Refuse `nan`, which no comparison finds too small."""
    if value is not None and math.isnan(value):
        raise click.BadParameter("nan is not a number of seconds.")
    return value


@click.command(cls=CheckedCommand, short_help="Ask a question over texts, and print the answer.")
@click.argument("question")
@click.option(
    "-c",
    "--context",
    "contexts",
    multiple=True,
    metavar="HANDLE",
    shell_complete=complete_handles,
    help="Handle of a stored text. Repeatable.",
)
@click.option(
    "-f",
    "--file",
    "files",
    multiple=True,
    metavar="PATH",
    type=click.Path(),
    help="A file, directory or glob to store first; - reads standard input. Repeatable.",
)
@click.option("--text", default="", help="A short text to ask about; - reads standard input.")
@click.option("--root-model", default="", metavar="MODEL", help="Model that writes the code.")
@click.option("--sub-model", default="", metavar="MODEL", help="Model that answers sub-calls.")
@budget_options
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="NAME=VALUE",
    help="Change another setting for this run, such as temperature=0. Repeatable.",
)
@click.option(
    "--attempts",
    type=click.IntRange(min=1),
    metavar="N",
    help="Let N independent runs answer within one budget; what they agree on counts.",
)
@click.option(
    "--schema",
    type=click.Path(path_type=Path),
    help="File with a JSON Schema that the answer must fit.",
)
@click.option(
    "--continue",
    "continue_run",
    default="",
    metavar="RUN",
    shell_complete=complete_runs,
    help="Continue in this run's REPL, with its texts and variables.",
)
@click.option(
    "--detach",
    is_flag=True,
    help="Print the run's id and return; the run continues in the background.",
)
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    callback=_a_number,
    metavar="SECONDS",
    help="Wait at most this long; the run then continues in the background.",
)
@click.option(
    "--estimate",
    is_flag=True,
    help="Say what the question would cost, and ask no model.",
)
@click.option("-v", "--verbose", is_flag=True, help="Show the code, its output and the sub-calls.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@json_option
@click.pass_obj
def query(launch: Launch, **given: Any) -> None:
    """Ask QUESTION over stored texts, files or standard input, and print the answer.

    Exit codes: 0: there is an answer, or the run continues; 1: the run ended without an answer;
    2: an argument or a setting cannot be used; 130: interrupted, and the run can be resumed.
    """
    from rlm_mcp.cli.detaching import start_detached
    from rlm_mcp.cli.estimates import show_estimate
    from rlm_mcp.cli.questions import RunDisplay, add_sources, ask, estimate, watch

    _refuse_without_effect(given)
    sources = (*given["files"], *(("-",) if given["text"] == "-" else ()))
    question = _question(given)
    if not (sources or given["contexts"] or given["text"] or given["continue_run"]):
        raise click.UsageError(
            "No text to ask about. Give --file, --context, --text or --continue."
        )
    display = RunDisplay(verbosity_of(given), given["as_json"])
    wait_seconds = 0.0 if given["detach"] else given["wait"]
    try:
        if sources:
            handles = anyio.run(add_sources, launch, sources, display.verbosity)
            question = _over(question, handles)
        if given["estimate"]:
            show_estimate(anyio.run(estimate, launch, question), as_json=given["as_json"])
            return
        if wait_seconds is None:
            state = anyio.run(ask, launch, question, display)
        else:
            display.run_id = start_detached(launch, question)
            state = anyio.run(watch, launch, display, wait_seconds)
    except KeyboardInterrupt:
        report_interrupted(display.run_id, goes_on=wait_seconds is not None)
        raise SystemExit(INTERRUPTED) from None
    display.finish(state)


def _refuse_without_effect(given: dict[str, Any]) -> None:
    refuse_without_effect(
        ("wait", "detach"),
        ("wait", "estimate"),
        ("detach", "estimate"),
        ("verbose", "detach"),
        ("verbose", "estimate"),
        ("verbose", "quiet"),
    )
    refuse_second_reading((*given["files"], *(("-",) if given["text"] == "-" else ())))


def _question(given: dict[str, Any]) -> Question:
    from rlm_mcp.cli.questions import read_schema
    from rlm_mcp.service.runs.questions import Question

    return Question(
        given["question"],
        contexts=given["contexts"],
        inline_text="" if given["text"] == "-" else given["text"],
        root_model=given["root_model"],
        sub_model=given["sub_model"],
        budget=given_budget(given),
        options=_options(given),
        answer_schema=read_schema(given["schema"]) if given["schema"] else None,
        continue_run=given["continue_run"],
    )


def _options(given: dict[str, Any]) -> dict[str, Any]:
    from rlm_mcp.cli.questions import read_options

    options, attempts = read_options(given["options"]), given["attempts"]
    if attempts and "attempts" in options:
        raise click.UsageError("Give --attempts or --option attempts=N, not both.")
    return options | ({"attempts": attempts} if attempts else {})


def _over(question: Question, handles: Sequence[str]) -> Question:
    from dataclasses import replace

    return replace(question, contexts=(*question.contexts, *handles))
