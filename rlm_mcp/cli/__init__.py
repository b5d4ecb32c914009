"""The command line: from argv to settings to a command.

The modules that declare commands import click alone, and what a command does is imported when it
runs: the server's and the model's libraries take seconds to load, and neither `--help` nor a
shell's completion should wait for them.
"""

from __future__ import annotations

from rlm_mcp.cli.commands.main import main

__all__ = ["main"]
