"""A question to a model and its answer: the seam between the engine and any provider."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from rlm_mcp.text import width

WHOLE = frozenset(
    [
        "stop",
        "end_turn",
        "stop_sequence",
        "eos",
        "eos_token",
        "tool_calls",
        "tool_use",
        "function_call",
        "complete",
        "completed",
        "finished",
        "finish",
        "done",
        "end",
        "end_id",
        "endoftext",
        "end_of_text",
        "normal",
        "stop_words",
        "stop_criteria_met",
        "stop_token",
        "stopped",
        "success",
        "tool_call",
        "eos_found",
        "im_end",
        "end_of_turn",
        "end_of_sequence",
    ]
)
"""Finish reasons of replies that their models ended; any other reply may lack something."""

CUT = frozenset(
    [
        "length",
        "max_tokens",
        "max_output_tokens",
        "max_new_tokens",
        "maximum_tokens",
        "model_length",
        "max_length",
        "token_limit",
        "time_limit",
        "max_completion_tokens",
        "model_context_window_exceeded",
        "context_length_exceeded",
        "context_window_exceeded",
        "error_limit",
        "incomplete",
    ]
)
"""Finish reasons of replies that were cut at a limit."""

BROKEN = frozenset(
    [
        "error",
        "network_error",
        "upstream_error",
        "server_error",
        "abort",
        "aborted",
        "cancelled",
        "canceled",
        "user_cancel",
        "timeout",
        "unknown_error",
        "insufficient_system_resource",
        "malformed_function_call",
        "malformed_response",
        "unexpected_tool_call",
        "too_many_tool_calls",
        "missing_thought_signature",
        "engine_error",
        "failed",
    ]
)
"""Finish reasons of replies that broke off, so that another attempt may bring a whole one."""

UNENDED = frozenset({"", "null", "none", "unspecified"})
"""What some servers send as the finish reason of a reply that goes on."""


_CASES = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SIGNS = re.compile(r"[^a-z0-9:]+")
_NAMED_FIRST = re.compile(r"^(?:finish_reason_|function_call_filter: ?_?)")


def bare_reason(reason: str) -> str:
    """Write a finish reason in lower case, without the enum or the filter that it names first.

    `FinishReason.STOP`, `FINISH_REASON_MAX_TOKENS`, `maxTokens`, `stop-sequence`,
    `function_call_filter: UNEXPECTED_TOOL_CALL`.
    """
    bare = _SIGNS.sub("_", _CASES.sub("_", reason.strip()).lower()).strip("_")
    return _NAMED_FIRST.sub("", bare)


def is_cut(reason: str) -> bool:
    """Whether a finish reason says that a reply was cut at a limit."""
    bare = bare_reason(reason)
    words = set(bare.split("_"))
    is_limit = {"max", "tokens"} <= words or {"token", "limit"} <= words or "length" in words
    return bare in CUT or is_limit


OnDelta = Callable[[str], Awaitable[None]]


@dataclass(frozen=True)
class CallTiming:
    """How long a reply took: `seconds` in all, of which `queued_seconds` before it was sent.

    `first_token_seconds` is known of streamed replies; `retries` counts requests that failed.
    """

    seconds: float = 0.0
    queued_seconds: float = 0.0
    first_token_seconds: float | None = None
    retries: int = 0


@dataclass(frozen=True)
class ChatReply:
    """What a model answered.

    Args:
        text: the reply.
        finish_reason: `stop` where it is whole, `length` where it was cut; else as the provider
            spells it.
        input_tokens: of the prompt, those out of a cache included.
        output_tokens: of the reply, its thinking included.
        usage_estimated: whether the tokens were counted by length, since the provider did not.
        reasoning: the model's thinking, where it came apart from the text.
        cached_input_tokens: of the prompt, what came out of the provider's cache.
        cache_written_tokens: of the prompt, what the provider put into its cache.
        told_usd: what the call cost, where the provider says so.
        is_prompt_cut: whether the provider read only a part of the prompt, as its count tells.
        model: name of the model that answered; empty where models have no names.
        cost_usd: what the run's budget was charged, where that is known.
    """

    text: str
    finish_reason: str = "stop"
    input_tokens: int = 0
    output_tokens: int = 0
    usage_estimated: bool = False
    reasoning: str = ""
    cached_input_tokens: int = 0
    cache_written_tokens: int = 0
    told_usd: float | None = None
    is_prompt_cut: bool = False
    model: str = ""
    cost_usd: float | None = None
    timing: CallTiming = field(default=CallTiming(), compare=False)

    @property
    def is_whole(self) -> bool:
        """Whether the model ended the reply by itself."""
        return bare_reason(self.finish_reason) in WHOLE


def describe_cut_prompt(reply: ChatReply, prompt_chars: int) -> str:
    """Say that the provider read only a part of a prompt, and what to do about it."""
    return (
        f"The model read only a part of the prompt: the server counted {reply.input_tokens:,} "
        f"tokens of {prompt_chars:,} characters. Its context window is smaller than the prompt, "
        "and it cuts prompts short without an error. Raise its context length (Ollama: num_ctx or "
        "OLLAMA_CONTEXT_LENGTH), or set root_context_tokens."
    )


@dataclass(frozen=True)
class ChatRequest:
    """One question to a model.

    Args:
        messages: `{"role": …, "content": …}` in order.
        max_tokens: longest reply, in tokens; None leaves it to the provider.
        temperature: None is not sent.
        model: another model of the same endpoint; None is the one that is asked.
        on_delta: awaited with each piece of text as it arrives; `""` says that the stream broke
            and begins again.
        conversation: name of the one that the messages belong to, by which a provider finds the
            prompt it has read before; empty for a single question.
        reply_schema: JSON Schema that the reply must fit, for providers that see to it; others
            answer as they are asked in words.
    """

    messages: Sequence[Mapping[str, object]]
    max_tokens: int | None = None
    temperature: float | None = None
    model: str | None = None
    on_delta: OnDelta | None = None
    conversation: str = ""
    reply_schema: Mapping[str, Any] | None = None

    @property
    def chars(self) -> int:
        """Characters of all messages."""
        return sum(len(str(message.get("content", ""))) for message in self.messages)

    @property
    def width(self) -> int:
        """The length of all messages, in characters of English that take as many tokens."""
        return sum(width(str(message.get("content", ""))) for message in self.messages)


class ChatModel(Protocol):
    """Whatever answers chat messages."""

    async def complete(self, request: ChatRequest) -> ChatReply:
        """Answer, or raise; cancelling ends the request.

        Raises:
            ModelError: there is no answer, retries included.
        """
        ...
