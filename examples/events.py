"""Show what a run does while it works: `python examples/events.py book.txt "Who is the narrator?"`.

The client reads OPENAI_API_KEY and OPENAI_BASE_URL.
"""

import asyncio
import sys
from pathlib import Path

from openai import AsyncOpenAI

from rlm_mcp import RLMConfig, RLMWrapper


async def main(text: str, question: str) -> None:
    config = RLMConfig(max_sub_calls=100, max_seconds=300)
    rlm = RLMWrapper(AsyncOpenAI(), "gpt-4.1", "gpt-4.1-mini", config=config)
    async for event in rlm.astream_generate(question, text):
        print(f"turn {event.iteration}  {event.type:18}  {event.preview}")
        if event.type == "code_executed":
            print(event.detail["output"])
        if event.response is not None:
            print(event.response.answer)
            print(f"{event.response.status}, {event.usage.input_tokens} tokens in")


asyncio.run(main(Path(sys.argv[1]).read_text(), sys.argv[2]))
