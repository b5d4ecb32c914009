"""A worker: hosts many runs on one node, with the REPLs and walls that a server has.

Only what its runs write is elsewhere: lines go to the server, and last before a model is asked.
The server starts the worker, calls it, and ends it; when the server dies, so does the worker.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from rlm_mcp import __version__
from rlm_mcp.engine.budget import Budget
from rlm_mcp.engine.daily_limits import Allowance
from rlm_mcp.engine.models.named import Models, open_models
from rlm_mcp.errors import RLMError
from rlm_mcp.sandbox.choice import OwnedSandbox, make_sandbox
from rlm_mcp.sandbox.types import Repl, ReplOptions
from rlm_mcp.service.catalogue import catalogue_of
from rlm_mcp.service.executor.held_repls import HeldRepls
from rlm_mcp.service.executor.local import QuestionWork
from rlm_mcp.service.executor.messages import (
    Answer,
    Ask,
    Crowded,
    Demand,
    Job,
    Piece,
    Place,
    Refused,
    WantedRepl,
    WorkerStatus,
)
from rlm_mcp.service.executor.outbox import Outbox, RemoteJournal, RemoteReplies
from rlm_mcp.service.executor.remote_text import RemoteSource
from rlm_mcp.service.executor.sent_settings import received
from rlm_mcp.service.executor.shares import hold, tell_refusals
from rlm_mcp.service.machine import places, share_descriptors
from rlm_mcp.service.repls import Repls
from rlm_mcp.service.runs.execution import Execution, RunSpec, Task, Workplace
from rlm_mcp.service.runs.live import LiveRun, LiveRuns, RunQueue, Stop
from rlm_mcp.service.runs.root_text import RootText
from rlm_mcp.settings import Settings

# The server's places bound what is sent here.
_NO_LIMIT = 1 << 20


@dataclass(frozen=True)
class _Open:
    """What is open while a worker serves."""

    models: Models
    sandbox: OwnedSandbox
    repls: Repls
    held: HeldRepls
    calls: anyio.CapacityLimiter
    most_calls: int
    tasks: TaskGroup


class Worker:
    """Hosts runs; each method is called by the server, many of them at the same time.

    Args:
        sent: what the server told of its settings.
        shared: a sandbox that others use too; None for one of its own.
    """

    def __init__(self, sent: Mapping[str, Any], shared: OwnedSandbox | None = None) -> None:
        self._sent = sent
        self._shared = shared
        self._outbox = Outbox()
        self._live = LiveRuns()
        self._queue = RunQueue(_NO_LIMIT)
        self._allowances: dict[str, Allowance] = {}
        self._attempts: dict[str, int] = {}
        self._open: _Open | None = None
        self._status: WorkerStatus | Refused | None = None
        self._up = anyio.Event()

    async def serve(self) -> None:
        """Open models and sandbox, and host runs for as long as this process lives."""
        try:
            settings = await anyio.to_thread.run_sync(received, self._sent)
            await self._host_runs(settings)
        except RLMError as error:
            self._status = Refused.of(error)
            self._up.set()
        finally:
            self._outbox.close()

    async def _host_runs(self, settings: Settings) -> None:
        descriptors = await anyio.to_thread.run_sync(share_descriptors)
        most_calls = min(settings.max_concurrent_calls, descriptors.calls)
        calls = anyio.CapacityLimiter(1)  # until the server tells this worker's share
        sandbox = self._shared or make_sandbox(
            settings.sandbox, settings.min_isolation, docker_image=settings.docker_image
        )
        async with (
            open_models(catalogue_of(settings), limiter=calls) as models,
            sandbox,
            anyio.create_task_group() as tasks,
        ):
            isolation = await sandbox.require_isolation()
            repls = Repls(sandbox, tasks, descriptors.kept)
            tasks.start_soon(repls.evict)
            held = HeldRepls(repls, self._outbox, tasks)
            tell_refusals(models, partial(self._outbox.tell, "", 0))
            self._open = _Open(models, sandbox, repls, held, calls, most_calls, tasks)
            most = settings.worker_runs or settings.max_concurrent_runs
            most = most or await anyio.to_thread.run_sync(places, ReplOptions().memory_bytes)
            self._status = WorkerStatus(
                __version__, platform.python_version(), os.getpid(), most, isolation
            )
            self._up.set()
            try:
                await anyio.sleep_forever()
            finally:
                self._outbox.close()  # before the runs end, which would wait for answers

    async def status(self) -> WorkerStatus | Refused | None:
        """Describe this worker, once it is up; or say why it cannot be."""
        await self._up.wait()
        return self._status

    async def ping(self, calls: int, watched: Sequence[str]) -> Demand:
        """Say how many model calls there are, and take note of what the server says.

        Args:
            calls: how many model calls may be under way here at once.
            watched: runs whose root model's words somebody reads as they come.
        """
        for run_id in self._live.root_texts.keys() - set(watched):
            del self._live.root_texts[run_id]
        for run_id in watched:
            if self._live.get(run_id) is not None and run_id not in self._live.root_texts:
                at = run_id, self._attempts[run_id]
                self._live.root_texts[run_id] = _SentText(self._outbox, at)
        return self._share(calls)

    def _share(self, calls: int) -> Demand:
        """Have so many calls under way at once from now on; return how many there are to make."""
        if self._open is None:
            return Demand(0, 0)
        limiter, most = self._open.calls, self._open.most_calls
        limiter.total_tokens = max(1, min(calls, most))
        found = limiter.statistics()
        under_way = found.borrowed_tokens
        return Demand(under_way, max(0, min(found.tasks_waiting, most - under_way)))

    async def hold(self, crowded: Crowded) -> None:
        """Leave a provider alone that refused another worker, or the server, a call."""
        if self._open is not None:
            hold(self._open.models, crowded)

    async def take(self, answers: Sequence[Answer]) -> list[Ask]:
        """Take answers of the server in, wait for what it is to do next, and return that."""
        self._outbox.settle(answers)
        return await self._outbox.take()

    async def settle(self, answers: Sequence[Answer]) -> None:
        """Take answers of the server in."""
        self._outbox.settle(answers)

    async def work(self, job: Job) -> None:
        """Start to work on a run; returns at once."""
        if self._open is None:
            return
        spec, outbox = job.spec, self._outbox
        at = spec.run_id, spec.attempt
        run = LiveRun(spec.run_id, self._queue.enter(job.caller))
        self._live.add(run)
        self._attempts = {one: at for one, at in self._attempts.items() if self._live.get(one)}
        self._attempts[spec.run_id] = spec.attempt
        held = self._open.held
        if job.repl is not None:
            held.give(job.repl)
        journal = RemoteJournal(outbox, at, job.caller, self._allowance(job), held.hold)
        place = Workplace(
            journal,
            self._open.sandbox,
            self._open.repls,
            self._open.models,
            self._live,
            RemoteReplies(outbox, at),
        )
        known = {one.name: getattr(spec, one.name) for one in fields(RunSpec)}
        task = Task(**known, source=RemoteSource(job.text, outbox, at))
        budget = Budget(
            spec.config,
            spent=job.spent,
            spent_seconds=job.spent_seconds,
            pricing=replace(job.pricing, allowance=journal.allowance),
        )
        work = QuestionWork(task, place, budget)
        execution = Execution(run, work, place)
        self._open.tasks.start_soon(execution.perform, name=spec.run_id)

    def _allowance(self, job: Job) -> Allowance | None:
        """Return what the caller may use today, which all its runs here share."""
        told = job.pricing.allowance
        if told is None:
            return None
        known = self._allowances.setdefault(job.caller, told)
        known.learn(told.spent)
        return known

    async def stop(self, run_id: str, stop: Stop) -> None:
        """Stop a run; returns once it spends no more, and the server has its end."""
        run = self._live.get(run_id)
        if run is not None:
            run.end(stop)
            await run.ended.wait()

    async def variables(self, at: Place) -> Any:
        """List the variables of a REPL; none while it is not open."""
        repl = self._repl(at)
        return [] if repl is None else await _refused(repl.variables())

    async def read_variable(self, at: Place, name: str, start: int, limit: int, whole: bool) -> Any:
        """Read a slice of a variable of a REPL."""
        repl = self._repl(at)
        if repl is None:
            return Refused("SandboxBusyError", f"The REPL of {at[0]!r} is not open.")
        return await _refused(repl.read_variable(name, start=start, limit=limit, whole=whole))

    def _repl(self, at: Place) -> Repl | None:
        """Return the REPL of a run at work, or one that is held for cells."""
        run = self._live.get(at[0])
        if run is not None:
            return run.repl
        return self._held.find(at)

    @property
    def _held(self) -> HeldRepls:
        assert self._open is not None  # noqa: S101  # only a worker that is up is asked
        return self._open.held

    async def open_repl(self, at: Place, wanted: WantedRepl) -> Any:
        """Open a REPL for cells; see `HeldRepls`, as of the methods below."""
        return await _refused(self._held.open(at, wanted))

    async def run_cell(self, at: Place, code: str, timeout_seconds: float) -> Any:
        """Run a cell of the caller."""
        return await _refused(self._held.run_cell(at, code, timeout_seconds))

    async def stop_cell(self, at: Place) -> None:
        """Stop the cell that runs in a REPL, or its opening; returns when that has ended."""
        await self._held.stop(at)

    async def holds_repl(self, at: Place) -> bool:
        """Whether a REPL is still held here."""
        return self._held.find(at) is not None

    async def saved(self, at: Place, after_cell: bool) -> Any:
        """Read what a REPL holds."""
        return await _refused(self._held.saved(at, after_cell=after_cell))

    async def close_repl(self, at: Place) -> None:
        """Let a REPL go."""
        await self._held.close(at)


async def _refused(asked: Awaitable[Any]) -> Any:
    """Return what was asked for, or the error as a value."""
    try:
        return await asked
    except RLMError as error:
        return Refused.of(error)


class _SentText(RootText):
    """What a root model writes, sent to the server as it comes."""

    def __init__(self, outbox: Outbox, at: tuple[str, int]) -> None:
        super().__init__()
        self._outbox = outbox
        self._at = at

    async def add(self, piece: str) -> None:
        """Send a piece; an empty one says that the model begins anew."""
        self._outbox.tell(*self._at, Piece(piece))
