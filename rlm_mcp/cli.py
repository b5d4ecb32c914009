"""From argv to settings to a command."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import anyio
import click

from rlm_mcp import __version__
from rlm_mcp.errors import RLMError
from rlm_mcp.settings import Settings, load_settings, unknown_variables

# The commands below import what they need when they run: the server's and the model's libraries
# take seconds to load, and neither `--help` nor a shell's completion should wait for them.


class _Commands(click.Group):
    """Turns errors raised on purpose into a line on stderr and exit code 2."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except RLMError as error:
            raise _CommandFailed(str(error)) from error
        except ExceptionGroup as group:
            ours, others = group.split(RLMError)
            if ours is None or others is not None:
                raise
            raise _CommandFailed(str(_first_of(ours))) from group


def _first_of(group: ExceptionGroup[RLMError]) -> RLMError:
    first = group.exceptions[0]
    return _first_of(first) if isinstance(first, ExceptionGroup) else first


class _CommandFailed(click.ClickException):
    exit_code = 2


@click.group(cls=_Commands, invoke_without_command=True)
@click.version_option(__version__, prog_name="rlm-mcp")
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    help="TOML file with settings; the environment wins.",
)
@click.pass_context
def main(ctx: click.Context, config_file: Path | None) -> None:
    """Ask questions over text far larger than a context window.

    With no command, serves the Model Context Protocol over stdio.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="rlm-mcp: %(message)s")
    settings = load_settings(config_file)
    for problem in unknown_variables(os.environ):
        click.echo(f"rlm-mcp: {problem}", err=True)
    ctx.obj = settings
    if ctx.invoked_subcommand is None:
        ctx.invoke(serve)


@main.command()
@click.pass_obj
def serve(settings: Settings) -> None:
    """Serve MCP over stdio."""
    from rlm_mcp.server.app import build_server  # noqa: PLC0415
    from rlm_mcp.service import open_service  # noqa: PLC0415

    server = build_server(lambda: open_service(settings))
    anyio.run(server.run_stdio_async)


@main.command()
@click.pass_obj
def demo(settings: Settings) -> None:
    """Store a text of some megabytes, ask a question over it, and show the work."""
    from rlm_mcp.demo import run_demo  # noqa: PLC0415

    if not anyio.run(run_demo, settings):
        raise SystemExit(1)
