"""What the store takes and returns about runs, what watchers share of it, and the runs' clock."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import anyio

from rlm_mcp.events import FinalAnswer
from rlm_mcp.values import NO_USAGE, EndStatus, ModelUsage, RunStatus, Usage, stored_error

# How long a process owns a run before it must renew that.
LEASE_SECONDS = 60.0


@dataclass(frozen=True)
class NewRun:
    """A run to start.

    Args:
        run_id: `run_` and 32 hex digits of 128 random bits.
        question: what is asked.
        contexts: handles, in order.
        config: its options, JSON-like.
        idempotency_key: asking again with it returns the caller's existing run.
        continues: the run whose REPL it continues with.
        is_queued: it waits for a free place.
        is_shared: without a key, whether a running run with the same question is returned instead.
    """

    run_id: str
    question: str
    contexts: Sequence[str] = ()
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    idempotency_key: str | None = None
    continues: str | None = None
    is_queued: bool = False
    is_shared: bool = False


@dataclass(frozen=True)
class NewEvent:
    """One line to append to a run's log; `figures` are those after it, `detail` is JSON-like."""

    type: str
    preview: str = ""
    iteration: int = 0
    depth: int = 0
    detail: Mapping[str, Any] = field(default_factory=dict[str, Any])
    figures: Usage = NO_USAGE


@dataclass(frozen=True)
class ResumedRun:
    """How a run that has ended is resumed.

    Args:
        config: its options from now on.
        event: the next line of its log; its figures stay those of the run.
        last_event: the number of the last event that was read before resuming.
        is_queued: it waits for a free place.
    """

    config: Mapping[str, Any]
    event: NewEvent
    last_event: int
    is_queued: bool = False


