"""Start the command given, and use it once as a client over stdio does, in both protocol eras."""

from __future__ import annotations

import sys

import anyio
from mcp import Client
from mcp.client.stdio import StdioServerParameters


async def serve_once(command: str) -> None:
    for mode in ("auto", "legacy"):
        with anyio.fail_after(60):
            async with Client(StdioServerParameters(command=command), mode=mode) as client:
                tools = (await client.list_tools()).tools
                status = await client.call_tool("rlm_status", {})
                if status.is_error or len(tools) < 10:
                    raise SystemExit(f"not serving: {status}")
                print(f"{mode}: {len(tools)} tools; {status.structured_content['version']}")


anyio.run(serve_once, sys.argv[1])
