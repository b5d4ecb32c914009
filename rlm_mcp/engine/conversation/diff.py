"""The change from one conversation to the next, written so that it can be applied again. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from rlm_mcp.engine.conversation.conversation import Conversation
from rlm_mcp.events import Change, Message, Splice


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
