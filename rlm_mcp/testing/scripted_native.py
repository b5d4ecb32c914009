"""Scripted replies in the words of Anthropic's Messages API and OpenAI's Responses API."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rlm_mcp.testing.scripted_replies import (
    STREAM_PIECE_CHARS,
    ChatRequestView,
    Reply,
    tokens_of,
)

_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens"}


@dataclass(frozen=True)
class NativeReply(Reply):
    """A reply whose usage tells of a cache: tokens read from it and written to it.

    In `usage`, tokens in are those that were neither.
    """

    cached: int = 0
    written: int = 0


def messages_body(request: ChatRequestView, reply: Reply) -> dict[str, Any]:
    """Make the body of a whole reply of the Messages API."""
    content = [{"type": "text", "text": reply.text or ""}]
    if reply.reasoning:
        content.insert(0, {"type": "thinking", "thinking": reply.reasoning})
    return {
        "id": f"msg_{request.number}",
        "type": "message",
        "role": "assistant",
        "model": request.model,
        "content": content,
        "stop_reason": _STOP_REASONS.get(reply.finish_reason, reply.finish_reason),
        "usage": _messages_usage(request, reply),
    }


def messages_events(request: ChatRequestView, reply: Reply) -> Iterator[bytes]:
    """Make the server-sent events of a reply of the Messages API."""
    whole = messages_body(request, reply)
    usage = whole["usage"]
    begun: dict[str, Any] = {
        **whole,
        "content": [],
        "stop_reason": None,
        "usage": {**usage, "output_tokens": 1},
    }
    yield _event("message_start", message=begun)
    yield _event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    for piece in _pieces(reply.text or ""):
        yield _event("content_block_delta", index=0, delta={"type": "text_delta", "text": piece})
    yield _event("content_block_stop", index=0)
    used = {"output_tokens": usage["output_tokens"]}
    yield _event("message_delta", delta={"stop_reason": whole["stop_reason"]}, usage=used)
    yield _event("message_stop")


def responses_body(request: ChatRequestView, reply: Reply) -> dict[str, Any]:
    """Make the body of a whole reply of the Responses API."""
    given, made = tokens_of(request, reply)
    cached = reply.cached if isinstance(reply, NativeReply) else 0
    parts = [{"type": "output_text", "text": reply.text or ""}]
    is_cut = reply.finish_reason == "length"
    return {
        "id": f"resp_{request.number}",
        "object": "response",
        "model": request.model,
        "status": "incomplete" if is_cut else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
        "error": None,
        "output": [
            {"id": "msg_1", "type": "message", "role": "assistant", "content": parts},
        ],
        "usage": {
            "input_tokens": given + cached,
            "input_tokens_details": {"cached_tokens": cached},
            "output_tokens": made,
            "total_tokens": given + cached + made,
        },
    }


def responses_events(request: ChatRequestView, reply: Reply) -> Iterator[bytes]:
    """Make the server-sent events of a reply of the Responses API."""
    whole = responses_body(request, reply)
    yield _event("response.created", response={**whole, "status": "in_progress", "output": []})
    for piece in _pieces(reply.text or ""):
        yield _event("response.output_text.delta", delta=piece)
    yield _event("response.output_item.done", output_index=0, item=whole["output"][0])
    yield _event(f"response.{whole['status']}", response=whole)


def _messages_usage(request: ChatRequestView, reply: Reply) -> Mapping[str, int]:
    given, made = tokens_of(request, reply)
    usage = {"input_tokens": given, "output_tokens": made}
    if isinstance(reply, NativeReply):
        usage["cache_read_input_tokens"] = reply.cached
        usage["cache_creation_input_tokens"] = reply.written
    return usage


def _pieces(text: str) -> Iterator[str]:
    for start in range(0, len(text), STREAM_PIECE_CHARS):
        yield text[start : start + STREAM_PIECE_CHARS]


def _event(kind: str, **fields: Any) -> bytes:
    data = json.dumps({"type": kind, **fields})
    return f"event: {kind}\ndata: {data}\n\n".encode()
