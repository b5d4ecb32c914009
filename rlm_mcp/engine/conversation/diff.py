"""What is new in a conversation, written down so that it can be said again. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlm_mcp.engine.conversation.conversation import Conversation
from rlm_mcp.engine.models.chat import Message


def change_between(
    before: Conversation, after: Conversation, *, without_head: bool = False
) -> dict[str, Any]:
    """Write down, JSON-like, what turns one conversation into another.

    Of head and turns `[from, to, added]` are what is kept of them and what follows. Nothing is
    written of a part that is the same.

    Args:
        before: what is known.
        after: what is to be known.
        without_head: the head is too long to be written, and is had by looking at the text again.
    """
    change: dict[str, Any] = {}
    if without_head and before.head != after.head:
        change["head"] = None
    elif before.head != after.head:
        change["head"] = _splice(before.head, after.head, 0)
    if before.turns != after.turns:
        change["turns"] = _splice(before.turns, after.turns, _start(before.turns, after.turns))
    if before.summary != after.summary:
        change["summary"] = after.summary
    return change


def changed(before: Conversation, change: Mapping[str, Any], opened: Conversation) -> Conversation:
    """Apply a change; `opened` has the head that was too long to be written."""
    head: Sequence[Message] = before.head
    if "head" in change:
        head = opened.head if change["head"] is None else _spliced(before.head, change["head"])
    turns: Sequence[Message] = before.turns
    if "turns" in change:
        turns = _spliced(before.turns, change["turns"])
    return Conversation(tuple(head), tuple(turns), change.get("summary", before.summary))


def _start(before: Sequence[Message], after: Sequence[Message]) -> int:
    """Where in the earlier turns the later ones begin; past the end where they are all new."""
    if not after:
        return len(before)
    return next((at for at, one in enumerate(before) if one == after[0]), len(before))


def _splice(
    before: Sequence[Message], after: Sequence[Message], start: int
) -> tuple[int, int, list[Message]]:
    same = 0
    for one, other in zip(before[start:], after, strict=False):
        if one != other:
            break
        same += 1
    return start, start + same, list(after[same:])


def _spliced(before: Sequence[Message], splice: Sequence[Any]) -> list[Message]:
    start, end, added = splice
    return [*before[start:end], *added]
