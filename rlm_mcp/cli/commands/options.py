"""Options that several commands take, and what a shell completes them with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import click

from rlm_mcp.errors import RLMError

if TYPE_CHECKING:
    from rlm_mcp.cli.display import Detail
    from rlm_mcp.settings import Settings
    from rlm_mcp.store.probe import Kind


Command = TypeVar("Command", bound=Callable[..., Any])

_BUDGET: Mapping[str, tuple[type, str]] = {
    "max_usd": (float, "Most USD to spend."),
    "max_tokens": (int, "Most tokens, in and out."),
    "max_seconds": (float, "Most seconds to take."),
    "max_sub_calls": (int, "Most calls of the sub model."),
    "max_iterations": (int, "Most turns of the root model."),
    "max_depth": (int, "How deep runs may start runs; 1: plain sub-calls."),
}

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the structured result, as the tool gives it."
)


def budget_options(command: Command) -> Command:
    """Add the limits of one run; `given_budget` collects those that were given."""
    for name, (kind, text) in reversed(list(_BUDGET.items())):
        command = click.option(f"--{name.replace('_', '-')}", name, type=kind, help=text)(command)
    return command


def given_budget(values: Mapping[str, Any]) -> dict[str, Any]:
    """The limits among a command's values that were given."""
    return {name: values[name] for name in _BUDGET if values[name] is not None}


def detail_of(values: Mapping[str, Any]) -> Detail:
    """How much `--verbose` and `--quiet` ask to be shown of a run."""
    if values["quiet"]:
        return "nothing"
    return "everything" if values["verbose"] else "progress"


def complete_handles(ctx: click.Context, _parameter: click.Parameter, typed: str) -> list[str]:
    """Stored contexts that begin so, newest first."""
    return _complete(ctx, typed, "contexts")


def complete_runs(ctx: click.Context, _parameter: click.Parameter, typed: str) -> list[str]:
    """Runs that begin so, newest first."""
    return _complete(ctx, typed, "runs")


def _complete(ctx: click.Context, typed: str, kind: Kind) -> list[str]:
    from rlm_mcp.store.database import DATABASE_NAME
    from rlm_mcp.store.probe import stored_names

    launch = Launch(ctx.find_root().params.get("config_file"))
    try:
        names = anyio.run(stored_names, launch.settings.data_dir / DATABASE_NAME, kind)
    except RLMError:
        return []  # a shell can show nothing of an error
    return [name for name in names if name.startswith(typed)]


@dataclass(frozen=True)
class Launch:
    """The options that stand before the command."""

    config_file: Path | None = None

    @cached_property
    def settings(self) -> Settings:
        """The settings, read when first asked for; says on stderr which variables are none.

        Raises:
            ConfigurationError: they cannot be used.
        """
        from rlm_mcp.settings import load_settings, unknown_variables

        settings = load_settings(self.config_file)
        for problem in unknown_variables():
            click.echo(f"rlm-mcp: {problem}", err=True)
        return settings
