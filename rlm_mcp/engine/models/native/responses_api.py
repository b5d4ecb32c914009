"""OpenAI's Responses API through the `openai` package, for models that have nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from rlm_mcp.engine.models.addresses import base_of, other_bases
from rlm_mcp.engine.models.chat import ChatReply
from rlm_mcp.engine.models.completions import ErrorInReplyError, count_of, mapping_of
from rlm_mcp.engine.models.http_provider import Provider
from rlm_mcp.engine.models.metering import estimate_tokens
from rlm_mcp.engine.models.native.wire import NO_KEY, Dialect, Package
from rlm_mcp.errors import ModelReplyError
from rlm_mcp.text import width

_ENDED = frozenset({"response.completed", "response.incomplete", "response.failed"})


def load(provider: Provider) -> Package:
    """Make a client of the package; blocking."""
    import openai  # noqa: PLC0415  # heavy

    base = base_of(provider.base_url)
    client = openai.AsyncOpenAI(
        api_key=provider.api_key or NO_KEY,
        base_url=next(iter(other_bases(base)), base),
        default_headers=dict(provider.headers),
        max_retries=0,
    )
    return Package(openai, client)


def body_of(chat: Mapping[str, Any]) -> dict[str, Any]:
    """Make the body of a request from that of a chat completion; the provider keeps nothing."""
    rest = dict(chat)
    most = rest.pop("max_tokens", None) or rest.pop("max_completion_tokens", None)
    rest.pop("stream_options", None)
    effort = rest.pop("reasoning_effort", None)
    form = rest.pop("response_format", None)
    body: dict[str, Any] = {
        "model": rest.pop("model"),
        "input": rest.pop("messages"),
        "store": False,
    }
    if most:
        body["max_output_tokens"] = most
    if effort:
        body["reasoning"] = {"effort": effort}
    if form:
        body["text"] = {"format": {"type": "json_schema", **form["json_schema"]}}
    return {**body, **rest}


class ResponsesReader:
    """Reads one reply; see `wire.Reader`."""

    def __init__(self, prompt_chars: int) -> None:
        self._prompt_chars = prompt_chars
        self._end: object = None

    def read(self, data: object) -> ChatReply:
        """Read a whole reply."""
        response = mapping_of(data)
        if problem := response.get("error"):
            raise ErrorInReplyError(problem)
        if not isinstance(response.get("output"), list):
            raise ModelReplyError(f"The reply has no output: {str(response)[:200]}.")
        return self._reply(response)

    def add(self, event: object) -> str:
        """Add one event of a stream; returns the text in it."""
        data = mapping_of(event)
        kind = data.get("type")
        if kind == "error" or data.get("error"):
            raise ErrorInReplyError(data.get("error") or data)
        if kind in _ENDED:
            self._end = data.get("response")
        is_text = kind in {"response.output_text.delta", "response.refusal.delta"}
        return str(data.get("delta") or "") if is_text else ""

    def ended(self) -> ChatReply:
        """Make the reply of a stream that has ended."""
        if self._end is None:
            raise ModelReplyError("The stream ended before the reply did.")
        return self.read(self._end)

    def _reply(self, response: Mapping[str, Any]) -> ChatReply:
        said: dict[str, list[str]] = {"output_text": [], "refusal": [], "summary_text": []}
        for item in map(mapping_of, response["output"]):
            for part in map(mapping_of, (*_list(item, "content"), *_list(item, "summary"))):
                text = part.get("text") or part.get("refusal") or ""
                said.setdefault(str(part.get("type")), []).append(str(text))
        text, thought = "".join(said["output_text"]), "\n".join(said["summary_text"])
        refusal = "".join(said["refusal"])
        usage = mapping_of(response.get("usage"))
        cached = count_of(mapping_of(usage.get("input_tokens_details")).get("cached_tokens"))
        given, made = count_of(usage.get("input_tokens")), count_of(usage.get("output_tokens"))
        return ChatReply(
            text or refusal,
            "refusal" if refusal and not text else _reason(response),
            given or estimate_tokens(self._prompt_chars),
            made or estimate_tokens(width(text) + width(thought)),
            not (given and made),
            thought,
            cached_input_tokens=cached,
        )


def _reason(response: Mapping[str, Any]) -> str:
    if response.get("status") != "incomplete":
        return "stop"
    why = str(mapping_of(response.get("incomplete_details")).get("reason") or "incomplete")
    return "length" if why in {"max_output_tokens", "incomplete"} else why


def _list(item: Mapping[str, Any], key: str) -> list[Any]:
    found = item.get(key)
    return cast("list[Any]", found) if isinstance(found, list) else []


_CHAT_NAMES = {
    "max_output_tokens": "max_tokens",
    "reasoning": "reasoning_effort",
    "text": "response_format",
}

RESPONSES = Dialect(
    "/responses",
    body_of,
    ResponsesReader,
    lambda name, _: _CHAT_NAMES.get(name, name),
)
