"""Anthropic's Messages API through the `anthropic` package, with marks for its prompt cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from rlm_mcp.engine.models.addresses import base_of
from rlm_mcp.engine.models.chat import ChatReply
from rlm_mcp.engine.models.completions import ErrorInReplyError, count_of, mapping_of
from rlm_mcp.engine.models.http_provider import Provider
from rlm_mcp.engine.models.metering import estimate_tokens
from rlm_mcp.engine.models.native.wire import NO_KEY, Dialect, Package
from rlm_mcp.errors import ConfigurationError, ModelReplyError
from rlm_mcp.text import width

USUAL_MAX_TOKENS = 4096  # what every model may write; a limit must be sent
MARK = {"type": "ephemeral"}
_CUT = frozenset({"max_tokens", "model_context_window_exceeded"})


def load(provider: Provider) -> Package:
    """Make a client of the package; blocking.

    Raises:
        ConfigurationError: the package is not installed.
    """
    try:
        import anthropic  # noqa: PLC0415  # an extra, and heavy
    except ImportError as error:
        raise ConfigurationError(
            "The package 'anthropic' is not installed, which provider = \"anthropic\" needs.",
            fix="Install it: pip install 'rlm-mcp[anthropic]'.",
        ) from error
    client = anthropic.AsyncAnthropic(
        api_key=provider.api_key or NO_KEY,
        base_url=base_of(provider.base_url).removesuffix("/v1"),
        default_headers=dict(provider.headers),
        max_retries=0,
    )
    return Package(anthropic, client)


def body_of(chat: Mapping[str, Any]) -> dict[str, Any]:
    """Make the body of a request from that of a chat completion."""
    rest = dict(chat)
    messages = cast("Sequence[Mapping[str, str]]", rest.pop("messages"))
    most = rest.pop("max_tokens", None)
    later = rest.pop("max_completion_tokens", None)  # asked for once `max_tokens` was refused
    rest.pop("stream_options", None)
    effort = rest.pop("reasoning_effort", None)
    form = rest.pop("response_format", None)
    body: dict[str, Any] = {
        "model": rest.pop("model"),
        "max_tokens": most or min(later or USUAL_MAX_TOKENS, USUAL_MAX_TOKENS),
        "messages": [_message(one) for one in messages if one["role"] != "system"],
    }
    if system := [one["content"] for one in messages if one["role"] == "system"]:
        body["system"] = [_block(text) for text in system]
    if effort:
        body["output_config"] = {"effort": effort}
    if form:
        schema = _closed(form["json_schema"]["schema"])
        wanted = {"format": {"type": "json_schema", "schema": schema}}
        body["output_config"] = {**body.get("output_config", {}), **wanted}
    if rest.get("temperature") is not None:
        rest["temperature"] = min(1.0, rest["temperature"])
    _mark(body)
    return {**body, **rest}


def _closed(schema: Any) -> Any:
    """Copy a schema whose objects have no keys beside those that are named: others are refused."""
    if isinstance(schema, list):
        return [_closed(part) for part in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    parts = {name: _closed(part) for name, part in cast("dict[str, Any]", schema).items()}
    is_object = parts.get("type") == "object"
    return {**parts, "additionalProperties": False} if is_object else parts


def _chat_name(name: str, body: Mapping[str, Any]) -> str:
    """Return what a refused parameter is called in chat completions."""
    if name != "output_config":
        return name
    return "response_format" if "format" in body[name] else "reasoning_effort"


def _mark(body: Mapping[str, Any]) -> None:
    """Mark where this turn's prefix ends and where that of the turn before did.

    Everything up to a mark is read from the cache by the next request that begins with the same, at
    a tenth of the price; to put it there costs a quarter more. So a request with one message, as
    sub-calls are, has no marks.
    """
    asked = [one for one in body["messages"] if one["role"] == "user"]
    if "system" not in body and len(asked) < 2:
        return
    for message in asked[-2:]:
        message["content"][-1]["cache_control"] = MARK


def _message(one: Mapping[str, str]) -> dict[str, Any]:
    return {"role": one["role"], "content": [_block(one["content"])]}


def _block(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text if text.strip() else "…"}  # an empty one is refused


class MessagesReader:
    """Reads one reply; see `wire.Reader`."""

    def __init__(self, prompt_chars: int) -> None:
        self._prompt_chars = prompt_chars
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._usage: dict[str, Any] = {}
        self._reason = ""
        self._is_done = False

    def read(self, data: object) -> ChatReply:
        """Read a whole reply."""
        message = mapping_of(data)
        if problem := message.get("error"):
            raise ErrorInReplyError(problem)
        if not isinstance(message.get("content"), list):
            raise ModelReplyError(f"The reply has no content: {str(message)[:200]}.")
        for block in message["content"]:
            self._add_block(mapping_of(block))
        self._end(message)
        return self._reply()

    def add(self, event: object) -> str:
        """Add one event of a stream; returns the text in it."""
        data = mapping_of(event)
        kind = data.get("type")
        if data.get("error"):
            raise ErrorInReplyError(data["error"])
        if kind == "message_start":
            self._usage |= mapping_of(mapping_of(data.get("message")).get("usage"))
        elif kind in {"content_block_start", "content_block_delta"}:
            return self._add_block(mapping_of(data.get("content_block") or data.get("delta")))
        elif kind == "message_delta":
            self._end({**mapping_of(data.get("delta")), "usage": data.get("usage")})
        elif kind == "message_stop":
            self._is_done = True
        return ""

    def ended(self) -> ChatReply:
        """Make the reply of a stream that has ended."""
        if not self._is_done:
            raise ModelReplyError("The stream ended before the reply did.")
        return self._reply()

    def _add_block(self, block: Mapping[str, Any]) -> str:
        thought, text = block.get("thinking"), block.get("text")
        if isinstance(thought, str):
            self._thoughts.append(thought)
        if not isinstance(text, str):
            return ""
        self._texts.append(text)
        return text

    def _end(self, message: Mapping[str, Any]) -> None:
        self._usage |= {k: v for k, v in mapping_of(message.get("usage")).items() if v is not None}
        self._reason = str(message.get("stop_reason") or self._reason)

    def _reply(self) -> ChatReply:
        text, thought = "".join(self._texts), "".join(self._thoughts)
        cached = count_of(self._usage.get("cache_read_input_tokens"))
        written = count_of(self._usage.get("cache_creation_input_tokens"))
        given = count_of(self._usage.get("input_tokens")) + cached + written
        made = count_of(self._usage.get("output_tokens"))
        return ChatReply(
            text,
            "length" if self._reason in _CUT else self._reason or "stop",
            given or estimate_tokens(self._prompt_chars),
            made or estimate_tokens(width(text) + width(thought)),
            not (given and made),
            thought,
            cached_input_tokens=cached,
            cache_written_tokens=written,
        )


MESSAGES = Dialect(
    "/v1/messages",
    body_of,
    MessagesReader,
    _chat_name,
)
