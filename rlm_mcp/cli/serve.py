"""`rlm-mcp serve`."""

from __future__ import annotations

import anyio
import click

from rlm_mcp.cli.launch import Launch


@click.command()
@click.pass_obj
def serve(launch: Launch) -> None:
    """Serve MCP over stdio."""
    from rlm_mcp.server.app import build_server
    from rlm_mcp.service import open_service

    settings = launch.settings
    server = build_server(lambda: open_service(settings))
    anyio.run(server.run_stdio_async)
