"""A process that works with one library, or with a bare client; measured by `compare.py`.

`python library.py PACKAGE BASE_URL`: `rlm_mcp` and `replm` have the same public names, so the code
that uses them is the same.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from importlib import import_module
from typing import Any

import aiohttp
import httpx2
import lines
from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from texts import make_text

Ask = Callable[[str], Awaitable[None]]
QUESTION = "How many ships came in?"


class Subject:
    """Answers commands with one package and one base URL."""

    def __init__(self, package: str, base_url: str) -> None:
        self._package = import_module(package)
        self._base_url = base_url
        self._client = AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0)
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
        past = {"direct_http": True} if options.pop("direct", False) else {}  # past the client
        config = self._package.RLMConfig(**options)
        wrapper = self._package.RLMWrapper(client, model, sub_model, config=config, **past)
        started, worked = time.monotonic(), time.process_time()
        response = await wrapper.agenerate(QUESTION, self._text)
        assert response.answer == "done", response
        return {"started": started, "cpu": time.process_time() - worked}

    async def sequence(self, way: str, calls: int) -> dict[str, Any]:
        """Ask a bare client so many times, one after another."""
        worked = time.process_time()
        async with self._way(way) as ask:
            for _ in range(calls):
                await ask("once")
        return {"cpu": time.process_time() - worked}

    async def gather(self, way: str, calls: int, limit: int) -> dict[str, Any]:
        """Ask a bare client so many times, `limit` at once."""
        semaphore = asyncio.Semaphore(limit)

        async def ask(ask_once: Ask) -> None:
            async with semaphore:
                await ask_once("sub:50")

        started, worked = time.monotonic(), time.process_time()
        async with self._way(way) as ask_once:
            await asyncio.gather(*(ask(ask_once) for _ in range(calls)))
        return {"seconds": time.monotonic() - started, "cpu": time.process_time() - worked}

    async def peak(self) -> float:
        """The peak of this process's memory, in MB."""
        return lines.peak_mb()

    @asynccontextmanager
    async def _way(self, name: str) -> AsyncGenerator[Ask]:
        if name == "openai":
            yield self._ask_openai
            return
        # With connections of its own each time, as our library has them.
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            yield partial(self._ask_aiohttp, session)

    async def _ask_openai(self, model: str) -> None:
        await self._client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": QUESTION}]
        )

    async def _ask_aiohttp(self, session: aiohttp.ClientSession, model: str) -> None:
        asked = {"model": model, "messages": [{"role": "user", "content": QUESTION}]}
        async with session.post(f"{self._base_url}/chat/completions", json=asked) as reply:
            assert (await reply.json())["choices"][0]["message"]["content"]

    async def close(self) -> None:
        """Close the client."""
        await self._client.close()


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
