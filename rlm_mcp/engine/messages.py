"""The shape of one message of a conversation with a model."""

from __future__ import annotations

from typing import Literal, TypedDict


class Message(TypedDict):
    """One message as a chat-completions endpoint takes it; `system` comes first or not at all."""

    role: Literal["system", "user", "assistant"]
    content: str
