"""What all events share: a type, and the inner run that an event belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from rlm_mcp.events.record import LeftOut, Record

EventType = Literal[
    "run_started",
    "iteration_start",
    "code_generated",
    "code_executed",
    "sub_calls_started",
    "sub_calls_finished",
    "warning",
    "final_answer",
    "run_finished",
    "root_delta",  # a piece of the root's reply; in streams that asked for it, never in a log
]

_INNER = "inner"


@dataclass(frozen=True)
class EventDetail(Record):
    """The detail of one event.

    `inner` names the inner run that the event belongs to: the names of the runs from the outer to
    the inner one, joined by `/`.
    """

    type: ClassVar[EventType]

    inner: LeftOut[str] = field(default=None, kw_only=True)


def within_inner_run(name: str, detail: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event's detail as that of an inner run; inner runs inside it keep their names."""
    path = "/".join((name, *inner_path(detail)))
    return {**detail, _INNER: path}


def inner_path(detail: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the inner runs that an event belongs to, from the outermost on."""
    path = detail.get(_INNER)
    return tuple(path.split("/")) if path else ()
