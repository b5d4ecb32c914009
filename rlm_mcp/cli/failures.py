"""How a command ends that did not do what was asked: exit codes, and one line on stderr."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Mapping
from typing import IO, Any

import click

from rlm_mcp.errors import RLMError

NO_ANSWER = 1
REFUSED = 2
INTERRUPTED = 130

# What the service tells a caller of tools to do next, said to somebody at a terminal.
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
}


def tell_interrupted(run_id: str, *, goes_on: bool = False) -> None:
    """Say what becomes of a run whose command was interrupted, and how to come back to it."""
    if not run_id:
        click.echo("Interrupted; no run was begun.", err=True)
    elif goes_on:
        told = f"The run goes on; look at it with: rlm-mcp runs show {run_id} --follow"
        click.echo(told, err=True)
    else:
        click.echo(f"Interrupted; go on with: rlm-mcp runs resume {run_id}", err=True)


class CommandGroup(click.Group):
    """Turns errors raised on purpose into a line on stderr and an exit code."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise SystemExit(INTERRUPTED) from None
        except RLMError as error:
            raise _CommandFailed(error) from error
        except BaseExceptionGroup as group:
            ours, others = group.split((RLMError, SystemExit))
            if ours is None or others is not None:
                raise
            first = _first_of(ours)
            if isinstance(first, RLMError):
                raise _CommandFailed(first) from group
            raise first from None  # the reader of what is printed went away


class _CommandFailed(click.ClickException):
    exit_code = REFUSED

    def __init__(self, error: RLMError) -> None:
        fields = {"code": error.code, "message": error.message, "fix": error.fix}
        super().__init__(error_line(fields))

    def show(self, file: IO[Any] | None = None) -> None:
        tell_error(self.message)


def tell_error(line: str) -> None:
    """Print an error on stderr; on a terminal it is broken between words, not in them."""
    told = f"Error: {line}"
    if sys.stderr.isatty():
        told = click.wrap_text(told, shutil.get_terminal_size().columns)
    click.echo(told, err=True)


def error_line(error: Mapping[str, Any]) -> str:
    """Tell an error (`{code, message, fix}`) in one line, with commands in place of tools."""
    text = " ".join(f"{error['code']}: {error['message']} {error['fix']}".split())
    return re.sub(
        r"\b(?:rlm_\w+|continue_run)\b",
        lambda found: _COMMANDS.get(found[0], found[0]),
        text,
    )


def _first_of(
    group: BaseExceptionGroup[RLMError | SystemExit],
) -> RLMError | SystemExit:
    first = group.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first
