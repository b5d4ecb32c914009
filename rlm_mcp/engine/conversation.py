"""The root's conversation: roles alternate, and what was said stays as it was said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rlm_mcp.engine.messages import Message

LATEST_TURNS_KEPT = 2


@dataclass(frozen=True)
class Conversation:
    """Messages in order; `head` is never shortened, `turns` may be.

    Providers cache equal prefixes, so nothing that was sent is changed by what is added: only
    `shortened` begins anew.
    """

    head: tuple[Message, ...]
    turns: tuple[Message, ...] = ()

    @property
    def messages(self) -> Sequence[Message]:
        """All messages, as they are sent."""
        return (*self.head, *self.turns)

    @property
    def chars(self) -> int:
        """Characters of all messages."""
        return sum(len(message["content"]) for message in self.messages)

    def replied(self, text: str) -> Conversation:
        """Add the model's reply; an empty one is said in words, which all servers take."""
        return replace(self, turns=(*self.turns, _message("assistant", text or "(no reply)")))

    def told(self, text: str) -> Conversation:
        """Add what the model is told; two in a row become one message."""
        last = self.messages[-1]
        if last["role"] != "user":
            return replace(self, turns=(*self.turns, _message("user", text)))
        joined = _message("user", f"{last['content']}\n\n{text}")
        if self.turns:
            return replace(self, turns=(*self.turns[:-1], joined))
        return replace(self, head=(*self.head[:-1], joined))

    def shortened(self, variables: Sequence[str]) -> Conversation | None:
        """Leave out the older half of the turns; None when too few are left.

        Args:
            variables: names that exist in the REPL, which the model is reminded of.
        """
        pairs = len(self.turns) // 2
        kept = max(LATEST_TURNS_KEPT, pairs // 2)
        if kept >= pairs:
            return None
        # Turns go assistant, user, …; the head ends with the user, so pairs can be cut out.
        first, *rest = self.turns[-2 * kept :]
        note = (
            f"[{pairs - kept} earlier turns are left out here. Their variables are kept: "
            f"{', '.join(variables) or 'none'}.]"
        )
        shown = _message("user", f"{note}\n\n{rest[0]['content']}")
        return replace(self, turns=(first, shown, *rest[1:]))


def _message(role: str, content: str) -> Message:
    return (
        {"role": "assistant", "content": content}
        if role == "assistant"
        else ({"role": "user", "content": content})
    )
