"""Runs inside a run: names that keep their events apart, and how an interrupted one resumes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rlm_mcp.engine.recording import Recording
from rlm_mcp.engine.run_context import EventSink, RLMEvent
from rlm_mcp.events import within_inner_run


@dataclass(frozen=True)
class InnerPart:
    """One inner run: its name in the log, its recording, and the place of its call."""

    name: str
    recording: Recording
    batch: int | None = None
    n: int | None = None

    @property
    def seed(self) -> int:
        """A seed that is equal for the same question over the same text."""
        return int(self.name[:8], 16)

    def within(self, emit: EventSink) -> EventSink:
        """Return a sink that emits this run's events as those of an inner run."""

        async def tell(*events: RLMEvent) -> None:
            await emit(
                *(
                    replace(event, detail=within_inner_run(self.name, event.detail))
                    for event in events
                )
            )

        return tell


class InnerParts:
    """Gives each inner run its part: one that was interrupted resumes, others begin.

    Args:
        recorded: inner runs by name.
        ended: keys of those whose answer was given already, each as often as it was.
    """

    def __init__(self, recorded: Mapping[str, Recording], ended: Sequence[str]) -> None:
        self._counts = Counter(_key(name) for name in recorded)
        told = Counter(ended)
        self._broken: dict[str, list[InnerPart]] = {}
        # Equal questions that ran side by side: those with an answer are the ones it was told of.
        for name, recording in sorted(recorded.items(), key=lambda item: item[1].final is None):
            key = _key(name)
            if told[key] > 0:
                told[key] -= 1
            else:
                self._broken.setdefault(key, []).append(InnerPart(name, recording))

    def take(self, key: str) -> InnerPart:
        """Return the part of the next run with this key."""
        broken = self._broken.get(key)
        if broken:
            return broken.pop(0)
        self._counts[key] += 1
        return InnerPart(f"{key}.{self._counts[key]}", Recording())


def _key(name: str) -> str:
    return name.partition(".")[0]
