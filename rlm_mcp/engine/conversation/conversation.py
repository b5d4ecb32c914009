"""The root's conversation, the window that it must fit, and its changes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from rlm_mcp.engine.config import RLMConfig
from rlm_mcp.engine.models.chat import ChatReply
from rlm_mcp.engine.models.metering import CHARS_PER_TOKEN
from rlm_mcp.events import Change, Message, Splice
from rlm_mcp.text import width

LATEST_TURNS_KEPT = 2


@dataclass(frozen=True)
class Conversation:
    """Messages in order; `head` stays, of `turns` the oldest may give way to a `summary`.

    Providers cache equal prefixes, so nothing that was sent is changed by what is added: only
    `without_oldest` begins again, after the question.
    """

    head: tuple[Message, ...]
    turns: tuple[Message, ...] = ()
    summary: str = ""

    @property
    def messages(self) -> Sequence[Message]:
        """All messages, as they are sent."""
        if not self.summary:
            return (*self.head, *self.turns)
        question = _message("user", f"{self.head[-1]['content']}\n\n{self.summary}")
        return (*self.head[:-1], question, *self.turns)

    @property
    def chars(self) -> int:
        """Characters of all messages."""
        return sum(len(message["content"]) for message in self.messages)

    @property
    def width(self) -> int:
        """The length of all messages, in characters of English that take as many tokens."""
        return sum(width(message["content"]) for message in self.messages)

    def replied(self, text: str) -> Conversation:
        """Add the model's reply; an empty one is said in words, which all servers take."""
        return replace(self, turns=(*self.turns, _message("assistant", text or "(no reply)")))

    def told(self, text: str) -> Conversation:
        """Add what the model is told; two in a row become one message."""
        last = self.messages[-1]
        if last["role"] != "user":
            return replace(self, turns=(*self.turns, _message("user", text)))
        return self.asked(f"{last['content']}\n\n{text}")

    def asked(self, text: str) -> Conversation:
        """Let the last thing that the model is told be `text`, as it was when it was recorded."""
        if self.messages[-1]["role"] != "user":
            return self.told(text)
        if self.turns:
            return replace(self, turns=(*self.turns[:-1], _message("user", text)))
        return self.beginning_with(text)

    def beginning_with(self, text: str) -> Conversation:
        """Let another first message ask the question."""
        return replace(self, head=(*self.head[:-1], _message("user", text)))

    @property
    def head_chars(self) -> int:
        """Characters of what always stays."""
        return sum(len(message["content"]) for message in self.head)

    @property
    def head_width(self) -> int:
        """The width of what always stays."""
        return sum(width(message["content"]) for message in self.head)

    def turns_within(self, most: int) -> int | None:
        """Count the newest pairs of a reply and its answer that fit into a width.

        None when none can be left out. The last ones are kept whatever their size.
        """
        # Turns go assistant, user, …; the head ends with the user, so pairs can be left out.
        lengths = [width(message["content"]) for message in self.turns]
        pairs = [sum(lengths[at : at + 2]) for at in range(0, len(lengths), 2)]
        fitting = sum(total <= most for total in accumulate(reversed(pairs)))
        kept = max(fitting, min(LATEST_TURNS_KEPT, len(pairs) - 1), 1)
        return kept if kept < len(pairs) else None

    def without_oldest(self, kept: int, summary: str) -> Conversation:
        """Leave out all turns but the newest, and say instead what they did."""
        return replace(self, turns=self.turns[-2 * kept :], summary=summary)


def _message(role: str, content: str) -> Message:
    return (
        {"role": "assistant", "content": content}
        if role == "assistant"
        else ({"role": "user", "content": content})
    )


REPLY_SHARE = 4  # at most a quarter of the window is kept free for the reply


@dataclass
class Window:
    """The window in tokens, and what a character takes of it as far as replies have shown.

    Characters are those of a text's width (`text.width`), by which scripts are much alike.

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

        Assume at most four characters a token: some providers leave cached tokens out of the count.
        """
        if chars and not reply.usage_estimated:
            self.tokens_per_char = max(reply.input_tokens / chars, 1 / CHARS_PER_TOKEN)


def change_between(
    before: Conversation, after: Conversation, *, without_head: bool = False
) -> Change:
    """Write down what turns one conversation into another.

    Args:
        before: what is known.
        after: what is to be known.
        without_head: the head is too long for the log; it is made again from the text.
    """
    has_head, has_turns = before.head != after.head, before.turns != after.turns
    return Change(
        head=_splice(before.head, after.head, 0) if has_head and not without_head else None,
        is_head_omitted=has_head and without_head,
        turns=_turns(before.turns, after.turns) if has_turns else None,
        summary=after.summary if before.summary != after.summary else None,
    )


def changed(before: Conversation, change: Change, opened: Conversation) -> Conversation:
    """Apply a change; `opened` has the head that was too long for the log."""
    head = opened.head if change.is_head_omitted else _spliced(before.head, change.head)
    summary = before.summary if change.summary is None else change.summary
    return Conversation(head, _spliced(before.turns, change.turns), summary)


def _turns(before: Sequence[Message], after: Sequence[Message]) -> Splice:
    """Splice from where the later turns begin in the earlier ones; past the end if all are new."""
    at = (at for at, one in enumerate(before) if after and one == after[0])
    return _splice(before, after, next(at, len(before)))


def _splice(before: Sequence[Message], after: Sequence[Message], start: int) -> Splice:
    same = 0
    for one, other in zip(before[start:], after, strict=False):
        if one != other:
            break
        same += 1
    return Splice(start, start + same, tuple(after[same:]))


def _spliced(before: tuple[Message, ...], splice: Splice | None) -> tuple[Message, ...]:
    return before if splice is None else (*before[splice.start : splice.end], *splice.added)
