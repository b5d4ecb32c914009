"""How a command fails: its exit code, and one line on stderr."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import IO, Any

import click

from rlm_mcp.cli.output import say, visible
from rlm_mcp.errors import RLMError, first_of, with_fix

NO_ANSWER = 1
REFUSED = 2
INTERRUPTED = 130

# Errors name tools and their arguments; at a terminal commands and options are named instead.
_COMMANDS = {
    "rlm_context_add": "rlm-mcp contexts add",
    "rlm_context_list": "rlm-mcp contexts list",
    "rlm_context_read": "rlm-mcp contexts show",
    "rlm_context_delete": "rlm-mcp contexts delete",
    "rlm_query": "rlm-mcp query",
    "rlm_run_list": "rlm-mcp runs list",
    "rlm_run_wait": "rlm-mcp runs show --follow",
    "rlm_run_trace": "rlm-mcp runs show --trace",
    "rlm_run_variables": "rlm-mcp runs show --variables",
    "rlm_run_cancel": "rlm-mcp runs cancel",
    "rlm_run_resume": "rlm-mcp runs resume",
    "rlm_status": "rlm-mcp doctor",
    "continue_run": "--continue",
    "answer_schema": "--schema",
    "literal=true": "--literal",
}


def report_interrupted(run_id: str, *, goes_on: bool = False) -> None:
    """Say on stderr what happens to the run of an interrupted command, and how to continue."""
    if not run_id:
        say("Interrupted before a run started.", err=True)
    elif goes_on:
        line = f"The run continues. Follow it with: rlm-mcp runs show {run_id} --follow"
        say(line, err=True)
    else:
        say(f"Interrupted. Resume it with: rlm-mcp runs resume {run_id}", err=True)


class CommandGroup(click.Group):
    """Turns our own errors into a line on stderr and an exit code."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Parse the arguments of this group."""
        with _visible_arguments():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command that was named."""
        try:
            with _visible_arguments():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            raise SystemExit(INTERRUPTED) from None
        except RLMError as error:
            raise _CommandFailed(error) from error
        except BaseExceptionGroup as group:
            ours, others = group.split((RLMError, SystemExit))
            if ours is None or others is not None:
                raise
            first = first_of(ours)
            if isinstance(first, RLMError):
                raise _CommandFailed(first) from group
            raise first from None  # whoever read stdout has closed it


@contextmanager
def _visible_arguments() -> Generator[None]:
    """Show the controls of arguments that an error quotes: click sends them to a terminal."""
    try:
        yield
    except click.UsageError as error:
        message = error.format_message()
        if visible(message) == message:
            raise
        raise click.UsageError(visible(message), error.ctx) from error


class _CommandFailed(click.ClickException):
    exit_code = REFUSED

    def __init__(self, error: RLMError) -> None:
        fields = {"code": error.code, "message": error.message, "fix": error.fix}
        super().__init__(error_line(fields))

    def show(self, file: IO[Any] | None = None) -> None:
        print_error(self.message)


def print_error(line: str) -> None:
    """Print an error on stderr, wrapped between words on a terminal."""
    message = f"Error: {line}"
    if sys.stderr.isatty():
        message = click.wrap_text(message, shutil.get_terminal_size().columns)
    say(message, err=True)


def error_line(error: Mapping[str, Any]) -> str:
    """Format an error (`{code, message, fix}`) as one line, with commands in place of tools."""
    text = " ".join(f"{error['code']}: {with_fix(error['message'], error['fix'])}".split())
    return re.sub(
        r"\b(?:rlm_\w+|continue_run|answer_schema|literal=true)\b",
        lambda found: _COMMANDS.get(found[0], found[0]),
        text,
    )
