"""fastmcp with its tasks as a client; it drives a run as a task, and is not told how."""

from __future__ import annotations

import asyncio
import json
import os

from fastmcp import Client
from fastmcp.client.transports import StdioTransport, StreamableHttpTransport
from fastmcp.exceptions import ToolError
from fastmcp_tasks import call_tool_task
from mcp.client import session

# After 10 seconds, in which a server on a busy machine may not be up, it speaks an older protocol,
# which has no tasks.
session.DISCOVER_TIMEOUT_SECONDS = 100.0
SERVER = json.loads(os.environ["INTEROP_SERVER"])
TEXT = os.environ["INTEROP_TEXT"]


def transport():
    if "url" in SERVER:
        return StreamableHttpTransport(SERVER["url"], headers=SERVER["headers"])
    return StdioTransport(**SERVER)


async def main() -> None:
    async with Client(transport()) as client:
        tools = await client.list_tools()
        added = await client.call_tool("rlm_context_add", {"text": TEXT})
        asked = {"question": "What is hidden?", "contexts": [added.data.handle]}
        run = await client.call_tool("rlm_query", asked)
        task = await call_tool_task(client, "rlm_query", {**asked, "idempotency_key": "task"})
        begun = await task.status()
        ended = await task.result()
        held = await call_tool_task(client, "rlm_query", {**asked, "question": "Wait for ever."})
        await held.cancel()
        cancelled = await held.status()
        [resource] = await client.read_resource(f"rlm://runs/{run.data.run_id}")
        listed = await client.list_resources()
        prompt = await client.get_prompt("playbook")
        try:
            await client.call_tool("rlm_context_read", {"handle": "ctx_0"})
        except ToolError as error:
            refused = [True, str(error)]
    print(
        json.dumps(
            {
                "tools": sorted(tool.name for tool in tools),
                "answer": run.data.answer,
                "iterations": run.structured_content["iterations"],
                "task": [
                    task.task_id.startswith("run_"),
                    begun.status in ("working", "completed"),
                    ended.data.answer,
                    cancelled.status,
                ],
                "resource": json.loads(resource.text)["status"],
                "listed": [str(one.uri) for one in listed],
                "prompt": prompt.messages[0].content.text,
                "refused": refused,
            }
        )
    )


asyncio.run(main())
