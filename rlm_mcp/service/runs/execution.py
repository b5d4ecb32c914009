"""The life of a run at work: it waits in line, works, and ends in the store whatever happens."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Protocol

import anyio

from rlm_mcp.engine.budget import Budget
from rlm_mcp.engine.cache import SubCallCache
from rlm_mcp.engine.config import RLMConfig
from rlm_mcp.engine.pricing import Pricing
from rlm_mcp.engine.recording import Recording
from rlm_mcp.engine.run_context import Engine, EventSink, RLMEvent
from rlm_mcp.errors import RLMError, RunLostError, StoreError, TooManyFilesError, lacks_descriptors
from rlm_mcp.events import RunFinished
from rlm_mcp.sandbox.types import ContextSource, Sandbox
from rlm_mcp.service.repls import Repls
from rlm_mcp.service.runs.live import LiveRun, LiveRuns, Ticket
from rlm_mcp.store.runs.records import (
    CANCELLED,
    INTERRUPTED,
    Event,
    NewEvent,
    Outcome,
    RunRecord,
    SavedVariable,
)
from rlm_mcp.values import Usage, error_fields, stored_error

if TYPE_CHECKING:
    from rlm_mcp.engine.models.named import Models
    from rlm_mcp.service.allowances import Allowances
    from rlm_mcp.store.runs.replies import StoredReplies
    from rlm_mcp.store.runs.runs import Runs

_FINISH_SECONDS = 10.0
_RETRY_SECONDS = 5.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """A question that was checked, and what its run needs to know; it can be pickled.

    Whoever works on it lays its texts out by `handles`, and writes to its log as `attempt`.
    `continues` is the run whose REPL it continues; `variables` are what was saved of that, for
    when the REPL is gone. `recording` is what the log holds of a run that is resumed; its REPL was
    opened for `seed_run`, where that is another. `isolation` is what its log says of the walls.
    """

    run_id: str
    question: str
    config: RLMConfig
    root_model: str
    sub_model: str
    answer_schema: Mapping[str, Any] | None = None
    handles: Sequence[str] = ()
    continues: str = ""
    variables: Sequence[SavedVariable] = ()
    recording: Recording = field(default_factory=Recording)
    seed_run: str = ""
    attempt: int = 1
    isolation: Mapping[str, Any] | None = None

    @property
    def seed(self) -> int:
        """What `random` starts from: the same whenever the run's cells are run."""
        return int((self.seed_run or self.run_id)[4:12], 16)


@dataclass(frozen=True, kw_only=True)
class Task(RunSpec):
    """A run's spec, with its texts in the store at hand."""

    source: ContextSource

    @property
    def spec(self) -> RunSpec:
        """The part that can travel."""
        return RunSpec(**{one.name: getattr(self, one.name) for one in fields(RunSpec)})


class RunExecutor(Protocol):
    """Where the runs of one caller are worked on."""

    async def walls(self, key: str) -> Mapping[str, Any] | None:
        """Describe what stands between model code and the machine that works on a run.

        None where it is not known yet; where it is another one in the end, the log says so.

        Args:
            key: of the run's text.
        """
        ...

    def execute(self, task: Task, budget: Budget, ticket: Ticket) -> None:
        """Start working on a run, or waiting for a place to; returns at once.

        The run is among the live ones until it has ended in the store, whatever happens, and its
        `ticket` is given back by then.
        """
        ...


class Journal(Protocol):
    """Where one caller's runs are written down, by whoever works on them.

    What is written lasts once a method has returned, or else before a model is asked again. A run
    that has ended, or that a later attempt works on, takes no more: `RunLostError`.
    """

    @property
    def caller(self) -> str:
        """Whose runs these are."""
        ...

    async def begin_work(self, run_id: str) -> None:
        """Start counting the time of a run that has waited in line."""
        ...

    async def append_events(
        self, run_id: str, events: Sequence[NewEvent]
    ) -> Sequence[Event] | None:
        """Append lines to a run's log, in order; return them, if they are stored here."""
        ...

    async def get(self, run_id: str) -> RunRecord:
        """Return a run's record."""
        ...

    async def finish(
        self,
        run_id: str,
        outcome: Outcome,
        event: NewEvent,
        variables: Sequence[SavedVariable] | None = None,
    ) -> RunRecord | None:
        """Store how a run ended, with its last line and its variables; return it, if here."""
        ...


class PaidReplies(Protocol):
    """Replies of sub-calls that were paid for."""

    def paid_by(self, run_id: str) -> SubCallCache:
        """Return the same replies; those that are kept from now on belong to a run."""
        ...


@dataclass(frozen=True)
class Workplace:
    """What a run is worked on with, in this process or on a worker."""

    runs: Journal
    sandbox: Sandbox
    repls: Repls
    models: Models
    live: LiveRuns
    cache: PaidReplies

    def engine(self, task: Task, budget: Budget, emit: EventSink) -> Engine:
        """Assemble what a task's code and model calls go through."""
        return Engine(
            root=self.models.model(task.root_model),
            sub=self.models.model(task.sub_model),
            sandbox=self.sandbox,
            config=task.config,
            budget=budget,
            emit=emit,
            cache=self.cache.paid_by(task.run_id),
            model_names=_names(task, self.models.catalogue.names),
            answer_schema=task.answer_schema,
            recording=task.recording,
            place_of=self.models.catalogue.place_of,
            lists_variables=False,  # they are read for the store
        )


