"""The runs that this process works on: their turns to work, and who waits for news of them."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from typing import Any, Literal, Protocol

import anyio

from rlm_mcp.errors import SandboxBusyError
from rlm_mcp.sandbox.types import Repl
from rlm_mcp.service.runs.root_text import RootText
from rlm_mcp.store.runs.records import Event, SharedRecord
from rlm_mcp.values import NO_USAGE, EndStatus, Usage


class RunQueue:
    """A number of places to work in; runs that find none free wait in a queue.

    Callers take turns, and each caller's own tickets keep their order: one that asks a hundred
    questions does not shut out another that asks one. The last free place is kept for a caller who
    has none; the machine's own caller, who has no name, is the only one, and may have all. Waiting
    costs an event, no REPL and no thread.
    """

    def __init__(self, places: int) -> None:
        self.places = places
        self._working: set[Ticket] = set()
        # A caller whose turn it was goes to the back; one without waiting tickets is not in here.
        self._lines: OrderedDict[str, deque[Ticket]] = OrderedDict()

    def enter(self, caller: str = "") -> Ticket:
        """Take a place or, if none is free, wait in the queue; `Ticket.leave` must follow."""
        ticket = Ticket(self, caller)
        if self._has_place_for(caller):
            self._admit(ticket)
        else:
            ticket.has_waited = True
            self._lines.setdefault(caller, deque()).append(ticket)
        return ticket

    def position(self, ticket: Ticket) -> int | None:
        """Say as which one a ticket gets its place, counted from 1; None once it has it."""
        waiting = enumerate(self._in_order(), start=1)
        return next((place for place, one in waiting if one is ticket), None)

    def leave(self, ticket: Ticket) -> None:
        """Give back a place, or leave the line; leaving twice changes nothing."""
        line = self._lines.get(ticket.caller, ())
        if ticket in self._working:
            self._working.remove(ticket)
            self._admit_next()
        elif isinstance(line, deque) and ticket in line:
            line.remove(ticket)
            if not line:
                del self._lines[ticket.caller]

    def resize(self, places: int) -> None:
        """Have more or fewer places from now on; who works keeps their own."""
        self.places = places
        for _ in range(places):
            self._admit_next()

    def counts(self, caller: str = "") -> tuple[int, int]:
        """Return how many work and how many wait: a caller's own, or all for the empty name."""
        waiting = [len(line) for name, line in self._lines.items() if caller in ("", name)]
        return sum(caller in ("", one.caller) for one in self._working), sum(waiting)

    def _admit(self, ticket: Ticket) -> None:
        self._working.add(ticket)
        ticket.admitted.set()

    def _admit_next(self) -> None:
        caller = next(filter(self._has_place_for, self._lines), None)
        if caller is None:
            return
        line = self._lines.pop(caller)
        ticket = line.popleft()
        if line:
            self._lines[caller] = line
        self._admit(ticket)

    def _has_place_for(self, caller: str) -> bool:
        free = self.places - len(self._working)
        is_last_kept = bool(caller) and any(one.caller == caller for one in self._working)
        return free > (1 if is_last_kept and self.places > 1 else 0)

    @asynccontextmanager
    async def place(self, caller: str, seconds: float, what: str) -> AsyncGenerator[Ticket]:
        """Have a place while the block lasts.

        Args:
            caller: whose place it is.
            seconds: how long to wait for it at most.
            what: takes places here, in the plural, for the message.

        Raises:
            SandboxBusyError: none became free in time.
        """
        ticket = self.enter(caller)
        try:
            with anyio.move_on_after(seconds) as waiting:
                await ticket.admitted.wait()
            if waiting.cancelled_caught:
                raise SandboxBusyError(
                    f"{self.places} {what} may run at the same time, and none ended in time for "
                    "this one.",
                    fix="Try again when one of them has ended.",
                )
            yield ticket
        finally:
            ticket.leave()

    def _in_order(self) -> Iterator[Ticket]:
        rounds = zip_longest(*self._lines.values())
        return (ticket for ticket in chain.from_iterable(rounds) if ticket is not None)


@dataclass(eq=False)
class Ticket:
    """One place in a queue: `admitted` is set when it may be worked in."""

    queue: RunQueue
    caller: str
    admitted: anyio.Event = field(default_factory=anyio.Event)
    has_waited: bool = False

    @property
    def position(self) -> int | None:
        """As which one it gets its place, counted from 1; None once it has it."""
        return None if self.admitted.is_set() else self.queue.position(self)

    def leave(self) -> None:
        """Give the place back, or leave the line; leaving twice changes nothing."""
        self.queue.leave(self)


# Upper bounds, in seconds, of the classes in which times of writing are counted.
LAG_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


