"""REPLs that outlive the run they were opened for, so that more can be asked of them."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from weakref import WeakValueDictionary

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup, TaskStatus

from rlm_mcp.errors import SandboxBusyError
from rlm_mcp.sandbox.types import ContextSource, Isolation, Pausable, Repl, ReplOptions, Sandbox
from rlm_mcp.service.machine import memory_bytes
from rlm_mcp.service.saved_variables import DistantRepl, restore
from rlm_mcp.store.runs.records import SavedVariable

log = logging.getLogger(__name__)

KEPT_REPLS = 8
IDLE_SECONDS = 600.0
SPARE_BYTES = 2 << 30
_EVICTION_SECONDS = 30.0
_REMEMBERED_ORIGINS = 1000


@dataclass(eq=False)
class OpenRepl:
    """A REPL, and what it was opened over; held open by a task of the process until let go.

    `lost` names the variables of an earlier REPL that this one could not be given. `let_go` is also
    set when the machine that holds the REPL is lost; `isolation` is that of another machine.
    """

    repl: Repl
    handles: tuple[str, ...]
    options: ReplOptions
    last_used: float
    caller: str = ""
    lost: list[str] = field(default_factory=list[str])
    isolation: Isolation | None = None
    let_go: anyio.Event = field(default_factory=anyio.Event)

    def fits(self, handles: Sequence[str], options: ReplOptions) -> bool:
        """Whether it can be used for a question over these contexts with these options."""
        same_options = replace(self.options, seed=None) == replace(options, seed=None)
        return self.handles == tuple(handles) and same_options


class Repls:
    """Opens REPLs, and keeps those of finished runs while there is room."""

    def __init__(self, sandbox: Sandbox, tasks: TaskGroup, most_kept: int = KEPT_REPLS) -> None:
        self._most_kept = most_kept
        self._sandbox = sandbox
        self._tasks = tasks
        self._kept: OrderedDict[str, OpenRepl] = OrderedDict()
        self._origins: OrderedDict[str, str] = OrderedDict()
        # An entry lasts as long as somebody has or wants the turn.
        self._turns: WeakValueDictionary[str, anyio.Lock] = WeakValueDictionary()

    async def open(
        self,
        source: ContextSource,
        handles: Sequence[str],
        options: ReplOptions,
        variables: Sequence[SavedVariable] = (),
        *,
        caller: str = "",
    ) -> OpenRepl:
        """Open a REPL that stays open until it is kept and evicted, or let go.

        Args:
            variables: saved ones, which it begins with.

        Raises:
            SandboxError: it cannot be opened.
        """
        # A task of its own enters and leaves it: the run that uses it may end in another one.
        one: OpenRepl = await self._tasks.start(self._hold, source, tuple(handles), options)
        one.caller = caller
        try:
            one.lost = await restore(one.repl, variables) if variables else []
        except BaseException:
            one.let_go.set()
            raise
        return one

    async def _hold(
        self,
        source: ContextSource,
        handles: tuple[str, ...],
        options: ReplOptions,
        *,
        task_status: TaskStatus[OpenRepl],
    ) -> None:
        is_open = False
        try:
            async with self._sandbox.open_repl(source, options) as repl:
                one = OpenRepl(repl, handles, options, anyio.current_time())
                task_status.started(one)
                is_open = True
                await one.let_go.wait()
        except Exception:
            # The outermost frame of this task: what fails while a REPL is left must not end others.
            if not is_open:
                raise  # to whoever asked for the REPL
            log.exception("a REPL was not left cleanly")

    @asynccontextmanager
    async def turn(self, run_id: str, seconds: float) -> AsyncGenerator[None]:
        """Hold a run's REPL alone while the block lasts: cells of one run take turns.

        Args:
            seconds: how long to wait for it at most.

        Raises:
            SandboxBusyError: a cell runs, and did not end in time.
        """
        turn = self._turns.setdefault(run_id, anyio.Lock())
        with anyio.move_on_after(seconds) as waiting:
            await turn.acquire()
        if waiting.cancelled_caught:
            raise SandboxBusyError(
                f"A cell of {run_id!r} is running.", fix="Try again when it has ended."
            )
        try:
            yield
        finally:
            turn.release()

    def keep(self, run_id: str, one: OpenRepl, *, caller: str = "") -> None:
        """Keep a run's REPL; if there are many, let one go of the caller who has most of them.

        One that was let go meanwhile is not kept.
        """
        if one.let_go.is_set():
            return
        one.caller = caller
        one.last_used = anyio.current_time()
        before = self._kept.pop(run_id, one)
        if before is not one:
            before.let_go.set()
        self._kept[run_id] = one
        if isinstance(one.repl, Pausable):  # threads that its code left burn no core
            one.repl.pause()
        while len(self._kept) > self._most():
            counts = Counter(kept.caller for kept in self._kept.values())
            most = max(counts.values())
            oldest = next(each for each, kept in self._kept.items() if counts[kept.caller] == most)
            self._kept.pop(oldest).let_go.set()

    def _most(self) -> int:
        return min(self._most_kept, KEPT_REPLS)

    def count_kept(self, caller: str = "") -> int:
        """Return how many REPLs are kept: a caller's own, or all for the empty name."""
        kept = [one for one in self._kept.values() if not one.let_go.is_set()]
        return sum(caller in ("", one.caller) for one in kept)

    async def find(self, run_id: str) -> Repl | None:
        """Return the REPL that is kept for a run, to read from; one that is lost is let go."""
        one = self._kept.get(run_id)
        if one and isinstance(one.repl, DistantRepl) and not await one.repl.is_there():
            one.let_go.set()
        one = self.take(run_id)
        if one is None:
            return None
        one.last_used = anyio.current_time()
        self._kept[run_id] = one
        return one.repl

    def take(self, run_id: str) -> OpenRepl | None:
        """Remove and return a run's kept REPL, unless it was let go."""
        one = self._kept.pop(run_id, None)
        return None if one is None or one.let_go.is_set() else one

    def drop(self, run_id: str) -> None:
        """Let a run's REPL go, if it is kept."""
        one = self._kept.pop(run_id, None)
        if one is not None:
            one.let_go.set()

    def claim(self, run_id: str, handles: Sequence[str], options: ReplOptions) -> OpenRepl | None:
        """Remove and return a run's kept REPL, if it fits."""
        one = self._kept.get(run_id)
        return self.take(run_id) if one and one.fits(handles, options) else None

    def remember_origin(self, run_id: str, origin: str) -> None:
        """Remember in which process a run continues another one, for its results."""
        self._origins[run_id] = origin
        while len(self._origins) > _REMEMBERED_ORIGINS:
            self._origins.popitem(last=False)

    def origin(self, run_id: str) -> str:
        """Say in which process a run continued another one; empty if it did not, or long ago."""
        return self._origins.get(run_id, "")

    async def evict(self) -> None:
        """Let go those that were idle for long, and all of them while memory is short."""
        while True:
            await anyio.sleep(_EVICTION_SECONDS)
            is_short = await anyio.to_thread.run_sync(_is_memory_short)
            now = anyio.current_time()
            for run_id, one in list(self._kept.items()):
                if is_short or now - one.last_used > IDLE_SECONDS:
                    self._kept.pop(run_id).let_go.set()


def _is_memory_short() -> bool:
    """Whether the machine has little memory left; False where it does not say."""
    available = memory_bytes("MemAvailable")
    return available is not None and available < SPARE_BYTES
