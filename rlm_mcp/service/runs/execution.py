"""One run at work: from its REPL to the last line of its log."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import anyio

from rlm_mcp.engine.budget import Budget
from rlm_mcp.engine.config import RLMConfig
from rlm_mcp.engine.loop.orchestrator import answer
from rlm_mcp.engine.models.endpoint import Endpoint
from rlm_mcp.engine.recording import Recording
from rlm_mcp.engine.run_context import Engine, repl_options
from rlm_mcp.engine.types import EventSink, RLMEvent, RLMResponse, Usage
from rlm_mcp.errors import RLMError, RunLostError, StoreError
from rlm_mcp.events import RunFinished, RunWarning
from rlm_mcp.sandbox.types import ContextSource, Repl, Sandbox
from rlm_mcp.service.repls import OpenRepl, Repls, save_variables
from rlm_mcp.service.runs.live import LiveRun, LiveRuns
from rlm_mcp.service.runs.other_servers import Elsewhere
from rlm_mcp.service.runs.queue import RunQueue
from rlm_mcp.service.runs.reply_cache import StoredReplies
from rlm_mcp.store.runs.records import Figures, NewEvent, Outcome, SavedVariable
from rlm_mcp.store.runs.rows import CANCELLED
from rlm_mcp.store.runs.runs import Runs

_LAST_LOOK_SECONDS = 1.0
_FINISH_SECONDS = 10.0
_RETRY_SECONDS = 5.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """A question that was checked, and all that its run needs to know.

    `continues` is the run whose REPL it goes on with; `variables` are what was saved of that, for
    when the REPL is gone. `recording` is what the log holds of a run that is taken up; its REPL was
    opened for `seed_run`, where that is another.
    """

    run_id: str
    question: str
    config: RLMConfig
    source: ContextSource
    root_model: str
    sub_model: str
    answer_schema: Mapping[str, Any] | None = None
    handles: Sequence[str] = ()
    continues: str = ""
    variables: Sequence[SavedVariable] = ()
    recording: Recording = field(default_factory=Recording)
    seed_run: str = ""

    @property
    def seed(self) -> int:
        """What `random` starts from: the same whenever the run's cells are run."""
        return int((self.seed_run or self.run_id)[4:12], 16)


@dataclass(frozen=True)
class Workshop:
    """What every run of this process works with, those of one caller at a time."""

    runs: Runs
    sandbox: Sandbox
    repls: Repls
    endpoint: Endpoint
    live: LiveRuns
    queue: RunQueue
    cell_queue: RunQueue
    elsewhere: Elsewhere
    cache: StoredReplies
    caller: str = ""

    def as_caller(self, caller: str) -> Workshop:
        """Return the same means with the records of another caller."""
        runs, cache = self.runs.as_caller(caller), self.cache.as_caller(caller)
        return replace(self, runs=runs, cache=cache, caller=caller)

    def engine(self, task: Task, budget: Budget, emit: EventSink) -> Engine:
        """Put together what a task's code and model calls go through."""
        return Engine(
            root=self.endpoint.model(task.root_model),
            sub=self.endpoint.model(task.sub_model),
            sandbox=self.sandbox,
            config=task.config,
            budget=budget,
            emit=emit,
            cache=self.cache.paid_by(task.run_id),
            model_names=(task.root_model, task.sub_model),
            answer_schema=task.answer_schema,
            recording=task.recording,
        )


