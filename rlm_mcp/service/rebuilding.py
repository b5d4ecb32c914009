"""A run's state, rebuilt from its log alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlm_mcp.engine.recording import Recording, read_recording
from rlm_mcp.store.run_records import Event, Figures, Status

_WITHOUT_ANSWER = {"running", "cancelled", "interrupted"}


@dataclass(frozen=True)
class Rebuilt:
    """What a log says of its run; names and meanings are those of `RunRecord`."""

    question: str
    contexts: tuple[str, ...]
    config: Mapping[str, Any]
    status: Status = "running"
    answer: str | None = None
    data: Any = None
    error: Mapping[str, Any] | None = None
    figures: Figures = field(default_factory=Figures)
    last_event: int = 0
    recording: Recording = field(default_factory=Recording)


def rebuild(events: Sequence[Event]) -> Rebuilt:
    """Read a whole log, from its first event.

    A run that was taken up again has several starts; the last one's options hold.
    """
    starts = [event.detail for event in events if event.type == "run_started"]
    begun = next(at for at in range(len(events) - 1, -1, -1) if events[at].type == "run_started")
    ends = [event.detail for event in events[begun:] if event.type == "run_finished"]
    finals = [e.detail for e in events if e.type == "final_answer" and e.depth == 0]
    status: Status = ends[-1]["status"] if ends else "running"
    recording = read_recording(events)
    # An answer that was recorded, but not as the end of the run, is not its answer yet.
    final = recording.final if finals and status not in _WITHOUT_ANSWER else None
    return Rebuilt(
        question=starts[0].get("question", ""),
        contexts=tuple(starts[0]["contexts"]),
        config=starts[-1].get("options", {}),
        status=status,
        answer=final["answer"] if final else None,
        data=final["data"] if final else None,
        error=ends[-1]["error"] if ends else None,
        figures=events[-1].figures,
        last_event=events[-1].seq,
        recording=recording,
    )
