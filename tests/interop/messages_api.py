"""An Anthropic Messages API on loopback whose replies are scripted: what Claude Code asks."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Block = dict[str, Any]
Script = Callable[[dict[str, Any]], Block]


@dataclass
class MessagesApi:
    """Where it listens, and what it was asked."""

    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])


def text(said: str) -> Block:
    return {"type": "text", "text": said}


def tool_use(name: str, **arguments: Any) -> Block:
    return {"type": "tool_use", "name": name, "input": arguments}


@asynccontextmanager
async def open_messages_api(script: Script) -> AsyncGenerator[MessagesApi]:
    """Serve until the block ends."""
    api = MessagesApi()

    async def answer(request: web.Request) -> web.StreamResponse:
        if not request.path.endswith("/messages"):
            return web.json_response({"input_tokens": 1})
        asked = await request.json()
        api.requests.append(asked)
        message = _message(script(asked), len(api.requests), asked["model"])
        if not asked.get("stream"):
            return web.json_response(message)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for event in _events(message):
            data = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"
            await response.write(data.encode())
        return response

    application = web.Application(client_max_size=1 << 26)
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    api.url = f"http://{host}:{port}"
    try:
        yield api
    finally:
        await runner.cleanup()


def _message(block: Block, number: int, model: str) -> dict[str, Any]:
    if block["type"] == "tool_use":
        block = {**block, "id": f"toolu_{number:04}"}
    return {
        "id": f"msg_{number:04}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [block],
        "stop_reason": "tool_use" if block["type"] == "tool_use" else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }


def _events(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    block: Block = message["content"][0]
    start: Block
    if block["type"] == "text":
        start, delta = {**block, "text": ""}, {"type": "text_delta", "text": block["text"]}
    else:
        start = {**block, "input": {}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
    yield {"type": "message_start", "message": {**message, "content": [], "stop_reason": None}}
    yield {"type": "content_block_start", "index": 0, "content_block": start}
    yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}
    ended = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    yield {"type": "message_delta", "delta": ended, "usage": message["usage"]}
    yield {"type": "message_stop"}
