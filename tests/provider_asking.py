"""A question to one endpoint that answers by a script; time passes only while the call waits."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio

from rlm_mcp.engine.models.chat import ChatReply, ChatRequest
from rlm_mcp.engine.models.endpoint import Endpoint
from rlm_mcp.engine.models.http_provider import Provider
from rlm_mcp.engine.models.openai_client import open_endpoint
from rlm_mcp.engine.models.retry import Timing
from rlm_mcp.testing.scripted_model import ScriptedModel, open_scripted_model
from rlm_mcp.testing.scripted_replies import Fault, Script

KEY = "sk-of-no-provider-0123"


class Clock:
    """Seconds that pass while one sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    async def sleep(self, seconds: float) -> None:
        await anyio.lowlevel.checkpoint()
        self.now += seconds


@asynccontextmanager
async def open_asked(
    script: Script, clock: Clock | None = None, address: str = "/v1"
) -> AsyncGenerator[tuple[ScriptedModel, Endpoint]]:
    """Open an endpoint at an address of the scripted server."""
    clock = clock or Clock()
    timing = Timing(clock.sleep, lambda: clock.now)
    with anyio.fail_after(120):
        async with open_scripted_model(script) as server:
            provider = Provider(server.base_url.removesuffix("/v1") + address, KEY)
            async with open_endpoint(provider, timing=timing) as endpoint:
                yield server, endpoint


@asynccontextmanager
async def asked(
    script: Script, clock: Clock | None = None, address: str = "/v1", **request: Any
) -> AsyncGenerator[tuple[ScriptedModel, ChatReply]]:
    """Ask once."""
    messages = request.pop("messages", ({"role": "user", "content": "hello"},))
    async with open_asked(script, clock, address) as (server, endpoint):
        yield server, await endpoint.model("root").complete(ChatRequest(messages, **request))


async def hear(_: str) -> None:
    """Listen to the pieces of a streamed reply."""
    await anyio.lowlevel.checkpoint()


def words(message: str, **more: Any) -> dict[str, Any]:
    """An error in the shape that OpenAI gives it."""
    return {"error": {"message": message, **more}}


def answer(body: object, status: int = 200, **headers: str) -> Fault:
    """An answer with this JSON, or with this text."""
    text = body if isinstance(body, str) else json.dumps(body)
    return Fault(status, text, {name.replace("_", "-"): told for name, told in headers.items()})


def completion(finish: object = "stop", usage: Any = None, **message: Any) -> dict[str, Any]:
    """The body of a whole reply."""
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", **message}}
    return {"choices": [choice], "usage": usage}


def chunk(text: str | None, finish: str | None = None, **delta: Any) -> str:
    """The JSON of one event of a streamed reply."""
    choice = {"index": 0, "delta": {"content": text, **delta}, "finish_reason": finish}
    return json.dumps({"choices": [choice]})


def streamed(*events: str, done: bool = True) -> Fault:
    """A reply as a stream of these events."""
    body = "".join(f"data: {event}\n\n" for event in events) + "data: [DONE]\n\n" * done
    return Fault(body=body, headers={"content-type": "text/event-stream"})
