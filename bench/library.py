"""A process that works with one library, or with a bare client; measured by `compare.py`.

`python library.py PACKAGE BASE_URL`: `rlm_mcp` and `replm` have the same public names, so the code
that uses them is the same.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any

import aiohttp
import httpx2
import lines
from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from texts import make_text

QUESTION = "How many ships came in?"


class Subject:
    """Answers commands with one package and one base URL."""

    def __init__(self, package: str, base_url: str) -> None:
        self._package = import_module(package)
        self._base_url = base_url
        self._client = AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0)
        self._session: aiohttp.ClientSession | None = None
        self._text = "a short text"

    async def text(self, megabytes: int, salt: str) -> None:
        """Make the text that runs are given."""
        self._text = ""  # so that two of them are never there at once
        self._text = make_text(megabytes, salt)

    async def run(
        self, model: str, connections: int = 0, sub_model: str = "sub:50", **options: Any
    ) -> dict[str, Any]:
        """Answer a question; says when it began and what it took.

        `connections` bounds the client's; `options` are fields of the package's `RLMConfig`.
        """
        client = self._client
        if connections:
            limits = httpx2.Limits(
                max_connections=connections, max_keepalive_connections=connections
            )
            client = self._client.with_options(http_client=DefaultAsyncHttpxClient(limits=limits))
        config = self._package.RLMConfig(**options)
        wrapper = self._package.RLMWrapper(client, model, sub_model, config=config)
        started, worked = time.monotonic(), time.process_time()
        response = await wrapper.agenerate(QUESTION, self._text)
        assert response.answer == "done", response
        return {"started": started, "cpu": time.process_time() - worked}

    async def sequence(self, way: str, calls: int) -> dict[str, Any]:
        """Ask a bare client so many times, one after another."""
        ask = self._ways[way]
        worked = time.process_time()
        for _ in range(calls):
            await ask("once")
        return {"cpu": time.process_time() - worked}

    async def gather(self, way: str, calls: int, limit: int) -> dict[str, Any]:
        """Ask a bare client so many times, `limit` at once."""
        semaphore = asyncio.Semaphore(limit)

        async def ask() -> None:
            async with semaphore:
                await self._ways[way]("sub:50")

        started, worked = time.monotonic(), time.process_time()
        await asyncio.gather(*(ask() for _ in range(calls)))
        return {"seconds": time.monotonic() - started, "cpu": time.process_time() - worked}

    async def peak(self) -> float:
        """The peak of this process's memory, in MB."""
        return lines.peak_mb()

    @property
    def _ways(self) -> dict[str, Callable[[str], Awaitable[None]]]:
        return {"openai": self._ask_openai, "aiohttp": self._ask_aiohttp}

    async def _ask_openai(self, model: str) -> None:
        await self._client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": QUESTION}]
        )

    async def _ask_aiohttp(self, model: str) -> None:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        asked = {"model": model, "messages": [{"role": "user", "content": QUESTION}]}
        async with self._session.post(f"{self._base_url}/chat/completions", json=asked) as reply:
            assert (await reply.json())["choices"][0]["message"]["content"]

    async def close(self) -> None:
        """Close what was opened."""
        await self._client.close()
        if self._session is not None:
            await self._session.close()


async def main(package: str, base_url: str) -> None:
    """Serve commands until stdin ends."""
    it = Subject(package, base_url)
    commands = {
        "text": it.text,
        "run": it.run,
        "sequence": it.sequence,
        "gather": it.gather,
        "peak": it.peak,
    }
    await lines.serve(commands)
    await it.close()


asyncio.run(main(*sys.argv[1:]))
