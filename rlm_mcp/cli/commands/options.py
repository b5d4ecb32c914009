"""Options that several commands share, and their completion in a shell."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import click
from click.core import ParameterSource

from rlm_mcp.cli.output import announce
from rlm_mcp.errors import RLMError

if TYPE_CHECKING:
    from rlm_mcp.cli.display import Verbosity
    from rlm_mcp.service.executor.opening import Purpose
    from rlm_mcp.settings import Settings
    from rlm_mcp.store.probe import Kind


Command = TypeVar("Command", bound=Callable[..., Any])

_BUDGET: Mapping[str, tuple[type, str]] = {
    "max_usd": (float, "Spend at most this many USD."),
    "max_tokens": (int, "Use at most this many tokens, in and out."),
    "max_seconds": (float, "Take at most this many seconds."),
    "max_sub_calls": (int, "Make at most this many sub-calls."),
    "max_iterations": (int, "Take at most this many turns of the root model."),
    "max_depth": (int, "Depth of runs inside runs; 1: plain sub-calls only."),
}

STANDARD_INPUT = ("-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")
"""The names of standard input, where a command takes paths."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def budget_options(command: Command) -> Command:
    """Add the options that limit one run; `given_budget` collects the given ones."""
    for name, (kind, text) in reversed(list(_BUDGET.items())):
        command = click.option(f"--{name.replace('_', '-')}", name, type=kind, help=text)(command)
    return command


def given_budget(values: Mapping[str, Any]) -> dict[str, Any]:
    """The limits that the command was given."""
    return {name: values[name] for name in _BUDGET if values[name] is not None}


def verbosity_of(values: Mapping[str, Any]) -> Verbosity:
    """How much to show of a run, by `--verbose` and `--quiet`."""
    if values["quiet"]:
        return "nothing"
    return "everything" if values["verbose"] else "progress"


class CheckedCommand(click.Command):
    """Refuses an option that is given twice, where only its last value would count."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read what it was given.

        Raises:
            UsageError: two options contradict each other, or something else cannot be used.
        """
        refuse_contradictions(self, ctx, args)
        return super().parse_args(ctx, args)


class CheckedGroup(click.Group):
    """A group of such commands."""

    command_class = CheckedCommand


def refuse_contradictions(command: click.Command, ctx: click.Context, args: Sequence[str]) -> None:
    """Refuse options of which only the last one would count.

    Raises:
        UsageError: one that takes a single value is given twice, or two set the same.
    """
    if ctx.resilient_parsing:  # a shell completes what is not finished yet
        return
    *_, given = command.make_parser(ctx).parse_args(list(args))
    seen: dict[str | None, click.Option] = {}
    for one in given:
        if not isinstance(one, click.Option):
            continue
        other = seen.get(one.name)
        if other is not None and other is not one:
            raise click.UsageError(f"Give {_longest(other)} or {_longest(one)}, not both.", ctx)
        if other is one and not (one.multiple or one.is_flag):
            raise click.UsageError(f"{_longest(one)} is given twice: give it once.", ctx)
        seen[one.name] = one


def refuse_without_effect(*pairs: tuple[str, str]) -> None:
    """Refuse an option that another one leaves without effect.

    Args:
        pairs: the names of both parameters of the current command.

    Raises:
        UsageError: both are given.
    """
    for name, other in pairs:
        if is_given(name) and is_given(other):
            raise click.UsageError(
                f"{_spelled(name)} has no effect with {_spelled(other)}: leave one of them out."
            )


def refuse_alone(needed: str, *names: str) -> None:
    """Refuse options that have an effect only with another one, where that is not given.

    Raises:
        UsageError: names the first of them.
    """
    for name in names if not is_given(needed) else ():
        if is_given(name):
            raise click.UsageError(f"{_spelled(name)} has no effect without {_spelled(needed)}.")


def refuse_second_reading(sources: Iterable[str]) -> None:
    """Refuse sources of which more than one is standard input.

    Raises:
        UsageError: names the way out.
    """
    if sum(source in STANDARD_INPUT for source in sources) > 1:
        raise click.UsageError("Standard input can be read only once: give - once.")


def is_given(name: str) -> bool:
    """Whether an option of the current command was given, whatever its value."""
    source = click.get_current_context().get_parameter_source(name)
    return source is ParameterSource.COMMANDLINE


def _spelled(name: str) -> str:
    """The option as it is written at its longest."""
    found = (one for one in click.get_current_context().command.params if one.name == name)
    return _longest(next(found))


def _longest(parameter: click.Parameter) -> str:
    return max(parameter.opts, key=len)


def complete_handles(ctx: click.Context, _parameter: click.Parameter, typed: str) -> list[str]:
    """Handles that begin with what was typed, newest first."""
    return _complete(ctx, typed, "contexts")


def complete_runs(ctx: click.Context, _parameter: click.Parameter, typed: str) -> list[str]:
    """Runs whose id begins with what was typed, newest first."""
    return _complete(ctx, typed, "runs")


def _complete(ctx: click.Context, typed: str, kind: Kind) -> list[str]:
    from rlm_mcp.store.database import DATABASE_NAME
    from rlm_mcp.store.probe import stored_names

    launch = Launch(ctx.find_root().params.get("config_file"))
    try:
        names = anyio.run(stored_names, launch.settings.data_dir / DATABASE_NAME, kind)
    except RLMError:
        return []  # a shell cannot show an error while it completes
    return [name for name in names if name.startswith(typed)]


@dataclass(frozen=True)
class Launch:
    """The options before the command's name."""

    config_file: Path | None = None

    @cached_property
    def settings(self) -> Settings:
        """The settings, read at first use; names on stderr the variables that are not settings.

        Raises:
            ConfigurationError: a setting is invalid.
        """
        from rlm_mcp.settings import load_settings, unknown_variables

        settings = load_settings(self.config_file)
        if settings.log_format == "json":
            from rlm_mcp.cli.json_logs import log_as_json

            log_as_json()
        for problem in unknown_variables():
            announce(problem, logging.WARNING)
        return settings

    @property
    def to_look(self) -> Purpose:
        """For what a command opens the service that works on no run: a cluster is let be."""
        return "look" if self.settings.ray_address else "work"
