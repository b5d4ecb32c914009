"""Ask the same question of many files, some at a time, and write one line of JSON for each.

`python examples/batch.py "What went wrong?" logs/*.txt > results.jsonl`
The client reads OPENAI_API_KEY and OPENAI_BASE_URL.
"""

import json
import sys
from pathlib import Path

import anyio
from openai import AsyncOpenAI

from rlm_mcp import MemoryCache, RLMConfig, RLMWrapper

AT_ONCE = 4


async def main(question: str, paths: list[str]) -> None:
    config = RLMConfig(max_sub_calls=50, max_iterations=15)
    client = RLMWrapper(AsyncOpenAI(), "gpt-4.1", config=config, cache=MemoryCache())
    places = anyio.CapacityLimiter(AT_ONCE)

    async def ask(rlm: RLMWrapper, path: str) -> None:
        async with places:
            response = await rlm.agenerate(question, await anyio.Path(path).read_text())
        line = {"file": Path(path).name, "status": response.status, "answer": response.answer}
        print(json.dumps(line), flush=True)

    async with client as rlm, anyio.create_task_group() as tasks:
        for path in paths:
            tasks.start_soon(ask, rlm, path)


anyio.run(main, sys.argv[1], sys.argv[2:])
