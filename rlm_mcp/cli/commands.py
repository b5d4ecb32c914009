"""`rlm-mcp` and the commands below it."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click

from rlm_mcp import __version__
from rlm_mcp.cli.completion import completion
from rlm_mcp.cli.contexts import contexts
from rlm_mcp.cli.demo import demo
from rlm_mcp.cli.doctor import doctor
from rlm_mcp.cli.failures import CommandGroup
from rlm_mcp.cli.install import install
from rlm_mcp.cli.launch import Launch
from rlm_mcp.cli.query import query
from rlm_mcp.cli.runs import runs
from rlm_mcp.cli.serve import serve
from rlm_mcp.cli.work import work_detached


@click.group(cls=CommandGroup, invoke_without_command=True)
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
    ctx.obj = Launch(config_file)
    if ctx.invoked_subcommand is None:
        ctx.invoke(serve)


for command in (
    serve,
    query,
    contexts,
    runs,
    doctor,
    install,
    demo,
    completion,
    work_detached,
):
    main.add_command(command)
