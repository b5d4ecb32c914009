"""A process that holds the server and an in-memory client of it; measured by `compare.py`.

`python served.py BASE_URL DIRECTORY CALLS_AT_ONCE` keeps its database below the directory.
"""

from __future__ import annotations

import asyncio
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import lines
from mcp import Client

from rlm_mcp.server.app import build_server
from rlm_mcp.service.opening import open_service
from rlm_mcp.settings import Settings

QUESTION = "How many ships came in?"


class Subject:
    """Answers commands through one client."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._contexts: list[str] = []

    async def add(self, path: str) -> float:
        """Store a file in place of what was there; gives the seconds that took."""
        for handle in self._contexts:
            await self._call("rlm_context_delete", handle=handle)
        started = time.monotonic()
        added = await self._call("rlm_context_add", path=path)
        self._contexts = [added["handle"]]
        return time.monotonic() - started

    async def run(self, model: str) -> dict[str, Any]:
        """Answer a question over what is stored; says when it began and what it took."""
        started, worked = time.monotonic(), time.process_time()
        run = await self._call(
            "rlm_query",
            question=QUESTION,
            contexts=self._contexts,
            root_model=model,
            sub_model="sub:50",
            wait_seconds=300,
        )
        assert run["answer"] == "done", run
        return {"started": started, "cpu": time.process_time() - worked}

    async def _call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        result = await self._client.call_tool(tool, arguments)
        assert not result.is_error, result.content
        assert result.structured_content is not None
        return result.structured_content


async def main(base_url: str, directory: str, calls_at_once: str) -> None:
    """Serve commands until stdin ends."""
    settings = Settings(
        base_url=base_url,
        root_model="once",
        data_dir=Path(directory) / f"served-{calls_at_once}",
        max_concurrent_calls=int(calls_at_once),
        allowed_paths=(Path(directory),),
    )
    async with Client(build_server(partial(open_service, settings))) as client:
        it = Subject(client)
        await lines.serve({"add": it.add, "run": it.run})


asyncio.run(main(*sys.argv[1:]))