@dataclass(frozen=True)
class Event:
    """One line of a run's log: `seq` counts from 1 without gaps, `at` is ISO 8601 in UTC."""

    seq: int
    at: str
    type: str
    iteration: int
    depth: int
    preview: str
    detail: Mapping[str, Any]
    figures: Usage


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `data` is JSON-like, `error` is `{code, message, retryable, fix}`."""

    status: EndStatus
    answer: str | None = None
    data: Any = None
    error: Mapping[str, Any] | None = None


CANCELLED = Outcome("cancelled", error=stored_error("cancelled", "The run was cancelled."))
INTERRUPTED = Outcome(
    "interrupted",
    error=stored_error(
        "interrupted",
        "The server stopped while it worked on this run.",
        retryable=True,
        fix="rlm_run_resume continues it where it stopped.",
    ),
)


@dataclass(frozen=True)
class SavedVariable:
    """A variable of a run's REPL, for when the REPL is closed.

    `value` is its text, where the caller kept it; `json` says that it is JSON. `size` is what `len`
    said. `payload` is what a REPL makes the variable of again, `reason` says why there is none.
    `is_code`: a module, function or class, which is not listed.
    """

    name: str
    type: str
    size: int
    preview: str
    value: str | None = None
    json: bool = False
    payload: bytes | None = None
    reason: str = ""
    is_code: bool = False


@dataclass(frozen=True)
class RunSummary:
    """One line of the list of runs."""

    run_id: str
    status: RunStatus
    question: str
    created_at: str
    elapsed_seconds: float
    cost_usd: float | None


@dataclass(frozen=True)
class RunRecord:
    """A run, without its log and its variables.

    `last_event` is the number of the last event, 0 before the first. `lease_until` is in seconds
    since the epoch: a run that is `running` past it has lost its owner. `queue_position` is set
    while a run waits for a free place: 1 is the next of its owner. `abandoned_at` is set once the
    request that began it was cancelled, until somebody looks at it. `final` is the last answer in
    the log, with its citations. `attempt` counts who worked on it, from 1.
    """

    run_id: str
    status: RunStatus
    question: str
    contexts: tuple[str, ...]
    config: Mapping[str, Any]
    created_at: str
    finished_at: str | None
    answer: str | None
    data: Any
    error: Mapping[str, Any] | None
    figures: Usage
    last_event: int
    elapsed_seconds: float
    owner: str
    lease_until: float
    caller: str
    idempotency_key: str | None
    continues: str | None
    queue_position: int | None = None
    abandoned_at: float | None = None
    final: FinalAnswer | None = None
    attempt: int = 1


@dataclass(frozen=True)
class _Seen:
    """A record as it was after so many changes of the run; its seconds are those at `at`."""

    changes: int
    record: RunRecord
    at: float


class SharedRecord:
    """A run's record: as it was stored or read last, brought up to the lines written since.

    A line of the log says all that it changes, so watching a run costs no reads of the store.
    Other changes are read, once for all.
    """

    def __init__(self) -> None:
        self._changes = 0
        self._seen: _Seen | None = None
        self._reading = anyio.Lock()

    def change(self, line: Event | None) -> None:
        """Note a change: a line of the log, or something that only the store tells."""
        before, self._changes = self._seen, self._changes + 1
        if line is not None and before is not None and before.changes == self._changes - 1:
            self._seen = _Seen(self._changes, _with_line(before.record, line), before.at)

    def set(self, record: RunRecord) -> None:
        """Take the record as it was stored just now."""
        self._set(record, self._changes)

    @property
    def known(self) -> RunRecord | None:
        """The record as of the last change; None where the store must be asked."""
        seen = self._seen
        if seen is None or seen.changes != self._changes:
            return None
        record = seen.record
        if record.status != "running" or record.queue_position is not None:
            return record
        seconds = record.elapsed_seconds + anyio.current_time() - seen.at
        return replace(record, elapsed_seconds=seconds)

    async def get(self, read: Callable[[], Awaitable[RunRecord]]) -> RunRecord:
        """Return the record as of the last change or later.

        Args:
            read: reads it; called where it is not known, once for all who ask at that time.
        """
        if (known := self.known) is not None:
            return known
        async with self._reading:
            if (known := self.known) is not None:
                return known
            changes = self._changes
            record = await read()
            self._set(record, changes)
            return record

    def _set(self, record: RunRecord, changes: int) -> None:
        if record.abandoned_at is None:  # a mark is read each time, until it is removed
            self._seen = _Seen(changes, record, anyio.current_time())


def _with_line(record: RunRecord, line: Event) -> RunRecord:
    """Return a record with a line of the log, unless that is in it already."""
    if line.seq <= record.last_event:
        return record
    figures = line.figures
    if not figures.by_model:  # nothing is known of them, so they stay
        figures = replace(figures, by_model=record.figures.by_model)
    return replace(record, last_event=line.seq, figures=figures)


class WorkClock:
    """Tells the time, and when a run would have begun if the clock had never been set.

    The store keeps when a run began, in seconds since the epoch. A clock that is set, or a machine
    that sleeps, makes that wrong; the process that works on the run knows better.

    Args:
        wall: seconds since the epoch.
        steady: seconds, only ever forward, and none while the machine sleeps.
    """

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self.now = wall
        self._steady = steady
        self._began: dict[str, float] = {}

    def begin(self, run_id: str) -> None:
        """Count the seconds of a run from now."""
        self._began[run_id] = self._steady()

    def end(self, run_id: str) -> None:
        """Forget a run, which works no more, or elsewhere."""
        self._began.pop(run_id, None)

    def started(self, run_id: str) -> float | None:
        """Return when a run of this process began, by the wall's clock as it is now."""
        began = self._began.get(run_id)
        return None if began is None else self.now() - (self._steady() - began)


@dataclass(frozen=True)
class Claim:
    """Who works on a run from `now` on; times are in seconds since the epoch."""

    owner: str
    now: float
    lease_until: float


def models_to_json(used: Usage) -> str | None:
    """Write figures by model as they are kept; None where nothing is known of them."""
    return json.dumps(list(map(vars, used.by_model))) if used.by_model else None


def models_of_json(kept: str | None) -> tuple[ModelUsage, ...]:
    """Read figures by model that were kept."""
    return tuple(ModelUsage(**one) for one in json.loads(kept or "[]"))


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else repr(value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]  # any mapping will do


to_json = json.JSONEncoder(default=_plain, separators=(",", ":")).encode
"""Write JSON; a value that is not JSON-like becomes its `repr` rather than lose an event."""
