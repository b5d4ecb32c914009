"""A question to a model and its answer: the seam between the engine and any provider."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

CHARS_PER_TOKEN = 4

OnDelta = Callable[[str], Awaitable[None]]


def estimate_tokens(chars: int) -> int:
    """Guess tokens from characters, four to one."""
    return -(-chars // CHARS_PER_TOKEN)


@dataclass(frozen=True)
class ChatReply:
    """What a model answered.

    `finish_reason` is as the provider spells it; `length` means cut. `usage_estimated` says that
    the tokens were counted by length. `reasoning` is the model's thinking where it came apart.
    """

    text: str
    finish_reason: str = "stop"
    input_tokens: int = 0
    output_tokens: int = 0
    usage_estimated: bool = False
    reasoning: str = ""


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
    """

    messages: Sequence[Mapping[str, object]]
    max_tokens: int | None = None
    temperature: float | None = None
    model: str | None = None
    on_delta: OnDelta | None = None

    @property
    def chars(self) -> int:
        """Characters of all messages."""
        return sum(len(str(message.get("content", ""))) for message in self.messages)


class ChatModel(Protocol):
    """Whatever answers chat messages."""

    async def complete(self, request: ChatRequest) -> ChatReply:
        """Answer, or raise; cancelling ends the request.

        Raises:
            ModelError: there is no answer, retries included.
        """
        ...
