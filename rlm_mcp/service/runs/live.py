"""The runs that this process works on, and who waits for news of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import anyio

from rlm_mcp.sandbox.types import Repl
from rlm_mcp.service.runs.queue import Ticket
from rlm_mcp.store.runs.records import RunRecord

Stop = Literal["cancelled", "interrupted"]


@dataclass
class LiveRun:
    """One run at work, or in line for it with its `ticket`.

    `stop` says why it is stopped; `repl` is set while it is open.
    """

    run_id: str
    ticket: Ticket
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    ended: anyio.Event = field(default_factory=anyio.Event)
    repl: Repl | None = None
    stop: Stop = "interrupted"
    changes: int = 0
    _seen: tuple[int, RunRecord] | None = None
    _reading: anyio.Lock = field(default_factory=anyio.Lock)

    async def read_shared(self, read: Callable[[], Awaitable[RunRecord]]) -> RunRecord:
        """Read the run's record, once for all who watch it, as of its last change or later."""
        async with self._reading:
            if self._seen is None or self._seen[0] != self.changes:
                changes = self.changes
                self._seen = changes, await read()
            return self._seen[1]

    def end(self, stop: Stop) -> None:
        """Tell the run to stop working and spending now."""
        self.stop = stop
        self.scope.cancel()


class LiveRuns:
    """Live runs by id, and one event a run that is set at each change and then replaced."""

    def __init__(self) -> None:
        self._runs: dict[str, LiveRun] = {}
        self._news: defaultdict[str, anyio.Event] = defaultdict(anyio.Event)
        self._some = anyio.Event()

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

    def remove(self, run: LiveRun) -> None:
        """Let a run go that has ended; one that has been taken up since stays."""
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

    def notify(self, run_id: str) -> None:
        """Wake whoever waits for news of a run."""
        if run_id in self._runs:
            self._runs[run_id].changes += 1
        event = self._news.pop(run_id, None)
        if event is not None:
            event.set()
