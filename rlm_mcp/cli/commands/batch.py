"""`rlm-mcp batch`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import anyio
import click

from rlm_mcp.cli.commands.options import CheckedCommand, Launch, refuse_second_reading
from rlm_mcp.cli.failures import INTERRUPTED, NO_ANSWER
from rlm_mcp.cli.output import say

_SCORES = ("contains", "exact", "number", "regex", "f1", "judge")


@click.command(
    cls=CheckedCommand, short_help="Ask many questions, and write their answers to a file."
)
@click.argument(
    "questions", type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True)
)
@click.option(
    "--texts",
    multiple=True,
    required=True,
    metavar="SOURCE",
    help="File, directory, glob or handle to ask about. Repeatable.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="File for the results, one JSON object per line; it is overwritten.",
)
@click.option(
    "--at-once",
    default=8,
    show_default=True,
    type=click.IntRange(1, 10_000),
    help="How many questions are worked on at the same time.",
)
@click.option("--retry", type=click.Choice(["failed"]), help="Resume runs that failed, too.")
@click.option(
    "--max-usd",
    type=float,
    help="Begin no question once all have cost this much; what is on record is still written.",
)
@click.option(
    "--score",
    default="contains",
    show_default=True,
    type=click.Choice(_SCORES),
    help="How answers are compared with `expected` where a line does not say; `judge`: by a model.",
)
@click.option("--judge-model", default="", metavar="NAME", help="Model of `judge`, if another.")
@click.option("--report", "has_report", is_flag=True, help="Print a report as JSON.")
@click.option("--strict", is_flag=True, help="Ask nothing if a line is bad.")
@click.pass_obj
def batch(launch: Launch, **given: Any) -> None:
    """Ask the questions in the file QUESTIONS, and write a result for each.

    A line is a JSON object: id, question, and if wanted contexts (names of texts, or handles),
    expected, score, answer_schema and budget. Without contexts it asks over all texts of --texts.
    Bad lines are named and skipped. QUESTIONS may be - for standard input. Neither QUESTIONS nor
    the results become texts of a directory or glob.

    Started again after any end, a batch finds what is done and resumes what was interrupted:
    nothing on record is paid twice. Exit code 1: a question has no answer.
    """
    from rlm_mcp.cli.batch_run import run_batch

    refuse_second_reading((str(given["questions"]), *given["texts"]))
    _refuse_overwriting(given["out"], (given["questions"], *map(Path, given["texts"])))
    try:
        is_whole = anyio.run(run_batch, launch, given)
    except KeyboardInterrupt:
        say("Interrupted. Run the same command again to continue.", err=True)
        raise SystemExit(INTERRUPTED) from None
    if not is_whole:
        raise SystemExit(NO_ANSWER)


def _refuse_overwriting(out: Path, read: Iterable[Path]) -> None:
    """Refuse to write the results over a file that the batch reads."""
    for path in read:
        if path.resolve() == out.resolve():
            raise click.UsageError(f"--out would overwrite {str(path)!r}: name another file.")
