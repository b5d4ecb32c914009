"""Chat completions as providers really send them: whole bodies and streams into replies."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

from rlm_mcp.engine.models.chat import ChatReply
from rlm_mcp.engine.models.event_stream import EventStream
from rlm_mcp.engine.models.metering import CHARS_PER_TOKEN, estimate_tokens
from rlm_mcp.engine.models.problems import shortened
from rlm_mcp.errors import ModelReplyError

_CUT = frozenset(
    [
        "length",
        "max_tokens",
        "max_output_tokens",
        "model_length",
        "max_length",
        "token_limit",
        "max_completion_tokens",
        "model_context_window_exceeded",
        "incomplete",
    ]
)
_BROKEN = frozenset(
    [
        "error",
        "network_error",
        "upstream_error",
        "abort",
        "aborted",
        "cancelled",
        "canceled",
        "timeout",
        "unknown_error",
        "insufficient_system_resource",
        "malformed_function_call",
        "engine_error",
        "failed",
    ]
)
# A server that counts so few tokens for so many characters did not read them all.
CUT_CHARS_PER_TOKEN = 2 * CHARS_PER_TOKEN
CUT_MIN_CHARS = 8000


class ErrorInReplyError(ModelReplyError):
    """An answer that says it is fine holds an error; `body` is that error."""

    def __init__(self, body: object) -> None:
        super().__init__(f"The reply holds an error: {shortened(json.dumps(body))}.")
        self.body = body


def read_completion(body: bytes | bytearray | str, prompt_chars: int) -> ChatReply:
    """Read the body of a whole reply; also one that came as a stream which nobody asked for.

    Raises:
        ErrorInReplyError: it is an error.
        ModelReplyError: it is not a chat completion.
    """
    text = body if isinstance(body, str) else body.decode("utf-8", "replace")
    text = text.removeprefix("\ufeff")
    if text.lstrip()[:5] in {"data:", "event"}:
        return _read_unasked_stream(text, prompt_chars)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelReplyError(f"The reply is not JSON: {shortened(text)}.") from error
    return read_decoded(data, prompt_chars)


def read_decoded(data: object, prompt_chars: int) -> ChatReply:
    """Read a whole reply whose JSON is decoded.

    Raises:
        ErrorInReplyError: it is an error.
        ModelReplyError: it is not a chat completion.
    """
    if isinstance(data, str):
        raise ModelReplyError(f"The reply is not JSON: {shortened(data)}.")
    listed = cast("list[object]", data) if isinstance(data, list) else [data]
    completion = mapping_of(next(iter(listed), None))
    if problem := completion.get("error"):
        raise ErrorInReplyError(problem)
    choices = completion.get("choices")
    if not isinstance(choices, list) or not choices:
        raise ModelReplyError(f"The reply has no choices: {shortened(json.dumps(data))}.")
    parts = ReplyParts(prompt_chars)
    parts.add_choice(mapping_of(cast("list[Any]", choices)[0]), "message")
    parts.add_usage(completion.get("usage"))
    return parts.reply()


class ReplyParts:
    """A reply that is put together, in one piece or from the chunks of a stream."""

    def __init__(self, prompt_chars: int) -> None:
        self._prompt_chars = prompt_chars
        self._texts: list[str] = []
        self._reasoning: list[str] = []
        self._refusal: list[str] = []
        self._calls: dict[int, dict[str, str]] = {}
        self._finish_reason = ""
        self._usage: Mapping[str, Any] = {}

    def add_choice(self, choice: Mapping[str, Any], name: str) -> str:
        """Add a choice with a whole message or the delta of one; returns the text in it.

        Raises:
            ErrorInReplyError: it broke off.
        """
        if problem := choice.get("error"):
            raise ErrorInReplyError(problem)
        text = self._add_message(mapping_of(choice.get(name)))
        reason = choice.get("finish_reason")
        if isinstance(reason, str) and reason:
            self._finish_reason = reason
        if self._finish_reason.lower() in _BROKEN:
            raise ErrorInReplyError({"message": f"the reply ended with {self._finish_reason!r}"})
        return text

    def add_chunk(self, chunk: object) -> str:
        """Add one event of a stream; returns the text in it.

        Raises:
            ErrorInReplyError: it is an error.
        """
        data = mapping_of(chunk)
        if problem := data.get("error"):
            raise ErrorInReplyError(problem)
        text = ""
        for choice in cast("list[Any]", data.get("choices") or [])[:1]:
            fields = mapping_of(choice)
            text = self.add_choice(fields, "delta" if "delta" in fields else "message")
        self.add_usage(data.get("usage"))
        return text

    def add_events(self, chunks: Iterable[object]) -> Iterator[str]:
        """Add events of a stream; returns the texts in them that are not empty."""
        for chunk in chunks:
            if text := self.add_chunk(chunk):
                yield text

    def add_usage(self, usage: object) -> None:
        """Note what the reply cost, where that is said."""
        if isinstance(usage, Mapping):
            self._usage = cast("Mapping[str, Any]", usage)

    def ended_reply(self, *, is_done: bool = False) -> ChatReply:
        """Make the reply of a stream that has ended.

        Args:
            is_done: whether its end mark came, which some servers send without a finish reason.

        Raises:
            ModelReplyError: it broke off.
        """
        if not self._finish_reason and not is_done:
            raise ModelReplyError("The stream ended without a finish reason.")
        return self.reply()

    def reply(self) -> ChatReply:
        """Make the reply of what has arrived."""
        text, reasoning = _whole(self._texts), _whole(self._reasoning)
        reason = self._finish_reason or "stop"
        if not text and self._calls:
            text = _calls_as_text(self._calls.values())
        if not text and any(self._refusal):
            text, reason = _whole(self._refusal), "refusal"
        if reason.lower() in _CUT:
            reason = "length"
        given = _count(self._usage, "prompt_tokens", "input_tokens")
        made = _count(self._usage, "completion_tokens", "output_tokens")
        return ChatReply(
            text,
            reason,
            estimate_tokens(self._prompt_chars) if given is None else given,
            estimate_tokens(len(text) + len(reasoning)) if made is None else made,
            given is None or made is None,
            reasoning,
            cached_input_tokens=min(_cached(self._usage), given or 0),
            told_usd=_told_usd(self._usage),
            is_prompt_cut=self._is_prompt_cut(given),
        )

    def _add_message(self, message: Mapping[str, Any]) -> str:
        text = _text_of(message.get("content"))
        self._texts.append(text)
        self._reasoning.append(
            _text_of(message.get("reasoning_content")) or _text_of(message.get("reasoning"))
        )
        self._refusal.append(_text_of(message.get("refusal")))
        calls = message.get("tool_calls")
        for place, call in enumerate(cast("list[Any]", calls) if isinstance(calls, list) else []):
            index = mapping_of(call).get("index")
            self._add_call(index if isinstance(index, int) else place, mapping_of(call))
        if message.get("function_call"):  # as tools were called before there were several
            self._add_call(0, {"function": message["function_call"]})
        return text

    def _add_call(self, index: int, call: Mapping[str, Any]) -> None:
        function = mapping_of(call.get("function"))
        known = self._calls.setdefault(index, {"name": "", "arguments": ""})
        known["name"] = known["name"] or str(function.get("name") or "")
        arguments = function.get("arguments") or ""
        known["arguments"] += arguments if isinstance(arguments, str) else json.dumps(arguments)

    def _is_prompt_cut(self, counted: int | None) -> bool:
        if counted is None or self._prompt_chars < CUT_MIN_CHARS:
            return False
        counted += count_of(self._usage.get("cache_read_input_tokens"))
        return counted * CUT_CHARS_PER_TOKEN < self._prompt_chars


def as_json(text: str) -> object:
    """Decode JSON; returns the text as it is where it is none."""
    with suppress(ValueError, RecursionError):
        return json.loads(text)
    return text


def read_model_names(body: bytes) -> list[str]:
    """Read the names in a list of models; none where the body is something else."""
    try:
        listed = mapping_of(json.loads(body)).get("data")
    except ValueError:
        return []
    models = cast("list[object]", listed) if isinstance(listed, list) else []
    return [str(fields["id"]) for fields in map(mapping_of, models) if "id" in fields]


def _read_unasked_stream(text: str, prompt_chars: int) -> ChatReply:
    parts, events = ReplyParts(prompt_chars), EventStream()
    body = text.encode("utf-8", "replace")
    for _ in parts.add_events(events.feed(body)):
        pass
    for _ in parts.add_events(events.end()):
        pass
    return parts.ended_reply(is_done=events.is_done)


def _whole(pieces: Sequence[str]) -> str:
    """Join pieces; halves of a surrogate pair become one, a lone half becomes U+FFFD."""
    text = "".join(pieces)
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def mapping_of(value: object) -> Mapping[str, Any]:
    """Return what is an object; an empty one in place of anything else."""
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _text_of(content: object) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):  # parts, as multimodal providers send them
        return "".join(
            _text_of(mapping_of(part).get("text")) for part in cast("list[Any]", content)
        )
    return ""


def _calls_as_text(calls: Iterable[Mapping[str, str]]) -> str:
    """Write native tool calls as models write them in text, so that one parser reads both."""
    return "\n".join(f"<tool_call>{json.dumps(dict(call))}</tool_call>" for call in calls)


def _count(usage: Mapping[str, Any], *names: str) -> int | None:
    """Read a count of tokens; zero is what servers say that do not count."""
    return next((count for name in names if (count := count_of(usage.get(name))) > 0), None)


def count_of(value: object) -> int:
    """Return what is a count above 0; 0 in place of anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _cached(usage: Mapping[str, Any]) -> int:
    """Read how many input tokens came out of the provider's cache."""
    details = mapping_of(usage.get("prompt_tokens_details") or usage.get("input_tokens_details"))
    told = (details.get("cached_tokens"), usage.get("prompt_cache_hit_tokens"))  # DeepSeek's
    return max(map(count_of, told))


def _told_usd(usage: Mapping[str, Any]) -> float | None:
    """Read what the call cost in USD, where the provider says so (OpenRouter's `usage.cost`)."""
    cost = usage.get("cost")
    if isinstance(cost, bool) or not isinstance(cost, (int, float)):
        return None
    return float(cost) if math.isfinite(cost) and cost > 0 else None
