"""How much of the root model's window a conversation takes."""

from __future__ import annotations

from dataclasses import dataclass

from rlm_mcp.engine.chat import CHARS_PER_TOKEN, ChatReply
from rlm_mcp.engine.config import RLMConfig

REPLY_SHARE = 4  # at most a quarter of the window is kept free for the reply


@dataclass
class Window:
    """The window in tokens, and what a character takes of it as far as replies have told.

    Args:
        tokens: the size of the window; None is one that is never full.
        reply_tokens: what is asked for at most as a reply, and kept free.
    """

    tokens: int | None
    reply_tokens: int
    tokens_per_char: float = 1 / CHARS_PER_TOKEN

    @classmethod
    def of(cls, config: RLMConfig) -> Window:
        """Make the window that a configuration describes."""
        tokens = config.root_context_tokens
        if tokens is None:
            return cls(None, config.root_max_tokens)
        return cls(tokens, min(config.root_max_tokens, tokens // REPLY_SHARE))

    @property
    def chars(self) -> int:
        """Characters of a prompt that fit, with the reply; 0 where the window is not known."""
        if self.tokens is None:
            return 0
        return int((self.tokens - self.reply_tokens) / self.tokens_per_char)

    def is_full(self, chars: int) -> bool:
        """Whether a prompt of so many characters may not fit."""
        return self.tokens is not None and chars > self.chars

    def learn(self, chars: int, reply: ChatReply) -> None:
        """Note what the provider counted; code and other scripts than Latin take more a character.

        Never below four characters a token: prompts that were cached are not counted by everybody.
        """
        if chars and not reply.usage_estimated:
            self.tokens_per_char = max(reply.input_tokens / chars, 1 / CHARS_PER_TOKEN)
