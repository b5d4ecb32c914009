"""The log of a run: the types of its events, and the keys under which each is kept on disk.

The log is the truth about a run. Whoever waits for it, looks at it or resumes it reads the log,
often with a later version of the program than the one that wrote it. So this package is the only
place that knows the keys, and these rules hold:

- A field has the name of its key. A field may be added; none is renamed, removed or given another
  meaning.
- A field's default is what a log means that lacks the key. Every field has one.
- `run_started` holds the version of the format. Version 0.1.0 of the program wrote none: format 0.
  A log of a newer format than this program's is shown, and not resumed.

An event has two forms. The compact one is a line for people: `seq`, `at`, `type`, `iteration`,
`depth`, `preview`. The full one adds `detail`: the object that `to_detail` makes and `from_detail`
reads. The log holds the full form of every event. An event whose text was deleted keeps its compact
form, with an empty `detail`.

To add an event type, name it in `EventType`, write its class with that `type`, and list it in
`DETAILS`; `drawn.py` says what of it the page gets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from rlm_mcp.events.event import (
    Change,
    EventDetail,
    EventType,
    Message,
    Splice,
    inner_path,
    within_inner_run,
)
from rlm_mcp.events.runs import (
    ATTEMPT_NAME,
    FORMAT_VERSION,
    CheckedCitation,
    FinalAnswer,
    RunFinished,
    RunStarted,
    RunWarning,
    Support,
)
from rlm_mcp.events.sub_calls import SubCall, SubCallsFinished, SubCallsStarted
from rlm_mcp.events.turns import (
    Cited,
    CodeExecuted,
    CodeGenerated,
    FinalValue,
    IterationStart,
    LoopState,
    Raised,
)

__all__ = [
    "ATTEMPT_NAME",
    "DETAILS",
    "FORMAT_VERSION",
    "Change",
    "CheckedCitation",
    "Cited",
    "CodeExecuted",
    "CodeGenerated",
    "EventDetail",
    "EventType",
    "FinalAnswer",
    "FinalValue",
    "IterationStart",
    "LoggedEvent",
    "LoopState",
    "Message",
    "Raised",
    "RunFinished",
    "RunStarted",
    "RunWarning",
    "Splice",
    "SubCall",
    "SubCallsFinished",
    "SubCallsStarted",
    "Support",
    "inner_path",
    "read_detail",
    "within_inner_run",
]

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
