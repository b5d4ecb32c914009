"""Works on questions on the workers of a cluster; the server stands for each run meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from rlm_mcp.engine.budget import Budget
from rlm_mcp.engine.daily_limits import Spent
from rlm_mcp.engine.run_context import RLMEvent, repl_options
from rlm_mcp.errors import InvalidInputError
from rlm_mcp.events import FORMAT_VERSION, RunStarted, RunWarning
from rlm_mcp.service.executor.attempt_log import AttemptLog
from rlm_mcp.service.executor.cluster import WorkerLostError
from rlm_mcp.service.executor.crew import Crew, CrewWorker
from rlm_mcp.service.executor.messages import (
    Earlier,
    Ended,
    FindReplies,
    Job,
    KeepReplies,
    Lines,
    Passage,
    Piece,
    Place,
    PlaceOfPassage,
    Question,
    TextLabel,
    TextPart,
)
from rlm_mcp.service.executor.remote_repl import HeldRepl, RemoteRepl, stand_in
from rlm_mcp.service.executor.remote_text import read_text
from rlm_mcp.service.runs.execution import Execution, RunServices, Task, new_event
from rlm_mcp.service.runs.live import LiveRun, Ticket
from rlm_mcp.service.runs.resuming import Resumer
from rlm_mcp.store.runs.records import INTERRUPTED, Outcome, SavedVariable
from rlm_mcp.values import Usage, error_fields

if TYPE_CHECKING:
    from rlm_mcp.store.contexts.contexts import Contexts
    from rlm_mcp.store.runs.leases import RunLeases

# A worker that does not say by then that it stopped spends no more than what is in flight: what
# follows is refused.
_STOP_SECONDS = 8.0
_SAME = "Install the same version of rlm-mcp on all nodes."


@dataclass(frozen=True)
class CrewDuty:
    """What the runs of all callers share that work on a crew."""

    crew: Crew
    leases: RunLeases
    tasks: TaskGroup


class RemoteExecutor:
    """A `RunExecutor` whose runs are worked on by a crew.

    Args:
        services: what the runs of one caller work with.
        texts: of that caller.
        duty: what all callers share.
    """

    def __init__(self, services: RunServices, texts: Contexts, duty: CrewDuty) -> None:
        self._services = services
        self._duty = duty
        duty.crew.watched = partial(tuple, services.live.root_texts)
        self._resumer = Resumer(services.runs, texts, self.walls, services.pricing)

    async def walls(self, key: str) -> Mapping[str, Any] | None:
        """Describe the walls of the worker that is likely to work; None while none is up."""
        worker = self._duty.crew.likely(key)
        return None if worker is None else asdict(worker.status.isolation)

    def execute(self, task: Task, budget: Budget, ticket: Ticket) -> None:
        """Start working on a run, or waiting for a place to; returns at once."""
        run = LiveRun(task.run_id, ticket)
        self._services.live.add(run)
        services = self._services.as_attempt(task.attempt)
        work = RemoteWork(task, budget, services, self._duty, self._resumer)
        work.execution = execution = Execution(run, work, services)
        self._duty.tasks.start_soon(execution.perform, name=task.run_id)


class RemoteWork:
    """A question that workers work on, one after another where they are lost."""

    execution: Execution

    def __init__(
        self,
        task: Task,
        budget: Budget,
        services: RunServices,
        duty: CrewDuty,
        resumer: Resumer,
    ) -> None:
        self._task = task
        self._budget = budget
        self._services = services
        self._duty = duty
        self._resumer = resumer
        self._log = AttemptLog(services.runs, task.run_id)
        self._settled = anyio.Event()
        self._ended: Ended | None = None
        self._worker: CrewWorker | None = None
        self.usage: Usage = budget.snapshot()
        self.variables: Sequence[SavedVariable] | None = None

    @property
    def attempt(self) -> int:
        """Which attempt at the run this is."""
        return self._task.attempt

    @property
    def caller(self) -> str:
        """Whose run it is."""
        return self._services.runs.caller

    async def perform(self, run: LiveRun) -> Outcome:
        """Wait for a place, and have workers work until one of them has an outcome.

        Raises:
            RLMError: no worker can work, or the run cannot continue on another one.
        """
        await self._wait_in_line(run.ticket)
        while True:
            before = await self._held_by(self._task.run_id, self._task.continues)
            worker = await self._duty.crew.pick(self._task.source.key, before)
            outcome = await self._work_on(worker, run)
            if outcome is not None:
                return outcome
            if not await self._take_over():
                return INTERRUPTED  # it has ended in the store by now

    async def _wait_in_line(self, ticket: Ticket) -> None:
        """Wait for a place to work in; none of the run's time passes meanwhile."""
        if ticket.has_waited:
            await ticket.admitted.wait()
            await self._services.runs.begin_work(self._task.run_id)
            self._budget.start_clock()
            self._services.live.notify(self._task.run_id)

    async def _held_by(self, *run_ids: str) -> CrewWorker | None:
        """Return the worker that holds the REPL of the first of these runs of which one does."""
        for run_id in run_ids:
            repl = await self._services.repls.find(run_id)
            if isinstance(repl, HeldRepl):
                return repl.worker
        return None

    async def _work_on(self, worker: CrewWorker, run: LiveRun) -> Outcome | None:
        """Have a worker work; return how that ended, or None where the worker is lost."""
        run_id = run.run_id
        self._settled, self._ended, self._worker = anyio.Event(), None, worker
        worker.runs[run_id] = self
        worker.texts.add(self._task.source.key)
        run.repl = RemoteRepl(worker, (run_id, self.attempt))
        try:
            await self._tell_walls(worker)
            await worker.process.call("work", self._job(self._lent_to(worker)))
            await self._settled.wait()
        except WorkerLostError:
            return None
        except anyio.get_cancelled_exc_class():
            with anyio.move_on_after(_STOP_SECONDS, shield=True):
                await self._stop(worker, run)
            raise
        finally:
            run.repl = None
            del worker.runs[run_id]
        return self._ended.outcome if self._ended else None

    async def _tell_walls(self, worker: CrewWorker) -> None:
        """Log what stands between model code and the worker, where the log says otherwise.

        Raises:
            StoreError: it could not be stored.
        """
        isolation = worker.status.isolation
        if asdict(isolation) != self._task.isolation:
            self._task = replace(self._task, isolation=asdict(isolation))
            line = f"The worker's isolation is {isolation.level!r}: {', '.join(isolation.layers)}."
            warning = RLMEvent.of(RunWarning(), self.usage.iterations, line, usage=self.usage)
            await self._write(Lines([new_event(warning)]))

    def _lent_to(self, worker: CrewWorker) -> Place | None:
        """Give the run's REPL back to the worker that holds it; let one elsewhere go."""
        task, repls = self._task, self._services.repls
        one = repls.claim(task.run_id, task.handles, repl_options(task.config, seed=task.seed))
        if one is None:
            return None
        if isinstance(one.repl, HeldRepl) and one.repl.worker is worker:
            return one.repl.lend()
        one.let_go.set()
        return None

    def _hold(self, worker: CrewWorker) -> None:
        """Keep the REPL, which the worker holds for cells of the caller."""
        task = self._task
        held = HeldRepl(worker, (task.run_id, task.attempt), task.source, self.caller)
        options = repl_options(task.config, seed=task.seed)
        one = stand_in(held, task.handles, options, self._duty.tasks)
        self._services.repls.keep(task.run_id, one, caller=self.caller)

    def _job(self, repl: Place | None) -> Job:
        task, budget = self._task, self._budget
        return Job(
            spec=task.spec,
            caller=self.caller,
            text=TextLabel.of(task.source),
            pricing=budget.pricing,
            spent=budget.snapshot(),
            spent_seconds=budget.elapsed_seconds,
            repl=repl,
        )

    async def _stop(self, worker: CrewWorker, run: LiveRun) -> None:
        """Have the worker stop; what it has to say of the end comes before this returns."""
        try:
            await worker.process.call("stop", run.run_id, run.stop)
        except WorkerLostError:
            return  # it spends no more

    def lose(self) -> None:
        """Take note that the worker is lost."""
        self._settled.set()

    async def _take_over(self) -> bool:
        """Become the next attempt, and read from the log where it continues.

        Returns:
            False: there is nothing to continue: it was to be cancelled, or it lost too many
            workers.

        Raises:
            RLMError: it cannot continue.
        """
        run_id, runs = self._task.run_id, self._services.runs
        record, worker = await runs.get(run_id), self._duty.crew.likely(self._task.source.key)
        walls = None if worker is None else asdict(worker.status.isolation)
        started = RunStarted(
            version=FORMAT_VERSION,
            question=record.question,
            contexts=record.contexts,
            options=record.config,
            isolation=walls,
            resumed=record.status,
        )
        event = new_event(RLMEvent.of(started, 0, "continues on another worker"))
        attempt = await self._duty.leases.take_over(run_id, self.attempt, event)
        if attempt is None:
            return False
        self._services = self._services.as_attempt(attempt)
        self.execution.runs = self._services.runs
        self._log = AttemptLog(self._services.runs, run_id)
        self._task = replace(self._task, attempt=attempt)
        self._services.live.notify(run_id)
        ready = await self._resumer.prepare(await runs.get(run_id), {})
        self._task = replace(ready.task, attempt=attempt, isolation=walls)
        self._budget = ready.budget
        self.usage = self._budget.snapshot()
        return True

    async def answer(self, question: Question) -> Any:  # noqa: PLR0911  # one for each kind
        """Do what the worker asks for the run.

        Raises:
            RLMError: it cannot be done.
        """
        services, run_id = self._services, self._task.run_id
        if isinstance(question, Ended):
            return await self._end(question)
        if isinstance(question, Lines):
            return await self._write(question)
        if isinstance(question, Piece):
            return await self._hear(question.text)
        if isinstance(question, Earlier):
            return await services.runs.get(question.run_id)
        if isinstance(question, FindReplies):
            return await services.cache.get_many(list(question.keys))
        if isinstance(question, KeepReplies):
            return await services.cache.paid_by(run_id).put_many(question.texts)
        if isinstance(question, TextPart | Passage | PlaceOfPassage):
            return await anyio.to_thread.run_sync(read_text, self._task.source, question)
        raise InvalidInputError(f"A run is not asked for {type(question).__name__!r}.", fix=_SAME)

    async def _write(self, lines: Lines) -> Spent | None:
        """Make lines durable, then notify whoever waits; return what was used today."""
        last, live, run_id = lines.events[-1], self._services.live, self._task.run_id
        text = live.root_texts.get(run_id)
        if last.depth == 0 and text is not None:
            text.begin(last.iteration)
        began = anyio.current_time()
        stored = await self._log.append(lines)
        live.tally(self.caller).add_lag(anyio.current_time() - began, len(stored))
        allowance = self._budget.pricing.allowance
        if allowance is not None:
            allowance.charge(*_used_since(self.usage, last.figures))
        self.usage = last.figures
        live.notify(run_id, stored[-1])
        return None if allowance is None else allowance.spent

    async def _end(self, ended: Ended) -> None:
        """Take in how the work ended; it failed where lines could not be stored."""
        refusal = await self._log.settled()
        if refusal is not None:
            ended = replace(ended, outcome=Outcome("failed", error=error_fields(refusal)))
        self._ended = ended
        self.usage, self.variables = ended.usage, ended.variables
        if ended.holds_repl and self._worker is not None:
            self._hold(self._worker)
            if refusal is not None:  # what the REPL holds differs from the log
                self._services.repls.drop(self._task.run_id)
        self._settled.set()

    async def _hear(self, piece: str) -> None:
        text = self._services.live.root_texts.get(self._task.run_id)
        if text is not None:
            await text.add(piece)


def _used_since(before: Usage, after: Usage) -> tuple[int, float]:
    """Return the tokens and the USD between two moments of a run."""
    tokens = after.input_tokens + after.output_tokens - before.input_tokens - before.output_tokens
    return max(0, tokens), max(0.0, (after.cost_usd or 0.0) - (before.cost_usd or 0.0))
