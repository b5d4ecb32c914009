"""Send a file to a server over HTTP and ask about it.

`RLM_MCP_HTTP_TOKEN=... python examples/mcp_http_upload.py http://127.0.0.1:8000 book.txt "Who?"`
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client


async def pieces(path: Path) -> AsyncIterator[bytes]:
    async with await anyio.open_file(path, "rb") as file:
        while piece := await file.read(1 << 20):
            yield piece


async def main(url: str, name: str, question: str) -> None:
    headers = {"authorization": f"Bearer {os.environ['RLM_MCP_HTTP_TOKEN']}"}
    async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=600) as http:
        path = Path(name)
        sent = await http.put(f"/contexts/{path.name}", content=pieces(path))
        handle = sent.raise_for_status().json()["handle"]
        transport = streamable_http_client(f"{url}/mcp", http_client=http)
        async with Client(transport) as client:
            asked = {"question": question, "contexts": [handle]}
            result = await client.call_tool("rlm_query", asked)
            run: dict[str, Any] = result.structured_content or {}
            print(run.get("answer") or result.content)


asyncio.run(main(*sys.argv[1:]))
