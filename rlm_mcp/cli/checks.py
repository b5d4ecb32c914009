"""The work of `rlm-mcp doctor`."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, replace

import anyio
from rich.markup import escape
from rich.table import Table

from rlm_mcp import __version__
from rlm_mcp.cli.commands.options import Launch
from rlm_mcp.cli.hosts.files import hide_secrets
from rlm_mcp.cli.hosts.host import ServerCommand
from rlm_mcp.cli.hosts.installer import server_command, snippet
from rlm_mcp.cli.hosts.known import HOSTS
from rlm_mcp.cli.output import say
from rlm_mcp.cli.terminal import messages, results
from rlm_mcp.cli.wording import in_words_of_commands
from rlm_mcp.errors import ConfigurationError
from rlm_mcp.service.doctor import Check, check_all
from rlm_mcp.settings import Settings, load_settings, unknown_variables

_MARKS = {"ok": "[green]ok[/green]", "warning": "[yellow]note[/yellow]", "failed": "[red]no[/red]"}


def run_checks(launch: Launch) -> list[Check]:
    """Check the settings, and everything that they lead to."""
    try:
        settings = load_settings(launch.config_file)
    except ConfigurationError as error:
        return [Check("settings", "failed", error.message, error.fix)]
    unknown = "; ".join(unknown_variables())
    if unknown:
        read = Check("settings", "warning", unknown, "Correct or unset them.")
    else:
        read = Check("settings", "ok", str(launch.config_file or "from the environment"))
    with messages().status("checking"):
        found = anyio.run(_all, settings)
    return [read, *(replace(one, fix=in_words_of_commands(one.fix)) for one in found)]


async def _all(settings: Settings) -> list[Check]:
    return [check async for check in check_all(settings)]


def report(launch: Launch, checks: list[Check], *, as_json: bool) -> bool:
    """Print the checks; return whether everything that is needed works."""
    is_usable = all(check.state != "failed" for check in checks)
    if as_json:
        found = {"version": __version__, "ok": is_usable, "checks": [asdict(one) for one in checks]}
        say(json.dumps(found, ensure_ascii=False, indent=2))
        return is_usable
    _print_checks(checks)
    if is_usable:
        _print_hosts(server_command(launch))
    _print_verdict(checks)
    return is_usable


def _print_checks(checks: list[Check]) -> None:
    console = results()
    if not console.is_terminal:
        for check in checks:
            say("\t".join((check.state, check.name, check.found, check.fix)).rstrip())
        return
    table = Table.grid(padding=(0, 2, 0, 0))
    for check in checks:
        table.add_row(_MARKS[check.state], check.name, escape(check.found))
        if check.fix:
            table.add_row("", "", f"[bold]{escape(check.fix)}[/bold]")
    console.print(table)


def _print_hosts(server: ServerCommand) -> None:
    say("\nTo connect a host: rlm-mcp install HOST, or write this into its file.")
    for names in (("claude-desktop", "cursor"), ("vscode",), ("codex",)):
        hosts = [HOSTS[name] for name in names]
        where = "\n".join(f"{host.title}, {host.file()}" for host in hosts)
        say(f"\n{where}:\n{hide_secrets(snippet(hosts[0], server))}", nl=False)
    say(f"\n{HOSTS['claude-code'].title}:\n{hide_secrets(_claude_command(server))}")


def _claude_command(server: ServerCommand) -> str:
    entry = server.entry(HOSTS["claude-code"])
    variables = [word for name, value in entry["env"].items() for word in ("-e", f"{name}={value}")]
    return shlex.join(
        ["claude", "mcp", "add", "rlm", *variables, "--", entry["command"], *entry["args"]]
    )


def _print_verdict(checks: list[Check]) -> None:
    failed = [check.name for check in checks if check.state == "failed"]
    if failed:
        say(f"\nFix first: {', '.join(failed)}.")
    else:
        say("\nEverything that is needed works.")