@dataclass(frozen=True)
class RunServices(Workplace):
    """What the runs of one caller work with in the server."""

    runs: Runs
    cache: StoredReplies
    allowances: Allowances

    def as_caller(self, caller: str) -> RunServices:
        """Return the same services over the records of another caller."""
        runs, cache = self.runs.as_caller(caller), self.cache.as_caller(caller)
        return replace(self, runs=runs, cache=cache)

    def as_attempt(self, attempt: int) -> RunServices:
        """Return the same services, which write to a run only while that is its attempt."""
        return replace(self, runs=self.runs.as_attempt(attempt))

    async def pricing(self, root_model: str, sub_model: str) -> Pricing:
        """Find out what the models of a run cost."""
        prices = await self.models.prices(root_model, sub_model)
        allowance = await self.allowances.of(self.runs) if self.runs.caller else None
        return Pricing(prices, root_model, sub_model, self.models.catalogue.names, allowance)


def _names(task: Task, allowed: Sequence[str]) -> tuple[str, ...]:
    """Return the names that the run's code may choose: the root's first, that of sub-calls last."""
    ends = (task.root_model, task.sub_model)
    return (ends[0], *(name for name in allowed if name not in ends), ends[1])


class Work(Protocol):
    """What a run does between its start and its end.

    `variables` are those to store with the end; None keeps the ones stored before.
    """

    @property
    def variables(self) -> Sequence[SavedVariable] | None:
        """What the REPL held at the end."""
        ...

    @property
    def usage(self) -> Usage:
        """What the run has used."""
        ...

    async def perform(self, run: LiveRun) -> Outcome:
        """Work until there is an outcome; cancelled when the run is to stop."""
        ...


class Execution:
    """Performs one run's work, and stores how it ended whatever happens.

    Both kinds of run live by it: a question that a root model works on, and a cell of the caller.

    Args:
        is_patient: try to store the end for as long as the server runs: an answer that was paid
            for waits until there is room for it. Otherwise a failure is raised.
    """

    def __init__(
        self, run: LiveRun, work: Work, services: Workplace, *, is_patient: bool = True
    ) -> None:
        self._run = run
        self._work = work
        self.runs = services.runs
        """Where its end is stored; replaced where another attempt takes the run over."""
        self._live = services.live
        self._is_patient = is_patient
        run.begin(work)

    async def perform(self) -> Outcome:
        """Work to the end, and give back the place in the queue; the outermost frame of a run.

        Whoever awaits this may be cancelled: the run then ends as its `stop` says.

        Raises:
            StoreError: the end could not be stored, and the execution is not patient.
        """
        outcome = Outcome(self._run.stop)
        try:
            with self._run.scope:
                outcome = await self._outcome()
            if self._run.scope.cancelled_caught:
                outcome = _stopped(self._run)
        except anyio.get_cancelled_exc_class():
            outcome = _stopped(self._run)
            raise
        finally:
            self._run.ticket.leave()
            try:
                await self._end(outcome)
            finally:
                self._live.remove(self._run, outcome.status)
        return outcome

    async def _outcome(self) -> Outcome:
        try:
            return await self._work.perform(self._run)
        except RLMError as error:
            return Outcome("failed", error=error_fields(error))
        except Exception as error:  # a defect of ours must end this run alone, not the server
            if lacks_descriptors(error):
                return Outcome("failed", error=error_fields(TooManyFilesError()))
            log.exception("run %s failed", self._run.run_id)
            message = "The server failed; its log says where."
            return Outcome("failed", error=stored_error("internal_error", message))

    async def _end(self, outcome: Outcome) -> None:
        failure: StoreError | None = StoreError("The database did not answer.", fix="Try again.")
        with anyio.move_on_after(_FINISH_SECONDS, shield=True):
            failure = await self._store_end(outcome)
        while failure is not None and self._is_patient:
            await anyio.sleep(_RETRY_SECONDS)  # ends here when the server does
            failure = await self._store_end(outcome)
        if failure is not None:
            raise failure

    async def _store_end(self, outcome: Outcome) -> StoreError | None:
        """Store how the run ended, unless it has ended by now; return what kept it from that."""
        usage = self._work.usage
        reason = f": {outcome.error['message']}" if outcome.error else ""
        by_model = tuple(map(asdict, usage.by_model)) or None
        finished = RunFinished(outcome.status, outcome.error, usage_by_model=by_model)
        line = f"{outcome.status}{reason}"
        event = new_event(RLMEvent.of(finished, usage.iterations, line, usage=usage))
        try:
            variables = self._work.variables
            ended = await self.runs.finish(self._run.run_id, outcome, event, variables)
        except RunLostError as error:
            log.warning("run %s was ended by another process: %s", self._run.run_id, error)
        except StoreError as error:
            log.warning("storing the end of run %s failed: %s", self._run.run_id, error)
            return error
        else:
            if ended is not None:
                self._run.record.set(ended)
        return None


def new_event(event: RLMEvent) -> NewEvent:
    """The engine's event as the store takes it."""
    return NewEvent(
        type=event.type,
        preview=event.preview,
        iteration=event.iteration,
        depth=event.depth,
        detail=event.detail,
        figures=event.usage,
    )


async def write_lines(services: Workplace, run_id: str, lines: Sequence[NewEvent]) -> None:
    """Make lines of a run's log durable, then notify whoever waits."""
    live, runs, began = services.live, services.runs, anyio.current_time()
    if text := live.root_texts.get(run_id):
        for line in lines:
            if line.depth == 0:
                text.begin(line.iteration)
    stored = await runs.append_events(run_id, lines)
    live.tally(runs.caller).add_lag(anyio.current_time() - began, len(lines))
    live.notify(run_id, stored[-1] if stored else None)


def _stopped(run: LiveRun) -> Outcome:
    """How a run ends that was stopped."""
    usual = CANCELLED if run.stop == "cancelled" else INTERRUPTED
    return replace(usual, error=run.stop_error) if run.stop_error else usual
