"""Ask as an assistant does: `python examples/mcp_stdio.py logs/ "What failed?"`.

The server reads RLM_MCP_ROOT_MODEL, RLM_MCP_API_KEY and RLM_MCP_BASE_URL.
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from mcp import Client, StdioServerParameters


async def show(progress: float, total: float | None, message: str | None) -> None:
    print(message, file=sys.stderr)


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments, progress_callback=show)
    return result.structured_content or {"error": result.content}


async def main(path: str, question: str) -> None:
    environment = {**os.environ, "RLM_MCP_ALLOWED_PATHS": path}
    async with Client(StdioServerParameters(command="rlm-mcp", env=environment)) as client:
        stored = await call(client, "rlm_context_add", path=path)
        run = await call(client, "rlm_query", question=question, contexts=[stored["handle"]])
        while run.get("status") == "running":  # the call waited long enough; the run goes on
            run = await call(client, "rlm_run_wait", run_id=run["run_id"])
        print(run.get("answer") or run["error"])


asyncio.run(main(str(Path(sys.argv[1]).resolve()), sys.argv[2]))
