"""What a user can do with questions: ask, wait, look on, cancel, look inside."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, aclosing, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import anyio

from rlm_mcp.errors import NotFoundError, SandboxBusyError
from rlm_mcp.sandbox.types import Repl, Variable, VariableText
from rlm_mcp.service.repls import Repls
from rlm_mcp.service.runs.abandoned import AbandonedRuns
from rlm_mcp.service.runs.estimating import Estimate
from rlm_mcp.service.runs.live import LiveRun, LiveRuns
from rlm_mcp.service.runs.other_servers import OtherServers
from rlm_mcp.service.runs.questions import ANSWER_NAME, Begun, Question
from rlm_mcp.service.runs.root_text import RootTextWatch, watch_text
from rlm_mcp.store.contexts.records import Page
from rlm_mcp.store.runs.records import Event, RunRecord, RunSummary
from rlm_mcp.store.runs.runs import Runs
from rlm_mcp.values import RunStatus

HEARTBEAT_SECONDS = 10.0
REPORT_SECONDS = 0.2  # a person can follow no more, and each report costs a read and a message
FOLLOWED_EVENTS = 20
_BUSY_SECONDS = 5.0
_CANCEL_SECONDS = 5.0

RunState = RunRecord
Report = Callable[[RunState], Awaitable[None]]


class RunStarter(Protocol):
    """Begins and resumes runs; see `starting.Starter`."""

    async def begin(self, question: Question) -> Begun:
        """Begin a run, or find it at work."""
        ...

    async def check_limits(self, question: Question) -> None:
        """Refuse a question whose limits cannot be kept."""
        ...

    async def estimate(self, question: Question) -> Estimate:
        """Say what a question would cost."""
        ...

    async def find(self, question: Question) -> str | None:
        """Find the run at work that answers a question."""
        ...

    async def resume(self, run_id: str, limits: Mapping[str, Any]) -> None:
        """Resume a run that has ended."""
        ...


class RunService:
    """Use cases over runs."""

    def __init__(
        self,
        runs: Runs,
        live: LiveRuns,
        repls: Repls,
        others: OtherServers,
        starter: RunStarter,
        abandoned: AbandonedRuns,
    ) -> None:
        self._runs = runs
        self._live = live
        self._repls = repls
        self._others = others
        self._starter = starter
        self._abandoned = abandoned
        self.abandon = abandoned.add
        self.begin = starter.begin
        self.check_limits = starter.check_limits
        self.estimate = starter.estimate
        self.find = starter.find

    async def resume(self, run_id: str, limits: Mapping[str, Any]) -> None:
        """Resume a run that has ended; see `Starter.resume`."""
        if self._live.get(run_id) is None:
            await self._others.awaited(run_id)
        await self._starter.resume(run_id, limits)

    async def wait(self, run_id: str, seconds: float, report: Report) -> RunState:
        """Wait for a run to end, reporting at once, after changes and every ten seconds.

        Changes that follow each other quickly are reported together; the end is at once.

        Args:
            seconds: how long at most.

        Raises:
            NotFoundError: there is no such run.
        """
        with anyio.move_on_after(seconds):
            return await self._follow(run_id, report)
        return await self.state(run_id)

    async def state(self, run_id: str) -> RunState:
        """Say how a run is.

        Raises:
            NotFoundError: there is no such run.
        """
        return await self._seen(await self._runs.get(run_id), self._live.get(run_id))

    async def _seen(self, state: RunState, run: LiveRun | None) -> RunState:
        """Return a state that somebody looks at, with what only this process knows of it."""
        if state.abandoned_at is not None:
            await self._abandoned.seen(state.run_id)
        # Only the process that a run waits in knows whose turn comes before.
        return replace(state, queue_position=run.ticket.position) if run else state

    def origin(self, run_id: str) -> str:
        """Say in which process a run continued another one; empty for others."""
        return self._repls.origin(run_id)

    async def _follow(self, run_id: str, report: Report) -> RunState:
        """Report a run's states, the last of which is returned."""
        state = None
        async with aclosing(self._changes(run_id, REPORT_SECONDS)) as changes:
            async for state in changes:
                await report(state)
        assert state is not None  # noqa: S101  # for the type checker: there is one at once
        return state

    async def _changes(self, run_id: str, pause_seconds: float = 0.0) -> AsyncGenerator[RunState]:
        """Yield a run's state at once, at every change and now and then, until it has ended.

        Args:
            pause_seconds: how long changes are gathered after each state, unless the run ends.
        """
        run, is_quiet, next_look = None, False, 0.0
        while True:
            run = self._live.get(run_id) or run
            state = self._end_of(run)
            change = None
            if run is None and anyio.current_time() >= next_look:
                await self._others.awaited(run_id)
                next_look = anyio.current_time() + HEARTBEAT_SECONDS
            if state is None:
                change = await self._next_change(run_id)
                state = await (self.state(run_id) if is_quiet else self._latest(run_id))
            yield state
            if change is None or state.status != "running":
                return
            with anyio.move_on_after(HEARTBEAT_SECONDS) as quiet:
                if pause_seconds and run is not None:
                    await run.until_ended(pause_seconds)
                await change()
            is_quiet = quiet.cancelled_caught

    def _end_of(self, run: LiveRun | None) -> RunState | None:
        """Return how a run ended that this process worked on and the caller owns, if it did."""
        known = run.record.known if run and run.ticket.caller == self._runs.caller else None
        return known if known and known.status != "running" else None

    async def _latest(self, run_id: str) -> RunState:
        """Return a run's state; all who watch a run of this process share what is known of it."""
        run = self._live.get(run_id)
        if run is None or run.ticket.caller != self._runs.caller:
            return await self.state(run_id)
        return await self._seen(await run.record.get(partial(self._runs.get, run_id)), run)

    async def _next_change(self, run_id: str) -> Callable[[], Awaitable[None]]:
        """Return a function that waits until the run changes, whoever works on it."""
        if self._live.get(run_id) is not None:
            return self._live.news(run_id).wait
        return partial(self._others.changed, await self._others.version())

    async def follow(self, run_id: str, after: int) -> AsyncGenerator[Sequence[Event]]:
        """Yield a run's events above `after` as they are recorded, until it has ended.

        Empty pages come in between, and now and then while nothing happens.

        Raises:
            NotFoundError: there is no such run.
        """
        async with aclosing(self._changes(run_id)) as changes:
            async for _ in changes:
                events = await self._runs.events(run_id, after=after, limit=FOLLOWED_EVENTS)
                while events:
                    yield events
                    after = events[-1].seq
                    events = await self._runs.events(run_id, after=after, limit=FOLLOWED_EVENTS)
                yield events

    def watch_text(self, run_id: str) -> AbstractContextManager[RootTextWatch]:
        """Look on while a run's root model writes, as far as this process works on the run.

        The caller has seen that the run is theirs.
        """
        return watch_text(self._live.root_texts, run_id)

    async def events(self, run_id: str, after: int, limit: int) -> Sequence[Event]:
        """Read a run's log.

        Raises:
            NotFoundError: there is no such run.
        """
        await self.state(run_id)
        return await self._runs.events(run_id, after=after, limit=limit)

    async def list(self, status: RunStatus | None, limit: int, cursor: str) -> Page[RunSummary]:
        """List runs, newest first.

        Raises:
            InvalidInputError: the cursor is not one of this list.
        """
        return await self._runs.list(status=status, limit=limit, cursor=cursor or None)

    async def starting_with(self, prefix: str, limit: int) -> Sequence[str]:
        """Return ids of runs that start so, newest first."""
        return await self._runs.starting_with(prefix, limit)

    async def cancel(self, run_id: str) -> RunState:
        """Stop a run and its spending, whichever server works on it; an ended one stays as it is.

        If ending it takes longer than a caller should wait, the returned run is still `running`.

        Raises:
            NotFoundError: there is no such run.
            StoreBusyError: another process is writing and does not end.
        """
        await self._runs.get(run_id)  # nobody stops a run of another caller
        run = self._live.get(run_id)
        if run is not None:
            run.end("cancelled")
        else:
            await self._others.cancel(run_id)
        with anyio.move_on_after(_CANCEL_SECONDS):
            await self._follow(run_id, _unreported_state)
        return await self.state(run_id)

    async def variables(self, run_id: str) -> list[Variable]:
        """List a run's variables, live ones while it works; the answer comes last, as `FINAL`.

        Raises:
            NotFoundError: there is no such run.
            SandboxBusyError: a cell of it runs.
        """
        state = await self.state(run_id)
        repl = await self._repl(run_id)
        if repl is None:
            found = list(await self._runs.variables(run_id))
        else:
            with _while_idle(run_id):
                found = await repl.variables()
        if state.answer is not None:
            preview = state.answer[:100]
            found.append(Variable(ANSWER_NAME, "str", len(state.answer), preview))
        return found

    async def variable(self, run_id: str, name: str, start: int, limit: int) -> VariableText:
        """Read a slice of one variable as text; `FINAL` is the answer.

        Raises:
            NotFoundError: there is no such run or variable.
            SandboxBusyError: a cell of the run is running.
        """
        state = await self.state(run_id)
        if name == ANSWER_NAME:
            return _answer_slice(state, start, limit)
        repl = await self._repl(run_id)
        if repl is not None:
            with _while_idle(run_id):
                return await repl.read_variable(name, start=start, limit=limit)
        try:
            return await self._runs.variable(run_id, name, start=start, limit=limit)
        except NotFoundError as error:
            if not await self.is_elsewhere(run_id):
                raise
            raise NotFoundError(
                f"{error.message} Another server works on it.",
                fix="Its variables can be read here once it has ended: rlm_run_wait.",
            ) from error

    async def is_elsewhere(self, run_id: str) -> bool:
        """Whether another process works on a run, so that its REPL cannot be reached from here.

        Raises:
            NotFoundError: there is no such run.
        """
        is_at_work = (await self._runs.get(run_id)).status == "running"
        return is_at_work and self._live.get(run_id) is None and await self._repl(run_id) is None

    async def _repl(self, run_id: str) -> Repl | None:
        """The REPL of a run at work, or the one that is kept of it."""
        run = self._live.get(run_id)
        return run.repl if run else await self._repls.find(run_id)


async def _unreported_state(state: RunState) -> None:
    """Nobody watches a run that ends."""


@contextmanager
def _while_idle(run_id: str) -> Generator[None]:
    """Bound the wait for a REPL whose cell runs.

    Raises:
        SandboxBusyError: the cell did not end in time.
    """
    with anyio.move_on_after(_BUSY_SECONDS) as scope:
        yield
    if scope.cancelled_caught:
        raise SandboxBusyError(
            f"A cell of {run_id!r} is running; its variables can be read between cells.",
            fix="Try again in a moment.",
        )


def _answer_slice(state: RunState, start: int, limit: int) -> VariableText:
    if state.answer is None:
        raise NotFoundError(
            f"The run {state.run_id!r} has no answer; it is {state.status}.",
            fix="rlm_run_variables without a name lists its variables.",
        )
    total = len(state.answer)
    start = min(start, total)
    end = min(start + limit, total)
    return VariableText(
        ANSWER_NAME, "str", total, state.answer[start:end], start=start, end=end, total=total
    )
