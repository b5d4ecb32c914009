"""`rlm-mcp ui`: the page, on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import click

from rlm_mcp.cli.commands.options import CheckedCommand, Launch, complete_runs
from rlm_mcp.cli.output import say

if TYPE_CHECKING:
    from rlm_mcp.settings import Settings

_KEPT_SECONDS = 10.0


@click.command(cls=CheckedCommand)
@click.argument("run_id", metavar="[RUN]", default="", shell_complete=complete_runs)
@click.option(
    "--port",
    default=0,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0, the default, takes a free one.",
)
@click.option("--no-open", is_flag=True, help="Print the page's address; do not open a browser.")
@click.pass_obj
def ui(launch: Launch, run_id: str, port: int, no_open: bool) -> None:
    """Open the page of runs and texts in a browser.

    Begins with RUN, or with the newest. Shows the runs of all servers on the same data directory,
    each while it works. The page is served on this machine alone, with a token of its own. Ctrl-C
    ends it; runs that were started from the page then end as interrupted, and can be resumed.
    """
    anyio.run(_serve_page, launch.settings, run_id, port, not no_open)


async def _serve_page(settings: Settings, run_id: str, port: int, opens: bool) -> None:
    """Serve until the process is asked to end.

    Raises:
        ConfigurationError: the server cannot listen there.
        NotFoundError: there is no such run.
        StoreError: the database cannot be opened.
    """
    from rlm_mcp.server.http.own_page import address_with, guarded, new_token
    from rlm_mcp.server.http.serving import Place, open_http_server, until_stopped

    if run_id:
        await _find_run(settings, run_id)
    token = new_token()
    async with (
        open_http_server(guarded(settings, token), Place(port=port)) as url,
        anyio.create_task_group() as tasks,
    ):
        address = address_with(url, token, run_id)
        say(f"rlm-mcp: the page is at {address}", err=True)
        say("rlm-mcp: Ctrl-C ends it; runs started there can be resumed later", err=True)
        if opens:
            tasks.start_soon(_open_browser, address, settings.data_dir)
        await until_stopped()
        tasks.cancel_scope.cancel()


async def _find_run(settings: Settings, run_id: str) -> None:
    from rlm_mcp.service.opening import open_service

    async with open_service(settings, purpose="look") as service:
        await service.runs.state(run_id)


async def _open_browser(address: str, directory: Path) -> None:
    import webbrowser

    from rlm_mcp.server.http.own_page import redirect_file

    with redirect_file(address, directory) as path:
        if not await anyio.to_thread.run_sync(webbrowser.open, path.as_uri()):
            say("rlm-mcp: no browser could be opened; open the address yourself", err=True)
        await anyio.sleep(_KEPT_SECONDS)
