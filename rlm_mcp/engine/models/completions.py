"""Chat completions as providers really send them: whole bodies and streams into replies."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

from rlm_mcp.engine.models.chat import BROKEN, UNENDED, ChatReply, bare_reason, is_cut
from rlm_mcp.engine.models.content import (
    calls_as_text,
    list_of,
    mapping_of,
    merged,
    parts_of,
    reasoning_of,
    text_of,
    thoughts_of,
    unlisted,
    unwrapped,
)
from rlm_mcp.engine.models.event_stream import EventStream
from rlm_mcp.engine.models.metering import CHARS_PER_TOKEN, estimate_tokens
from rlm_mcp.engine.models.problems import NoChoicesError, shortened
from rlm_mcp.errors import ModelReplyError
from rlm_mcp.text import width

# A server that counts so few tokens for so many characters did not read them all.
CUT_CHARS_PER_TOKEN = 2 * CHARS_PER_TOKEN
CUT_MIN_CHARS = 8000
GOOGLE_PREFIX = "models/"  # Google takes names with it and without
# Fields in which servers tell an error where others have a reply.
_ERROR_FIELDS = ("message", "msg", "error_msg", "error_message", "detail", "errors")
# What some servers mean with a reply of nothing that was cut: they say no word of the prompt.
_NO_ROOM = {
    "message": "the server cut the reply before its first word: the prompt fills the window",
    "code": "context_length_exceeded",
}
_STREAM_STARTS = ("data:", "event:", "id:", "retry:", ":")


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
    if text.lstrip().startswith(_STREAM_STARTS):
        return _read_unasked_stream(text, prompt_chars)
    try:
        data, end = json.JSONDecoder().raw_decode(text, len(text) - len(text.lstrip()))
    except (ValueError, RecursionError) as error:
        raise ModelReplyError(f"The reply is not JSON: {shortened(text)}.") from error
    if text[end:].lstrip().startswith("{"):  # pieces of a stream, one a line
        return _read_unasked_stream(text, prompt_chars)
    return read_decoded(data, prompt_chars)


def read_decoded(data: object, prompt_chars: int) -> ChatReply:
    """Read a whole reply whose JSON is decoded.

    Raises:
        ErrorInReplyError: it is an error.
        ModelReplyError: it is not a chat completion.
    """
    if isinstance(data, str):
        raise ModelReplyError(f"The reply is not JSON: {shortened(data)}.")
    completion = unwrapped(unlisted(data))
    if problem := _problem_in(completion):
        raise ErrorInReplyError(problem)
    choices = completion.get("choices")
    if not isinstance(choices, list) or not choices:
        raise NoChoicesError(f"The reply has no choices: {shortened(json.dumps(data))}.")
    parts = ReplyParts(prompt_chars)
    parts.add_choice(merged(cast("list[object]", choices)), "message")
    parts.add_usage(completion.get("usage"))
    return parts.reply()


class ReplyParts:
    """A reply that is put together, in one piece or from the chunks of a stream."""

    def __init__(self, prompt_chars: int) -> None:
        self._prompt_chars = prompt_chars
        self._texts: list[str] = []
        self._reasoning: list[str] = []
        self._refusal: list[str] = []
        self._calls: list[dict[str, str]] = []
        self._open_calls: dict[int, tuple[str, dict[str, str]]] = {}  # with their ids, by index
        self._finish_reason = ""
        self._usage: Mapping[str, Any] = {}

    def add_choice(self, choice: Mapping[str, Any], name: str) -> str:
        """Add a choice with a whole message or the delta of one; returns the text in it.

        Raises:
            ErrorInReplyError: it broke off.
        """
        if problem := choice.get("error"):
            raise ErrorInReplyError(problem)
        message = choice.get(name) or choice.get("message" if name == "delta" else "delta")
        message = {"content": message} if isinstance(message, str) else message
        text = self._add_message(mapping_of(message or {"content": choice.get("text")}))
        if usage := choice.get("usage"):
            self.add_usage(usage)
        told = choice.get("finish_reason") or choice.get("finish_details")
        if reason := told or choice.get("stop_reason"):
            self._add_reason(reason)
        return text

    def _add_reason(self, told: object) -> None:
        reason = mapping_of(told).get("type", told)  # some servers have an object
        if not isinstance(reason, str) or bare_reason(reason) in UNENDED:
            return
        self._finish_reason = reason
        if bare_reason(reason) in BROKEN:
            raise ErrorInReplyError({"message": f"the reply ended with {reason!r}"})

    def add_chunk(self, chunk: object) -> str:
        """Add one event of a stream; returns the text in it.

        Raises:
            ErrorInReplyError: it is an error.
        """
        data = unlisted(chunk)
        if problem := _problem_in(data):
            raise ErrorInReplyError(problem)
        text = ""
        for choice in cast("list[Any]", data.get("choices") or [])[:1]:
            text = self.add_choice(mapping_of(choice), "delta")
        if "x_groq" in data:
            self.add_usage(mapping_of(data["x_groq"]).get("usage"))
        self.add_usage(data.get("usage"))
        return text

    def add_events(self, chunks: Iterable[object]) -> Iterator[str]:
        """Add events of a stream; returns the texts in them that are not empty."""
        for chunk in chunks:
            if text := self.add_chunk(chunk):
                yield text

    def add_usage(self, usage: object) -> None:
        """Note what the reply cost, where that is said."""
        if usage and isinstance(usage, Mapping):
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
        """Make the reply of what has arrived.

        Raises:
            ErrorInReplyError: the prompt left no room for a reply.
        """
        text, reasoning = _whole(self._texts), _whole(self._reasoning)
        reason = self._finish_reason or "stop"
        if not text and self._calls:
            text = calls_as_text(self._calls)
        if not text and any(self._refusal):
            text, reason = _whole(self._refusal), "refusal"
        if is_cut(reason):
            reason = "length"
        given = _count(self._usage, "prompt_tokens", "input_tokens")
        made = _made(self._usage, given)
        is_full = self._prompt_chars >= CUT_MIN_CHARS and not (text or reasoning or made)
        if reason == "length" and is_full:
            raise ErrorInReplyError(_NO_ROOM)
        return ChatReply(
            text,
            reason,
            estimate_tokens(self._prompt_chars) if given is None else given,
            estimate_tokens(width(text) + width(reasoning)) if made is None else made,
            given is None or made is None,
            reasoning,
            cached_input_tokens=min(_cached(self._usage), given or 0),
            told_usd=_told_usd(self._usage),
            is_prompt_cut=self._is_prompt_cut(given),
        )

    def _add_message(self, message: Mapping[str, Any]) -> str:
        content = message.get("content")
        text = content if isinstance(content, str) else text_of(content)
        self._texts.append(text)
        thoughts = ""
        if isinstance(content, list):
            parts = cast("list[Any]", content)
            thoughts = thoughts_of(parts)
            self._refusal.append(parts_of(parts, "refusal"))
        self._reasoning.append(thoughts or reasoning_of(message))
        if refusal := message.get("refusal"):
            self._refusal.append(text_of(refusal))
        if calls := message.get("tool_calls"):
            for place, call in enumerate(list_of(calls) or [calls]):
                self._add_call(place, mapping_of(call))
        if message.get("function_call"):  # as tools were called before there were several
            self._add_call(0, {"function": message["function_call"]})
        return text

    def _add_call(self, place: int, call: Mapping[str, Any]) -> None:
        index = call.get("index")
        # Of a tool with free text; and some servers leave the object in between out.
        function = mapping_of(call.get("function") or call.get("custom") or call)
        index = index if isinstance(index, int) else place
        name, given = str(function.get("name") or ""), str(call.get("id") or "")
        number, known = self._open_calls.get(index, ("", None))
        # Some servers give all calls of a stream one index, or none: a new id is a new call.
        if known is None or (name and given not in {"", number}):
            known = {"name": "", "arguments": ""}
            self._open_calls[index] = (given, known)
            self._calls.append(known)
        known["name"] = known["name"] or name
        arguments = function.get("arguments") or function.get("input") or ""
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
    named = [str(fields["id"]) for fields in map(mapping_of, models) if "id" in fields]
    return [name.removeprefix(GOOGLE_PREFIX) for name in named]


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


def _problem_in(data: Mapping[str, Any]) -> object:
    """Return the error that an answer holds in place of a reply, however it is written."""
    problem: object = data.get("error")
    is_void = isinstance(problem, dict) and not any(mapping_of(cast("object", problem)).values())
    if problem and not is_void:
        return cast("object", problem)
    if data.get("choices"):
        return None
    told = mapping_of(data.get("base_resp"))  # MiniMax's
    if told.get("status_code"):
        return told
    is_told = any(data.get(name) for name in _ERROR_FIELDS)
    return data if is_told else None


def _count(usage: Mapping[str, Any], *names: str) -> int | None:
    """Read a count of tokens; zero is what servers say that do not count."""
    return next((count for name in names if (count := count_of(usage.get(name))) > 0), None)


def count_of(value: object) -> int:
    """Return what is a count above 0; 0 in place of anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _made(usage: Mapping[str, Any], given: int | None) -> int | None:
    """Read the tokens of a reply; where thinking is in the total alone, it is added."""
    made = _count(usage, "completion_tokens", "output_tokens")
    rest = count_of(usage.get("total_tokens")) - given if given else 0
    return rest if rest > (made or 0) else made  # Google's and xAI's


def _cached(usage: Mapping[str, Any]) -> int:
    """Read how many input tokens came out of the provider's cache."""
    details = mapping_of(usage.get("prompt_tokens_details") or usage.get("input_tokens_details"))
    told = (details.get("cached_tokens"), usage.get("prompt_cache_hit_tokens"))  # DeepSeek's
    return max(map(count_of, (*told, usage.get("cached_tokens"))))  # and Moonshot's


def _told_usd(usage: Mapping[str, Any]) -> float | None:
    """Read what the call cost in USD, where the provider says so (OpenRouter's `usage.cost`)."""
    cost = usage.get("cost")
    if isinstance(cost, bool) or not isinstance(cost, (int, float)):
        return None
    return float(cost) if math.isfinite(cost) and cost > 0 else None
