"""`rlm-mcp` and the commands below it."""

from __future__ import annotations

import io
import logging
import sys
from pathlib import Path
from typing import Any

import click

from rlm_mcp import __version__
from rlm_mcp.cli.commands.backup import backup
from rlm_mcp.cli.commands.batch import batch
from rlm_mcp.cli.commands.completion import completion
from rlm_mcp.cli.commands.contexts import contexts
from rlm_mcp.cli.commands.demo import demo
from rlm_mcp.cli.commands.detached import work_detached
from rlm_mcp.cli.commands.doctor import doctor
from rlm_mcp.cli.commands.install import install
from rlm_mcp.cli.commands.options import Launch
from rlm_mcp.cli.commands.query import query
from rlm_mcp.cli.commands.runs import runs
from rlm_mcp.cli.commands.serve import serve
from rlm_mcp.cli.commands.ui import ui
from rlm_mcp.cli.failures import CommandGroup
from rlm_mcp.cli.output import VisibleFormatter


def escape_what_the_console_lacks() -> None:
    r"""Print a character that the console's encoding lacks as `\u65e5`, as stderr does.

    Windows' pipes and older consoles use an encoding such as cp1252, and a text may hold anything.
    """
    stdout: Any = sys.stdout
    if isinstance(stdout, io.TextIOWrapper) and stdout.errors == "strict":
        stdout.reconfigure(errors="backslashreplace")


@click.group(cls=CommandGroup, invoke_without_command=True)
@click.version_option(__version__, prog_name="rlm-mcp")
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    help="TOML file with settings; environment variables take precedence.",
)
@click.pass_context
def main(ctx: click.Context, config_file: Path | None) -> None:
    """Ask questions over text far larger than a context window.

    With no command, serves the Model Context Protocol over stdio.
    """
    escape_what_the_console_lacks()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(VisibleFormatter("rlm-mcp: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    ctx.obj = Launch(config_file)
    if ctx.invoked_subcommand is None:
        ctx.invoke(serve)


for command in (
    serve,
    query,
    contexts,
    runs,
    ui,
    batch,
    backup,
    doctor,
    install,
    demo,
    completion,
    work_detached,
):
    main.add_command(command)