@dataclass
class Tally:
    """What this process did for a caller since it started; every number only grows.

    `lags` counts lines of logs by how long it took until they lasted: one number for each bound of
    `LAG_BOUNDS`, and one for what was slower.
    """

    ended: Counter[str] = field(default_factory=Counter[str])
    turns: int = 0
    model_calls: int = 0
    cached_sub_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    lags: list[int] = field(default_factory=lambda: [0] * (len(LAG_BOUNDS) + 1))
    lag_seconds: float = 0.0

    def add_use(self, before: Usage, after: Usage) -> None:
        """Add what was used between two moments of a run."""
        self.turns += after.iterations - before.iterations
        self.model_calls += _calls(after) - _calls(before)
        self.cached_sub_calls += after.cached_sub_calls - before.cached_sub_calls
        self.input_tokens += after.input_tokens - before.input_tokens
        self.output_tokens += after.output_tokens - before.output_tokens
        self.cost_usd += max(0.0, (after.cost_usd or 0.0) - (before.cost_usd or 0.0))

    def add_lag(self, seconds: float, lines: int = 1) -> None:
        """Count lines of a log by the time that writing them together took."""
        self.lags[bisect_left(LAG_BOUNDS, seconds)] += lines
        self.lag_seconds += seconds * lines

    def add(self, other: Tally) -> None:
        """Add another tally."""
        self.ended.update(other.ended)
        for name in ("turns", "model_calls", "cached_sub_calls", "input_tokens", "output_tokens"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.cost_usd += other.cost_usd
        self.lag_seconds += other.lag_seconds
        self.lags = [sum(pair) for pair in zip(self.lags, other.lags, strict=True)]


def _calls(usage: Usage) -> int:
    return sum(row.calls for row in usage.by_model)


class Using(Protocol):
    """What uses models, and knows how much."""

    @property
    def usage(self) -> Usage:
        """What was used until now."""
        ...


Stop = Literal["cancelled", "interrupted"]


@dataclass
class LiveRun:
    """One run at work, or in line for it with its `ticket`.

    `stop` says how it ends when it is stopped, and `stop_error` why, where that is not the usual
    reason; `repl` is set while it is open; `record` is what its watchers share.
    """

    run_id: str
    ticket: Ticket
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    ended: anyio.Event = field(default_factory=anyio.Event)
    repl: Repl | None = None
    stop: Stop = "interrupted"
    stop_error: Mapping[str, Any] | None = None
    record: SharedRecord = field(default_factory=SharedRecord)
    _work: Using | None = None
    _used_before: Usage = NO_USAGE

    def begin(self, work: Using) -> None:
        """Count what is used from now on."""
        self._work, self._used_before = work, work.usage

    def count_into(self, tally: Tally) -> None:
        """Add what this process has used for the run."""
        if self._work is not None:
            tally.add_use(self._used_before, self._work.usage)

    async def until_ended(self, seconds: float) -> None:
        """Wait until the run has ended here, or for so many seconds."""
        with anyio.move_on_after(seconds):
            await self.ended.wait()

    def end(self, stop: Stop, error: Mapping[str, Any] | None = None) -> None:
        """Tell the run to stop working and spending now.

        Args:
            error: why, where that is not the usual reason: `{code, message, retryable, fix}`.
        """
        self.stop, self.stop_error = stop, error
        self.scope.cancel()


class LiveRuns:
    """Live runs by id, and one event a run that is set at each change and then replaced."""

    def __init__(self) -> None:
        self._runs: dict[str, LiveRun] = {}
        self._news: defaultdict[str, anyio.Event] = defaultdict(anyio.Event)
        self._some = anyio.Event()
        self.root_texts: dict[str, RootText] = {}  # of runs that somebody watches
        self._tallies: defaultdict[str, Tally] = defaultdict(Tally)

    def __iter__(self) -> Iterator[LiveRun]:
        return iter(tuple(self._runs.values()))

    def add(self, run: LiveRun) -> None:
        """Take a run in."""
        self._runs[run.run_id] = run
        self._some.set()

    async def until_some(self) -> None:
        """Wait until there is a run here."""
        if not self._runs:
            self._some = anyio.Event()
            await self._some.wait()

    def tally(self, caller: str) -> Tally:
        """Return where a caller's ended runs and written lines are counted."""
        return self._tallies[caller]

    def total(self, caller: str = "") -> Tally:
        """Count what was done, runs at work included: for a caller, or all for the empty name."""
        total = Tally()
        for name, tally in self._tallies.items():
            if caller in ("", name):
                total.add(tally)
        for run in self:
            if caller in ("", run.ticket.caller):
                run.count_into(total)
        return total

    def remove(self, run: LiveRun, status: EndStatus) -> None:
        """Let a run go that has ended; one that has been taken up since stays."""
        tally = self._tallies[run.ticket.caller]
        tally.ended[status] += 1
        run.count_into(tally)
        if self._runs.get(run.run_id) is run:
            del self._runs[run.run_id]
        self.notify(run.run_id)
        run.ended.set()

    def get(self, run_id: str) -> LiveRun | None:
        """Return a run if this process works on it."""
        return self._runs.get(run_id)

    def news(self, run_id: str) -> anyio.Event:
        """Return the event that the next change of a run will set.

        Take it before reading the run's state, so that no change falls between the two. Nothing
        is known of a run that another process works on.
        """
        return self._news[run_id] if run_id in self._runs else anyio.Event()

    def notify(self, run_id: str, line: Event | None = None) -> None:
        """Wake whoever waits for news of a run.

        Args:
            line: the line of its log that is the news; None: the store tells what it is.
        """
        if run_id in self._runs:
            self._runs[run_id].record.change(line)
        event = self._news.pop(run_id, None)
        if event is not None:
            event.set()
