"""Chat completions as providers really send them: bodies into replies, error bodies into errors."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from rlm_mcp.engine.models.chat import ChatReply, estimate_tokens
from rlm_mcp.engine.models.retry import Diagnosis
from rlm_mcp.errors import (
    ContextLengthError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelError,
    ModelRateLimitError,
    ModelReplyError,
    ModelRequestError,
)

QUOTED_CHARS = 500

_TOO_LONG = re.compile(
    r"context.?(length|window|size)|exceeds? the (available )?context|prompt is too long"
    r"|too many (input )?tokens|input is too long|maximum (input|prompt) length",
    re.IGNORECASE,
)


def read_completion(body: bytes | bytearray | str, prompt_chars: int) -> ChatReply:
    """Read the body of a whole reply.

    Raises:
        ModelReplyError: it is not a chat completion.
    """
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ModelReplyError(f"The reply is not JSON: {_quoted(body)}.") from error
    return read_decoded(data, prompt_chars)


def read_decoded(data: object, prompt_chars: int) -> ChatReply:
    """Read a whole reply whose JSON is decoded.

    Raises:
        ModelReplyError: it is not a chat completion.
    """
    if isinstance(data, str):
        raise ModelReplyError(f"The reply is not JSON: {_quoted(data)}.")
    completion = _mapping(data)
    if problem := completion.get("error"):
        raise ModelReplyError(f"The reply holds an error: {_quoted(json.dumps(problem))}.")
    choices = completion.get("choices")
    if not isinstance(choices, list) or not choices:
        raise ModelReplyError(f"The reply has no choices: {_quoted(json.dumps(data))}.")
    choice = _mapping(cast("list[Any]", choices)[0])
    message = _mapping(choice.get("message"))
    parts = ReplyParts(prompt_chars)
    if not parts.add_message(message):
        parts.add_message({"content": _calls_as_text(message.get("tool_calls"))})
    parts.add_end(choice.get("finish_reason"), completion.get("usage"))
    return parts.reply()


class ReplyParts:
    """A reply that is put together, in one piece or from the chunks of a stream."""

    def __init__(self, prompt_chars: int) -> None:
        self._prompt_chars = prompt_chars
        self._texts: list[str] = []
        self._reasoning: list[str] = []
        self._finish_reason = ""
        self._usage: Mapping[str, Any] = {}

    def add_message(self, message: Mapping[str, Any]) -> str:
        """Add a message or the delta of one; returns the text in it."""
        text = _text_of(message.get("content"))
        self._texts.append(text)
        self._reasoning.append(
            _text_of(message.get("reasoning_content")) or _text_of(message.get("reasoning"))
        )
        return text

    def add_chunk(self, chunk: object) -> str:
        """Add one event of a stream; returns the text in it."""
        data = _mapping(chunk)
        text = ""
        for choice in cast("list[Any]", data.get("choices") or [])[:1]:
            text = self.add_message(_mapping(_mapping(choice).get("delta")))
            self.add_end(_mapping(choice).get("finish_reason"), None)
        self.add_end(None, data.get("usage"))
        return text

    def add_events(self, chunks: Iterable[object]) -> Iterator[str]:
        """Add events of a stream; gives the texts in them that are not empty."""
        for chunk in chunks:
            if text := self.add_chunk(chunk):
                yield text

    def add_end(self, finish_reason: object, usage: object) -> None:
        """Note how the reply ended and what it cost, where that was said."""
        if isinstance(finish_reason, str):
            self._finish_reason = finish_reason
        if isinstance(usage, Mapping):
            self._usage = cast("Mapping[str, Any]", usage)

    def ended_reply(self) -> ChatReply:
        """Make the reply of a stream that has ended.

        Raises:
            ModelReplyError: it broke off: no finish reason has arrived.
        """
        if not self._finish_reason:
            raise ModelReplyError("The stream ended without a finish reason.")
        return self.reply()

    def reply(self) -> ChatReply:
        """Make the reply of what has arrived."""
        text, reasoning = _whole(self._texts), _whole(self._reasoning)
        given, made = _count(self._usage, "prompt_tokens"), _count(self._usage, "completion_tokens")
        is_estimated = given is None or made is None
        if given is None:
            given = estimate_tokens(self._prompt_chars)
        if made is None:
            made = estimate_tokens(len(text) + len(reasoning))
        finish_reason = self._finish_reason or "stop"
        return ChatReply(text, finish_reason, given, made, is_estimated, reasoning)


def as_json(text: str) -> object:
    """Decode JSON; returns the text as it is where it is none."""
    with suppress(ValueError, RecursionError):
        return json.loads(text)
    return text


def read_model_names(body: bytes) -> list[str]:
    """Read the names in a list of models; none where the body is something else."""
    try:
        listed = _mapping(json.loads(body)).get("data")
    except ValueError:
        return []
    models = cast("list[object]", listed) if isinstance(listed, list) else []
    return [str(fields["id"]) for fields in map(_mapping, models) if "id" in fields]


def diagnose_status(
    status: int, body: object, retry_after_seconds: float | None, sent: Sequence[str]
) -> Diagnosis:
    """Say what an error status means.

    Args:
        status: the HTTP status, 400 and more.
        body: the error as decoded JSON, or text.
        retry_after_seconds: what the header asked for.
        sent: names of the optional parameters that were in the request.
    """
    problem = _Problem.of(body)
    said = f"The model endpoint answered {status}: {problem.message}"
    if status in {400, 413, 422}:
        return _diagnose_request(said, problem, sent)
    if status in {401, 403}:
        fix = "Set RLM_MCP_API_KEY (or OPENAI_API_KEY), or give the client a valid key."
        return Diagnosis(ModelAuthenticationError(said, fix=fix))
    if problem.code == "insufficient_quota":
        return Diagnosis(ModelRateLimitError(said, fix="Add credit at the provider."))
    if status == 429:
        error = ModelRateLimitError(said, fix="Lower RLM_MCP_MAX_CONCURRENT_CALLS, or ask later.")
        return Diagnosis(error, "yes", retry_after_seconds, is_crowded=True)
    if status in {408, 409} or status >= 500:
        unavailable = ModelConnectionError(said, fix="Ask again later.")
        is_crowded = status == 503 and retry_after_seconds is not None
        return Diagnosis(unavailable, "yes", retry_after_seconds, is_crowded)
    fix = "Check the names of the models and RLM_MCP_BASE_URL." if status == 404 else ""
    return Diagnosis(ModelRequestError(said, fix=fix))


@dataclass(frozen=True)
class _Problem:
    message: str
    code: str = ""
    parameter: str = ""

    @classmethod
    def of(cls, body: object) -> _Problem:
        data = _mapping(body)
        inner = data.get("error", data)
        if not isinstance(inner, Mapping):
            return cls(_quoted(str(inner or body)))
        fields = cast("Mapping[str, Any]", inner)
        code = fields.get("code") if isinstance(fields.get("code"), str) else fields.get("type")
        message = fields.get("message") or (json.dumps(body) if data else body)
        return cls(_quoted(str(message)), str(code or ""), str(fields.get("param") or ""))


def _diagnose_request(said: str, problem: _Problem, sent: Sequence[str]) -> Diagnosis:
    is_too_long = problem.code in {"context_length_exceeded", "exceed_context_size_error"} or bool(
        _TOO_LONG.search(problem.message)
    )
    error: ModelError = ModelRequestError(said)
    if is_too_long:
        error = ContextLengthError(said, fix="Send a shorter prompt.")
    refused = next((name for name in sent if _is_about(problem, name, is_too_long)), None)
    return Diagnosis(error, refused_parameter=refused)


def _is_about(problem: _Problem, name: str, is_too_long: bool) -> bool:
    if problem.parameter == name or re.search(rf"\b{name}\b", problem.message):
        return True
    # OpenAI counts the room kept for the reply: "3616 in the messages, 16384 in the completion".
    return is_too_long and name.startswith("max_") and "in the completion" in problem.message


def _whole(pieces: Sequence[str]) -> str:
    """Join pieces; halves of a surrogate pair become one, a lone half becomes U+FFFD."""
    text = "".join(pieces)
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _text_of(content: object) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):  # parts, as multimodal providers send them
        return "".join(_text_of(_mapping(part).get("text")) for part in cast("list[Any]", content))
    return ""


def _calls_as_text(calls: object) -> str:
    """Write native tool calls as models write them in text, so that one parser reads both."""
    if not isinstance(calls, list):
        return ""
    functions = [_mapping(call).get("function") for call in cast("list[Any]", calls)]
    return "\n".join(f"<tool_call>{json.dumps(function)}</tool_call>" for function in functions)


def _count(usage: Mapping[str, Any], name: str) -> int | None:
    value = usage.get(name)
    return value if isinstance(value, int) and value >= 0 else None


def _quoted(body: bytes | bytearray | str) -> str:
    text = body.decode("utf-8", "replace") if isinstance(body, (bytes, bytearray)) else body
    return text if len(text) <= QUOTED_CHARS else f"{text[:QUOTED_CHARS]}…"


DONE = "[DONE]"


class EventStream:
    """Turns the bytes of a body, in pieces of any size, into what its events hold.

    `is_done` says that the provider has said so, whatever may follow.
    """

    def __init__(self) -> None:
        self.is_done = False
        self._begun: list[bytes] = []  # pieces of a line, which may be long
        self._data: list[str] = []

    def feed(self, piece: bytes) -> Iterator[object]:
        """Give the JSON of each event that ends in this piece.

        Raises:
            ModelReplyError: an event is not JSON, or holds an error.
        """
        first, *others = piece.split(b"\n")
        self._begun.append(first)
        for other in others:
            line, self._begun = b"".join(self._begun), [other]
            yield from self._line(line.removesuffix(b"\r").decode("utf-8", "replace"))

    def end(self) -> Iterator[object]:
        """Give the JSON of an event that the end of the body cut short."""
        for line in (b"".join(self._begun).decode("utf-8", "replace"), ""):
            yield from self._line(line)

    def _line(self, line: str) -> Iterator[object]:
        if line.startswith("data:"):
            self._data.append(line.removeprefix("data:").removeprefix(" "))
        elif not line and self._data:
            event, self._data = "\n".join(self._data), []
            self.is_done = self.is_done or event.startswith(DONE)
            if not self.is_done:
                yield _parsed(event)


def _parsed(event: str) -> object:
    try:
        chunk = json.loads(event)
    except (ValueError, RecursionError) as error:
        raise ModelReplyError(f"The stream holds what is not JSON: {event[:200]!r}.") from error
    if isinstance(chunk, Mapping):
        problem = cast("Mapping[str, object]", chunk).get("error")
        if problem:
            raise ModelReplyError(f"The stream holds an error: {json.dumps(problem)[:500]}.")
    return cast("object", chunk)
