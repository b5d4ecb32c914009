"""`rlm-mcp completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from rlm_mcp.cli.commands.options import CheckedCommand
from rlm_mcp.cli.output import say

SHELLS = ("bash", "zsh", "fish")


@click.command(
    cls=CheckedCommand,
    short_help="Print the script that completes commands and handles in a shell.",
)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script with which SHELL completes commands, options, handles and runs.

    \b
    bash: add to ~/.bashrc   eval "$(rlm-mcp completion bash)"
    zsh:  add to ~/.zshrc    eval "$(rlm-mcp completion zsh)"
    fish: rlm-mcp completion fish > ~/.config/fish/completions/rlm-mcp.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101  # click brings the three
    say(kind(ctx.find_root().command, {}, "rlm-mcp", "_RLM_MCP_COMPLETE").source())
