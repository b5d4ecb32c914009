"""How a command fails: its exit code, and one line on stderr."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import IO, Any

import click

from rlm_mcp.cli.commands.options import CheckedCommand, refuse_contradictions
from rlm_mcp.cli.output import announce, is_for_programs, say, visible
from rlm_mcp.cli.wording import error_line
from rlm_mcp.errors import RLMError, first_of

NO_ANSWER = 1
REFUSED = 2
INTERRUPTED = 130


def report_interrupted(run_id: str, *, goes_on: bool = False) -> None:
    """Say on stderr what happens to the run of an interrupted command, and how to continue."""
    if not run_id:
        say("Interrupted before a run started.", err=True)
    elif goes_on:
        report_continuing(run_id)
    else:
        say(f"Interrupted. Resume it with: rlm-mcp runs resume {run_id}", err=True)


def report_continuing(run_id: str) -> None:
    """Say on stderr how to follow a run that continues without this command."""
    say(f"The run continues. Follow it with: rlm-mcp runs show {run_id} --follow", err=True)


class CommandGroup(click.Group):
    """Turns our own errors into a line on stderr and an exit code."""

    command_class = CheckedCommand

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the options before the command's name."""
        refuse_contradictions(self, ctx, args)
        return super().parse_args(ctx, args)

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Parse the arguments of this group."""
        with _told_interrupts(), _visible_arguments():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command that was named."""
        try:
            with _told_interrupts(), _visible_arguments():
                return super().invoke(ctx)
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
def _told_interrupts() -> Generator[None]:
    """End the command with a word and its own exit code when the user interrupts it."""
    try:
        yield
    except (KeyboardInterrupt, click.Abort):  # the latter while a question is asked
        say("Interrupted.", err=True)
        raise SystemExit(INTERRUPTED) from None


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
    if is_for_programs():
        announce(message, logging.ERROR)
        return
    if sys.stderr.isatty():
        message = click.wrap_text(message, shutil.get_terminal_size().columns)
    say(message, err=True)
