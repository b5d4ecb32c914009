"""How a command ends that did not do what was asked."""

from __future__ import annotations

import click

from rlm_mcp.errors import RLMError


class CommandGroup(click.Group):
    """Turns errors raised on purpose into a line on stderr and exit code 2."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except RLMError as error:
            raise _CommandFailed(str(error)) from error
        except ExceptionGroup as group:
            ours, others = group.split(RLMError)
            if ours is None or others is not None:
                raise
            raise _CommandFailed(str(_first_of(ours))) from group


class _CommandFailed(click.ClickException):
    exit_code = 2


def _first_of(group: ExceptionGroup[RLMError]) -> RLMError:
    first = group.exceptions[0]
    return _first_of(first) if isinstance(first, ExceptionGroup) else first
