# pyright: strict
"""What users of the library write, run and type-checked against the installed package alone."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, assert_type

import anyio
from openai import AsyncOpenAI, OpenAI

from rlm_mcp import (
    BudgetExceededError,
    ChatReply,
    ChatRequest,
    HistoryEntry,
    MemoryCache,
    RLMConfig,
    RLMError,
    RLMEvent,
    RLMResponse,
    RLMWrapper,
)


class Scripted:
    """A model of one's own."""

    async def complete(self, request: ChatRequest) -> ChatReply:
        if request.model == "sub":
            return ChatReply("heard")
        return ChatReply("```repl\nFINAL(llm_query('p') + ' ' + context[:4])\n```")


class Kept:
    """A cache of one's own."""

    async def get_many(self, keys: list[str]) -> Mapping[str, str]:
        return {}

    async def put_many(self, texts: Mapping[str, str]) -> None:
        return None


def clients() -> list[RLMWrapper]:
    config = RLMConfig(max_iterations=5, prompt_variant="cost_warning", max_usd=None)
    return [
        RLMWrapper(OpenAI(api_key="k"), "gpt-4.1", "gpt-4.1-mini", config=config),
        RLMWrapper(AsyncOpenAI(api_key="k"), root_model="gpt-4.1", cache=MemoryCache()),
        RLMWrapper(Scripted(), cache=Kept()),
    ]


def check(response: RLMResponse) -> None:
    assert_type(response.answer, str | None)
    assert_type(response.error, RLMError | None)
    assert_type(response.cost, float | None)
    assert_type(response.history, tuple[HistoryEntry, ...])
    assert_type(response.repl_variables, Mapping[str, str])
    assert response.answer == "heard text", response
    if isinstance(response.error, BudgetExceededError):
        assert_type(response.error.limit, str)


async def listen(rlm: RLMWrapper) -> None:
    seen: list[str] = []

    async def on_event(event: RLMEvent) -> None:
        seen.append(event.type)

    check(await rlm.agenerate("What?", "text", on_event=on_event, on_delta=lambda text: None))
    assert seen[0] == "run_started", seen
    schema: dict[str, Any] = {"type": "string"}
    async for event in rlm.astream_generate("What?", "text", answer_schema=schema):
        assert_type(event, RLMEvent)
        if event.response is not None:
            check(event.response)


async def notebook(rlm: RLMWrapper) -> None:
    check(rlm.generate("What?", "text"))  # its loop runs already


async def structured(rlm: RLMWrapper) -> None:
    async with rlm, anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(listen, rlm)


def main() -> None:
    assert len(clients()) == 3
    rlm = RLMWrapper(Scripted(), "root", "sub")
    check(rlm.generate(query="What?", context="text"))
    asyncio.run(notebook(rlm))
    anyio.run(structured, rlm)
    print("what users write runs")


main()
