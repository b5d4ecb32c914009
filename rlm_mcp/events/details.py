"""All types of events, and an event's detail read by its type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from rlm_mcp.events.event import EventDetail
from rlm_mcp.events.runs import FinalAnswer, RunFinished, RunStarted, RunWarning
from rlm_mcp.events.sub_calls import SubCallsFinished, SubCallsStarted
from rlm_mcp.events.turns import CodeExecuted, CodeGenerated, IterationStart

DETAILS: Mapping[str, type[EventDetail]] = {
    detail.type: detail
    for detail in (
        *(RunStarted, IterationStart, CodeGenerated, CodeExecuted, SubCallsStarted),
        *(SubCallsFinished, RunWarning, FinalAnswer, RunFinished),
    )
}


class LoggedEvent(Protocol):
    """One line of a log, as the engine emits it and as the store returns it."""

    @property
    def type(self) -> str:
        """What happened."""
        ...

    @property
    def iteration(self) -> int:
        """The root's turn, from 1; 0 before the first."""
        ...

    @property
    def depth(self) -> int:
        """0 for the run itself, more for runs inside it."""
        ...

    @property
    def detail(self) -> Mapping[str, Any]:
        """The full form's object."""
        ...


def read_detail(event: LoggedEvent) -> EventDetail:
    """Read an event's detail; of a type that this version does not know, only the inner run."""
    return DETAILS.get(event.type, EventDetail).from_detail(event.detail)
