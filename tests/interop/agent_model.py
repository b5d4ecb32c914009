"""A model for agents: scripted, over HTTP on loopback, in the formats of two providers.

It asks for one tool call after another: store a file, ask about it, follow the run, read a text
that does not exist. What the tools gave it is what a model gets from a host or framework.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Literal
from uuid import uuid4

QUESTION = "What is hidden?"
UNKNOWN = "ctx_0"
END = "That is all."
_NEXT = re.compile(r'(rlm_run_wait)\(run_id=\\*"(run_\w+)\\*", after_event=(\d+)\)')
Format = Literal["openai", "gemini"]


@dataclass(frozen=True)
class Turn:
    """What the model says: a call of a tool, or the end."""

    tool: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass
class AgentModel:
    """What is asked for, and the results of tools that the model was given, in order.

    Args:
        path: the file to store.
        on_running: called once a tool says that the run is at work.
    """

    path: str
    on_running: Callable[[], object]
    base_url: str = ""
    results: list[str] = field(default_factory=list[str])

    def turn(self, results: Sequence[str]) -> Turn:
        """Choose the next step from what the tools gave so far."""
        self.results[:] = results
        if not results:
            return Turn("rlm_context_add", {"path": self.path})
        last = results[-1]
        if len(results) == 1:
            handles = re.findall(r"ctx_[0-9a-f]{16}", last)
            return Turn("rlm_query", {"question": QUESTION, "contexts": handles[:1]})
        if following := _NEXT.search(last):
            self.on_running()
            name, run_id, event = following.groups()
            return Turn(name, {"run_id": run_id, "after_event": int(event)})
        if UNKNOWN not in last:
            return Turn("rlm_context_read", {"handle": UNKNOWN})
        return Turn()


@contextmanager
def open_agent_model(path: str, on_running: Callable[[], object]) -> Generator[AgentModel]:
    """Serve until the block is left.

    Args:
        path: the file to store.
        on_running: called from another thread.
    """
    server = _Server(("127.0.0.1", 0), _Handler)
    url = f"http://127.0.0.1:{server.server_port}"
    server.model = model = AgentModel(path, on_running, url)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield model
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    model: AgentModel


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]  # no other makes it

    def do_POST(self) -> None:
        """Answer one request of an agent."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        provider = _format_of(self.path)
        names = _TOOL_NAMES[provider](body)
        # Hosts ask for titles and the like as well, without tools.
        turn = self.server.model.turn(_RESULTS[provider](body)) if names else Turn()
        name = turn.tool and next(name for name in names if name.endswith(turn.tool))
        is_streamed = bool(body.get("stream")) or "streamGenerateContent" in self.path
        answer = _ANSWERS[provider](name, turn.arguments, is_streamed)
        if is_streamed:
            return self._send("".join(answer), "text/event-stream")
        return self._send("".join(answer))

    def do_GET(self) -> None:
        """List no models."""
        self._send(json.dumps({"object": "list", "data": []}))

    do_HEAD = do_GET  # noqa: N815  # the name of the method

    def _send(self, text: str, kind: str = "application/json") -> None:
        data = text.encode()
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # as it is called
        """Say nothing of single requests."""


def _format_of(path: str) -> Format:
    return "gemini" if "enerateContent" in path else "openai"


def texts_of(content: Any) -> str:
    """All texts in a piece of a request, whatever its form."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(map(texts_of, content))  # pyright: ignore[reportUnknownArgumentType]  # JSON
    if isinstance(content, dict) and "text" in content:
        return texts_of(content["text"])
    return json.dumps(content)


def _openai_results(body: Any) -> list[str]:
    return [texts_of(one["content"]) for one in body["messages"] if one["role"] == "tool"]


def _gemini_results(body: Any) -> list[str]:
    parts = [part for one in body["contents"] for part in _each(one["parts"])]
    return [
        texts_of(part["functionResponse"]["response"])
        for part in parts
        if "functionResponse" in part
    ]


def _each(found: Any) -> list[dict[str, Any]]:
    return found or []


def _openai_names(body: Any) -> list[str]:
    return [tool["function"]["name"] for tool in _each(body.get("tools"))]


def _gemini_names(body: Any) -> list[str]:
    groups = _each(body.get("tools"))
    return [one["name"] for group in groups for one in _each(group.get("functionDeclarations"))]


_RESULTS: Mapping[Format, Callable[[Any], list[str]]] = {
    "openai": _openai_results,
    "gemini": _gemini_results,
}
_TOOL_NAMES: Mapping[Format, Callable[[Any], list[str]]] = {
    "openai": _openai_names,
    "gemini": _gemini_names,
}


def _openai_answer(name: str, arguments: Any, is_streamed: bool) -> Iterable[str]:
    call = {"id": f"call_{uuid4().hex}", "type": "function"}
    call |= {"function": {"name": name, "arguments": json.dumps(arguments)}}
    said: dict[str, Any] = {"role": "assistant", "content": None if name else END}
    if name:
        said["tool_calls"] = [{"index": 0, **call}]
    choice = {"index": 0, "finish_reason": "tool_calls" if name else "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    envelope = {"id": "chatcmpl-1", "created": 1, "model": "agent", "usage": usage}
    if not is_streamed:
        choices = [choice | {"message": said}]
        yield json.dumps(envelope | {"object": "chat.completion", "choices": choices})
        return
    choices = [choice | {"delta": said}]
    chunk = envelope | {"object": "chat.completion.chunk", "choices": choices}
    yield f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n"


def _gemini_answer(name: str, arguments: Any, is_streamed: bool) -> Iterable[str]:
    part = {"functionCall": {"name": name, "args": arguments}} if name else {"text": END}
    content = {"role": "model", "parts": [part]}
    candidate = {"content": content, "finishReason": "STOP", "index": 0}
    usage = {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2}
    answer = json.dumps({"candidates": [candidate], "usageMetadata": usage})
    yield f"data: {answer}\n\n" if is_streamed else answer


_ANSWERS: Mapping[Format, Callable[[str, Any, bool], Iterable[str]]] = {
    "openai": _openai_answer,
    "gemini": _gemini_answer,
}