class Execution:
    """Performs one task, and leaves its outcome in the store whatever happens."""

    def __init__(self, task: Task, run: LiveRun, shop: Workshop, budget: Budget) -> None:
        self._task = task
        self._run = run
        self._shop = shop
        self._budget = budget
        self._variables: list[SavedVariable] | None = None

    async def perform(self) -> None:
        """Work, in turn, until there is an answer or an end; the outermost frame of a run."""
        outcome = Outcome(self._run.stop)
        try:
            with self._run.scope:
                outcome = await self._outcome()
            if self._run.scope.cancelled_caught:
                outcome = stopped(self._run)
        except anyio.get_cancelled_exc_class():
            outcome = stopped(self._run)
            raise
        finally:
            self._run.ticket.leave()
            await self._end(outcome)
            self._shop.live.remove(self._run)

    async def _end(self, outcome: Outcome) -> None:
        """Store how the run ended; an answer that was paid for waits until there is room for it."""
        is_stored = False
        with anyio.move_on_after(_FINISH_SECONDS, shield=True):
            is_stored = await self._finish(outcome)
        while not is_stored:
            await anyio.sleep(_RETRY_SECONDS)  # ends here when the server does
            is_stored = await self._finish(outcome)

    async def _outcome(self) -> Outcome:
        recorded = self._task.recording
        if recorded.is_answered and recorded.final is not None:
            return Outcome("completed", recorded.final.answer, recorded.final.data)
        try:
            await self._wait_in_line()
            return _outcome_of(await self._answered())
        except RLMError as error:
            return Outcome("failed", error=error_fields(error))
        except Exception:  # a defect of ours must end this run alone, not the server
            log.exception("run %s failed", self._task.run_id)
            return Outcome(
                "failed",
                error=_fields("internal_error", "The server failed; its log says where."),
            )

    async def _wait_in_line(self) -> None:
        """Wait for a place to work in; none of the run's time passes meanwhile."""
        ticket = self._run.ticket
        if ticket.has_waited:
            await ticket.admitted.wait()
            await self._shop.runs.begin_work(self._task.run_id)
            self._budget.start_clock()
            self._shop.live.tell(self._task.run_id)

    async def _answered(self) -> RLMResponse:
        task = self._task
        one, engine = await self._open_repl()
        self._run.repl = one.repl
        response = None
        try:
            response = await answer(task.question, task.source, one.repl, engine)
            return response
        finally:
            await self._look_at_variables(one.repl)
            self._run.repl = None
            # Cancelled in the middle of a cell, or a cell that ran is not on record: what the REPL
            # holds then is not what the log says.
            if response is None or isinstance(response.error, StoreError):
                one.let_go.set()
            else:
                self._shop.repls.keep(task.run_id, one)

    async def _open_repl(self) -> tuple[OpenRepl, Engine]:
        task, repls = self._task, self._shop.repls
        engine = self._shop.engine(task, self._budget, self._emit)
        options = repl_options(task.config, seed=task.seed)
        own = repls.take(task.run_id, task.handles, options)
        if own is not None:
            return own, replace(engine, recording=replace(task.recording, is_repl_live=True))
        one = repls.take(task.continues, task.handles, options)
        if one is None:
            one = await repls.open(task.source, task.handles, options, task.variables)
        if one.lost:
            line = f"Variables of {task.continues} that could not be had back: "
            await self._emit(RLMEvent.of(RunWarning(), 0, line + ", ".join(one.lost[:20])))
        return one, engine

    async def _emit(self, event: RLMEvent) -> None:
        """Make an event durable, then tell whoever waits."""
        await self._shop.runs.append_event(self._task.run_id, new_event(event))
        self._shop.live.tell(self._task.run_id)

    async def _look_at_variables(self, repl: Repl) -> None:
        """Keep what the REPL holds before it ends, also when the run was cancelled."""
        self._variables = []
        with anyio.move_on_after(_LAST_LOOK_SECONDS, shield=True), suppress(RLMError):
            await save_variables(repl, self._variables)

    async def _finish(self, outcome: Outcome) -> bool:
        """Store how the run ended, unless it has ended by now; gives whether nothing is left."""
        usage = self._budget.snapshot()
        finished = RunFinished(outcome.status, outcome.error)
        event = NewEvent.of(finished, _ending(outcome), usage.iterations, figures(usage))
        try:
            await self._shop.runs.finish(self._task.run_id, outcome, event, self._variables)
        except RunLostError as error:
            log.warning("run %s ended elsewhere: %s", self._task.run_id, error)
        except StoreError as error:
            log.warning("the end of run %s could not be stored: %s", self._task.run_id, error)
            return False
        return True


def new_event(event: RLMEvent) -> NewEvent:
    """The engine's event as the store takes it."""
    return NewEvent(
        type=event.type,
        preview=event.preview,
        iteration=event.iteration,
        depth=event.depth,
        detail=event.detail,
        figures=figures(event.usage),
    )


def figures(usage: Usage) -> Figures:
    """The engine's figures as the store keeps them."""
    return Figures(**asdict(usage))


def error_fields(error: RLMError) -> dict[str, Any]:
    """An error as `{code, message, retryable, fix}`."""
    return error.fields


def _fields(code: str, message: str, *, retryable: bool = False, fix: str = "") -> dict[str, Any]:
    return {"code": code, "message": message, "retryable": retryable, "fix": fix}


def _outcome_of(response: RLMResponse) -> Outcome:
    error = None if response.error is None else error_fields(response.error)
    return Outcome(response.status, response.answer, _plain(response.data), error)


def _plain(data: Any) -> Any:
    return None if data is None else json.loads(json.dumps(data))


def stopped(run: LiveRun) -> Outcome:
    """How a run ends that was told to."""
    if run.stop == "cancelled":
        return CANCELLED
    error = _fields(
        "interrupted",
        "The server stopped while it worked on this run.",
        retryable=True,
        fix="rlm_run_resume goes on where it was.",
    )
    return Outcome("interrupted", error=error)


def _ending(outcome: Outcome) -> str:
    reason = f": {outcome.error['message']}" if outcome.error else ""
    return f"{outcome.status}{reason}"
