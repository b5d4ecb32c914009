"""What a scripted model may answer: chat completions, and every fault of a provider."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import anyio

STREAM_PIECE_CHARS = 8


@dataclass(frozen=True)
class ChatRequestView:
    """One request as it arrived.

    `params` is the body without `messages` and `model`; `headers` have lower-case names; `at` is
    in seconds of `anyio`'s clock; `number` counts requests from 1; `path` is where it was sent.
    """

    messages: tuple[Mapping[str, Any], ...]
    model: str
    params: Mapping[str, Any]
    at: float
    headers: Mapping[str, str]
    number: int
    path: str = "/chat/completions"

    @property
    def authorization(self) -> str:
        """The header that carries the key."""
        return self.headers.get("authorization", "")

    @property
    def text(self) -> str:
        """The last message's content."""
        content: Any = self.messages[-1].get("content", "") if self.messages else ""
        if isinstance(content, list):  # blocks, as some providers have them
            blocks = cast("list[Mapping[str, Any]]", content)
            return "".join(str(block.get("text", "")) for block in blocks)
        return str(content)

    @property
    def streamed(self) -> bool:
        """Whether the reply is asked for as server-sent events."""
        return bool(self.params.get("stream"))


@dataclass(frozen=True)
class Reply:
    """A chat completion.

    Args:
        text: the message; None becomes `content: null`.
        finish_reason: as providers spell it: `stop`, `length`, `content_filter`.
        reasoning: goes out as `reasoning_content`, beside the text.
        usage: tokens in and out; None leaves them out, "by_length" counts four characters a token.
        latency_seconds: how long the server thinks first.
        gate: the reply waits until this is set.
        halfway: a streamed reply waits for this when half of its events are sent.
    """

    text: str | None
    finish_reason: str = "stop"
    reasoning: str = ""
    usage: tuple[int, int] | Literal["by_length"] | None = "by_length"
    latency_seconds: float = 0.0
    gate: anyio.Event | None = None
    halfway: anyio.Event | None = None


@dataclass(frozen=True)
class Fault:
    """Anything but a chat completion.

    Args:
        status: the HTTP status.
        body: sent as it is; a mapping as JSON.
        headers: sent beside the usual ones.
        way: `answer` sends the above; `hang` never answers; `cut_before_headers` and
            `cut_in_body` close the connection there.
        gate: the fault waits until this is set.
    """

    status: int = 200
    body: str | Mapping[str, Any] = ""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    way: Literal["answer", "hang", "cut_before_headers", "cut_in_body"] = "answer"
    gate: anyio.Event | None = None


Answer = str | Reply | Fault
Script = Callable[[ChatRequestView], Answer] | Iterable[Answer] | str


def rejected(status: int, message: str, **error: str | None) -> Fault:
    """Make an error reply in the shape that OpenAI gives it."""
    return Fault(status, {"error": {"message": message, "type": "invalid_request_error", **error}})


def rate_limited(retry_after: str | None = None) -> Fault:
    """Make a 429; `retry_after` is seconds or an HTTP date, as the header has it."""
    headers = {} if retry_after is None else {"retry-after": retry_after}
    return Fault(429, {"error": {"message": "Rate limit reached", "type": "requests"}}, headers)


def server_error(status: int = 503) -> Fault:
    """Make a 5xx."""
    return Fault(status, {"error": {"message": "The server is overloaded", "type": "server_error"}})


def rejected_parameter(name: str) -> Fault:
    """Make the 400 with which a provider refuses a parameter."""
    return rejected(400, f"Unsupported parameter: {name!r}.", param=name, code="unsupported_value")


def context_too_long(limit: int = 8192, tokens: int = 9000) -> Fault:
    """Make the 400 of a prompt that does not fit the model's window."""
    message = f"This model's maximum context length is {limit} tokens, but you sent {tokens}."
    return rejected(400, message, param="messages", code="context_length_exceeded")


def unauthorized(key: str = "") -> Fault:
    """Make a 401 that, as providers do, quotes the key it was given."""
    return rejected(401, f"Incorrect API key provided: {key}", code="invalid_api_key")


def malformed() -> Fault:
    """Make a 200 whose body is half a JSON object."""
    return Fault(body='{"choices": [{"message"')


def empty_choices() -> Fault:
    """Make a 200 without a choice in it."""
    return Fault(body={"id": "x", "object": "chat.completion", "choices": []})


def no_answer() -> Fault:
    """Make the request wait until the client gives up."""
    return Fault(way="hang")


def cut_connection(*, in_body: bool = False) -> Fault:
    """Close the connection before the headers, or in the middle of the body."""
    return Fault(way="cut_in_body" if in_body else "cut_before_headers")


def by_model(**scripts: Script) -> Callable[[ChatRequestView], Answer]:
    """Join scripts that answer for one model name each."""
    made = {name: as_function(script) for name, script in scripts.items()}

    def answer(request: ChatRequestView) -> Answer:
        script = made.get(request.model)
        return script(request) if script else rejected(404, f"No model {request.model!r} here.")

    return answer


def as_function(script: Script) -> Callable[[ChatRequestView], Answer]:
    """Make a function of any kind of script."""
    if callable(script):
        return script
    if isinstance(script, str):
        return lambda _: script
    replies = iter(script)
    # A request that the script did not foresee must not look like a fault worth a retry.
    return lambda request: next(
        replies, rejected(400, f"The script has no reply left for request {request.number}.")
    )


def completion(request: ChatRequestView, reply: Reply) -> dict[str, Any]:
    """Make the body of a whole reply."""
    message: dict[str, Any] = {"role": "assistant", "content": reply.text}
    if reply.reasoning:
        message["reasoning_content"] = reply.reasoning
    choice = {"index": 0, "message": message, "finish_reason": reply.finish_reason}
    body = {**_envelope(request, "chat.completion"), "choices": [choice]}
    usage = _usage(request, reply)
    return body if usage is None else {**body, "usage": usage}


def stream_events(request: ChatRequestView, reply: Reply) -> Iterator[bytes]:
    """Make the server-sent events of a streamed reply."""
    envelope = _envelope(request, "chat.completion.chunk")

    def event(delta: Mapping[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return b"data: " + json.dumps({**envelope, "choices": [choice]}).encode() + b"\n\n"

    yield event({"role": "assistant"})
    for key, text in (("reasoning_content", reply.reasoning), ("content", reply.text or "")):
        for start in range(0, len(text), STREAM_PIECE_CHARS):
            yield event({key: text[start : start + STREAM_PIECE_CHARS]})
    yield event({}, reply.finish_reason)
    usage = _usage(request, reply)
    options = cast("dict[str, Any]", request.params.get("stream_options") or {})
    if usage is not None and options.get("include_usage"):
        yield b"data: " + json.dumps({**envelope, "choices": [], "usage": usage}).encode() + b"\n\n"
    yield b"data: [DONE]\n\n"


def _envelope(request: ChatRequestView, kind: str) -> dict[str, Any]:
    number = f"chatcmpl-{request.number}"
    return {"id": number, "object": kind, "created": 1, "model": request.model}


def tokens_of(request: ChatRequestView, reply: Reply) -> tuple[int, int]:
    """Return the tokens in and out that a reply tells."""
    if isinstance(reply.usage, tuple):
        return reply.usage
    asked = sum(len(str(message.get("content", ""))) for message in request.messages)
    return asked // 4, len(reply.text or "") // 4


def _usage(request: ChatRequestView, reply: Reply) -> dict[str, int] | None:
    if reply.usage is None:
        return None
    given, made = tokens_of(request, reply)
    return {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}
