"""The previous SDK as a client: `mcp<2`."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import asynccontextmanager
from datetime import timedelta

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamablehttp_client

SERVER = json.loads(os.environ["INTEROP_SERVER"])


@asynccontextmanager
async def connected():
    if "url" in SERVER:
        transport = streamablehttp_client(SERVER["url"], headers=SERVER["headers"])
    else:
        transport = stdio_client(StdioServerParameters(**SERVER))
    async with transport as streams, ClientSession(*streams[:2]) as session:
        await session.initialize()
        yield session


async def main() -> None:
    progress = []

    async def note(done, total, message) -> None:
        progress.append(message)

    async with connected() as session:
        tools = (await session.list_tools()).tools
        added = await session.call_tool("rlm_context_add", {"text": os.environ["INTEROP_TEXT"]})
        handle = added.structuredContent["handle"]
        run = await session.call_tool(
            "rlm_query",
            {"question": "What is hidden?", "contexts": [handle]},
            read_timeout_seconds=timedelta(seconds=60),
            progress_callback=note,
        )
        run_id = run.structuredContent["run_id"]
        resource = (await session.read_resource(f"rlm://runs/{run_id}")).contents[0]
        listed = (await session.list_resources()).resources
        prompt = await session.get_prompt("playbook")
        refused = await session.call_tool("rlm_context_read", {"handle": "ctx_0"})
    print(
        json.dumps(
            {
                "tools": sorted(tool.name for tool in tools),
                "answer": run.structuredContent["answer"],
                "progress": progress,
                "resource": json.loads(resource.text)["status"],
                "listed": [str(one.uri) for one in listed],
                "prompt": prompt.messages[0].content.text,
                "refused": [refused.isError, refused.content[0].text],
            }
        )
    )


asyncio.run(main())
