"""One provider's endpoint: what is sent to it, when a request is repeated, what it refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import anyio

from rlm_mcp.engine.models.chat import ChatModel, ChatReply, ChatRequest
from rlm_mcp.engine.models.metering import Stopwatch
from rlm_mcp.engine.models.refusals import SYSTEM_ROLE
from rlm_mcp.engine.models.retry import (
    AttemptFailedError,
    Diagnosis,
    Pace,
    Patience,
    RetryPolicy,
    Timing,
    borrowed,
)
from rlm_mcp.text import without_surrogates

EMPTY_REPLIES_ALLOWED = 1


class Wire(Protocol):
    """What reaches the provider."""

    async def send(self, body: dict[str, Any], request: ChatRequest) -> ChatReply:
        """Send one body once.

        Raises:
            AttemptFailedError: there is no reply.
        """
        ...

    async def check(self) -> list[str]:
        """See that the provider is there and takes the key; see `Endpoint.check`."""
        ...


@dataclass(frozen=True)
class Limits:
    """How one provider is asked: calls at once, patience, pace, and how to wait."""

    limiter: anyio.CapacityLimiter
    policy: RetryPolicy
    pace: Pace
    timing: Timing


class Endpoint:
    """One provider, with what was learnt about it: its pace, and what of requests it refused."""

    def __init__(self, wire: Wire, limits: Limits) -> None:
        self._wire = wire
        self._limits = limits
        self._refused: dict[str, frozenset[str]] = {}
        self.extras: Mapping[str, Any] = {}
        """Further fields of each request, left out where they are refused."""
        self.takes_cache_key = False
        """Whether the provider finds the prompt it has read by the name of its conversation."""
        self.takes_schemas = False
        """Whether the provider makes replies that fit a JSON Schema."""

    def model(self, name: str) -> ChatModel:
        """One model of this endpoint, asked by name."""
        return _EndpointModel(self, name)

    async def check(self) -> list[str]:
        """See that the endpoint is there and takes the key, by asking for its models once.

        Returns their names; none where it does not list them.

        Raises:
            ModelConnectionError: nothing answers.
            ModelAuthenticationError: the key was rejected.
        """
        return await self._wire.check()

    async def complete(self, model: str, request: ChatRequest) -> ChatReply:
        """Ask until there is an answer or patience ends.

        Raises:
            ModelError: there is none.
        """
        patience = Patience(self._limits.policy, self._limits.timing.clock)
        stopwatch = Stopwatch(self._limits.timing.clock)
        request = stopwatch.watch(request)
        empty = 0
        while True:
            try:
                reply = await self._attempt(model, request, stopwatch)
            except AttemptFailedError as failure:
                await self._prepare_next(model, failure.diagnosis, patience)
            else:
                self._limits.pace.recover()
                is_empty = not (reply.text or reply.reasoning) and reply.finish_reason == "stop"
                if not is_empty or empty == EMPTY_REPLIES_ALLOWED:
                    return replace(reply, timing=stopwatch.timing)
                empty += 1
            if request.on_delta is not None:
                await request.on_delta("")

    async def _prepare_next(self, model: str, failed: Diagnosis, patience: Patience) -> None:
        if failed.refused_parameter is not None:
            refused = self._refused.get(model, frozenset())
            self._refused[model] = refused | {failed.refused_parameter}
            return
        pause = patience.pause_after(failed)
        if failed.is_crowded:
            self._limits.pace.slow_down(pause)  # the next attempt waits with all the others
        else:
            await self._limits.timing.sleep(pause)

    async def _attempt(self, model: str, request: ChatRequest, stopwatch: Stopwatch) -> ChatReply:
        body = self._body(model, request)
        pace = self._limits.pace
        while True:
            async with pace.turn(), borrowed(self._limits.limiter):
                # While this call waited, the server may have asked another to come later.
                if not pace.is_held:
                    stopwatch.note_sending()
                    return await self._wire.send(body, request)

    def _body(self, model: str, request: ChatRequest) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": model,
            "messages": [_sendable(message) for message in request.messages],
        }
        refused = self._refused.get(model, frozenset())
        if SYSTEM_ROLE in refused:
            body["messages"] = folded(body["messages"])
        optional: dict[str, Any] = {"temperature": request.temperature, **self.extras}
        # Newer models of OpenAI refuse the one name, most other servers know only it.
        name = "max_completion_tokens" if "max_tokens" in refused else "max_tokens"
        optional[name] = request.max_tokens
        if self.takes_cache_key and request.conversation:
            optional.setdefault("prompt_cache_key", request.conversation)
        if self.takes_schemas and request.reply_schema is not None:
            optional["response_format"] = _response_format(request.reply_schema)
        if request.on_delta is not None and "stream" not in refused:
            body["stream"] = True
            optional["stream_options"] = {"include_usage": True}
        taken = {k: v for k, v in optional.items() if v is not None and k not in refused}
        return {**body, **taken}


@dataclass(frozen=True)
class _EndpointModel:
    endpoint: Endpoint
    name: str

    async def complete(self, request: ChatRequest) -> ChatReply:
        return await self.endpoint.complete(request.model or self.name, request)


def optional_parts(body: Mapping[str, Any]) -> tuple[str, ...]:
    """Name what of a request can be left out or written another way if it is refused."""
    names = [name for name in body if name not in {"model", "messages"}]
    messages: list[dict[str, Any]] = body.get("messages", [])
    is_folded = folded(messages) == messages
    return tuple(names if is_folded else [*names, SYSTEM_ROLE])


def folded(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Write system messages into the first message of the user, and join neighbours of one role."""
    rows: list[dict[str, Any]] = []
    for message in messages:
        role = "user" if message["role"] == "system" else message["role"]
        if rows and rows[-1]["role"] == role:
            rows[-1]["content"] = f"{rows[-1]['content']}\n\n{message['content']}"
        else:
            rows.append({**message, "role": role})
    return rows


def _response_format(schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """Ask for a reply that fits a schema; None where it is no object, which most refuse."""
    if schema.get("type") != "object":
        return None
    return {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema}}


def _sendable(message: Mapping[str, object]) -> dict[str, object]:
    """Copy a message without lone surrogates, which UTF-8 cannot encode."""
    content = message.get("content")
    return (
        {**message, "content": without_surrogates(content)}
        if isinstance(content, str)
        else {**message}
    )
