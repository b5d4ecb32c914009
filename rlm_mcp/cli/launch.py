"""What a command is started with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rlm_mcp.settings import Settings


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
