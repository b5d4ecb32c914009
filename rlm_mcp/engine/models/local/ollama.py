"""Ollama's own chat API; its OpenAI-compatible one takes neither a window nor `keep_alive`."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Mapping
from typing import Any

from rlm_mcp.engine.models.chat import ChatReply, ChatRequest
from rlm_mcp.engine.models.completions import as_json, mapping_of, read_decoded
from rlm_mcp.engine.models.http_provider import ProviderWire
from rlm_mcp.engine.models.local.servers import root_of
from rlm_mcp.errors import ModelReplyError

KEEP_ALIVE = "30m"  # a run's code may work for longer than Ollama's own five minutes
# How options of chat completions are named here.
_OPTIONS = {
    "max_tokens": "num_predict",
    "max_completion_tokens": "num_predict",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "seed": "seed",
    "stop": "stop",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
}
_OWN = ("model", "messages", "keep_alive", "format", "think")


def body_of(chat: Mapping[str, Any], context_tokens: int | None) -> dict[str, Any]:
    """Make the body of a request from that of a chat completion."""
    options: dict[str, Any] = {"num_ctx": context_tokens} if context_tokens else {}
    options |= {_OPTIONS[name]: value for name, value in chat.items() if name in _OPTIONS}
    body: dict[str, Any] = {"keep_alive": KEEP_ALIVE, "stream": bool(chat.get("stream"))}
    body |= {name: chat[name] for name in _OWN if name in chat}
    if effort := chat.get("reasoning_effort"):
        body["think"] = effort
    if wanted := mapping_of(chat.get("response_format")):
        schema = mapping_of(wanted.get("json_schema")).get("schema")
        body["format"] = schema or "json"
    return {**body, "options": {**options, **mapping_of(chat.get("options"))}}


def read_reply(body: bytes | bytearray | str, prompt_chars: int) -> ChatReply:
    """Read a whole reply.

    Raises:
        ErrorInReplyError: it is an error.
        ModelReplyError: it is not a reply.
    """
    text = body if isinstance(body, str) else body.decode("utf-8", "replace")
    return read_decoded(_as_chunk(as_json(text), "message"), prompt_chars)


class LineStream:
    """Turns the bytes of a body whose lines are JSON into chunks of a chat completion."""

    def __init__(self) -> None:
        self.is_done = False
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._begun = ""

    def feed(self, piece: bytes) -> Iterator[object]:
        """Return the chunk of each line that ends in this piece.

        Raises:
            ModelReplyError: a line is not JSON.
        """
        *lines, self._begun = (self._begun + self._decoder.decode(piece)).split("\n")
        yield from map(_read_line, filter(str.strip, lines))

    def end(self) -> Iterator[object]:
        """Return the chunk of a line that the end of the body cut short."""
        yield from self.feed(b"\n")


class OllamaWire(ProviderWire):
    """Sends requests to Ollama's own chat API; see `endpoint.Wire`.

    `context_tokens` is the window for which the model is loaded; None leaves that to the server.
    """

    path = "api/chat"
    read_body = staticmethod(read_reply)
    events = LineStream
    context_tokens: int | None = None

    def base_for_requests(self, base: str) -> str:
        """Return the server's own address."""
        return root_of(base)

    async def send(self, body: dict[str, Any], request: ChatRequest) -> ChatReply:
        """Send one request once; see `ProviderWire.send`."""
        return await super().send(body_of(body, self.context_tokens), request)


def _read_line(line: str) -> object:
    try:
        return _as_chunk(json.loads(line), "delta")
    except (ValueError, RecursionError) as error:
        raise ModelReplyError(f"The stream holds what is not JSON: {line[:200]!r}.") from error


def _as_chunk(data: object, place: str) -> object:
    """Write a reply, or a piece of one, as a chat completion has it."""
    fields = mapping_of(data)
    if "message" not in fields and "done" not in fields:
        return data
    message = mapping_of(fields.get("message"))
    said = {**message, "reasoning": message.get("thinking")}
    reason = (fields.get("done_reason") or "stop") if fields.get("done") else None
    counted = {
        "prompt_tokens": fields.get("prompt_eval_count"),
        "completion_tokens": fields.get("eval_count"),
    }
    usage = counted if fields.get("done") else None
    return {"choices": [{place: said, "finish_reason": reason}], "usage": usage}
