"""The smallest server that the SDK makes: what a cold start is compared with."""

from __future__ import annotations

from mcp.server import MCPServer

server = MCPServer("bare")


@server.tool()
async def echo(text: str) -> str:
    """Say it again."""
    return text


server.run("stdio")
