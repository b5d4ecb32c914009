"""Slots of a llama.cpp server: each keeps the prompt that it read last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager


class Slots:
    """Keeps conversations apart from single questions, which would push their prompts out.

    A conversation keeps its slot, of up to half of them; the one that waited longest gives its
    slot to a new one. A single question goes to the slot of the others that has least to do.

    Args:
        count: of the server, two or more.
    """

    def __init__(self, count: int) -> None:
        self._for_conversations = list(range(count // 2))
        self._for_questions = range(count // 2, count)
        self._of: dict[str, int] = {}  # the conversation that was used last is at the end
        self._at_work = Counter[int]()

    @contextmanager
    def taken(self, conversation: str) -> Generator[int]:
        """Take a slot for one request; the empty name stands for a single question."""
        slot = self._of_conversation(conversation) if conversation else self._least_used()
        self._at_work[slot] += 1
        try:
            yield slot
        finally:
            self._at_work[slot] -= 1

    def _least_used(self) -> int:
        return min(self._for_questions, key=lambda slot: self._at_work[slot])

    def _of_conversation(self, name: str) -> int:
        slot = self._of.pop(name, None)
        if slot is None:
            free = [one for one in self._for_conversations if one not in self._of.values()]
            slot = free[0] if free else self._of.pop(next(iter(self._of)))
        self._of[name] = slot
        return slot
