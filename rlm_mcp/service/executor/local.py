"""Works on questions in this process."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import anyio
from anyio.abc import TaskGroup

from rlm_mcp.engine.budget import Budget
from rlm_mcp.engine.loop.orchestrator import answer
from rlm_mcp.engine.prompts.earlier import Earlier, describe_earlier
from rlm_mcp.engine.run_context import Engine, RLMEvent, repl_options
from rlm_mcp.engine.types import RLMResponse
from rlm_mcp.errors import NotFoundError, SandboxError, StoreError
from rlm_mcp.events import RunWarning
from rlm_mcp.sandbox.types import Variable
from rlm_mcp.service.repls import OpenRepl
from rlm_mcp.service.runs.execution import (
    Execution,
    RunServices,
    Task,
    Workplace,
    new_event,
    write_lines,
)
from rlm_mcp.service.runs.live import LiveRun, Ticket
from rlm_mcp.service.saved_variables import last_variables
from rlm_mcp.store.runs.records import Outcome, SavedVariable
from rlm_mcp.text import names_in_line
from rlm_mcp.values import Usage, error_fields

# How many of the questions before a continued one are told to the model.
_EARLIER_QUESTIONS = 5
_LOOK_SECONDS = 10.0


class LocalExecutor:
    """A `RunExecutor` whose runs are tasks of this process, with REPLs on this machine.

    Args:
        services: what the runs of one caller work with.
        tasks: outlives every request.
    """

    def __init__(self, services: RunServices, tasks: TaskGroup) -> None:
        self._services = services
        self._tasks = tasks

    async def walls(self, key: str) -> Mapping[str, Any]:
        """Describe what stands between model code and this machine."""
        del key
        return asdict(await self._services.sandbox.isolation())

    def execute(self, task: Task, budget: Budget, ticket: Ticket) -> None:
        """Start working on a run, or waiting for a place to; returns at once."""
        run = LiveRun(task.run_id, ticket)
        self._services.live.add(run)
        services = self._services.as_attempt(task.attempt)
        execution = Execution(run, QuestionWork(task, services, budget), services)
        self._tasks.start_soon(execution.perform, name=task.run_id)


class QuestionWork:
    """A question, worked on by a root model until it is answered."""

    def __init__(self, task: Task, services: Workplace, budget: Budget) -> None:
        self._task = task
        self._services = services
        self._budget = budget
        self.variables: Sequence[SavedVariable] | None = None

    @property
    def usage(self) -> Usage:
        """What the run has used, earlier stretches included."""
        return self._budget.snapshot()

    async def perform(self, run: LiveRun) -> Outcome:
        """Wait for a place, open a REPL, and answer the question.

        Raises:
            RLMError: no REPL can be opened, or an event could not be stored.
        """
        recorded = self._task.recording
        if recorded.is_answered and recorded.final is not None:
            return Outcome("completed", recorded.final.answer, recorded.final.data)
        await self._wait_in_line(run.ticket)
        return _outcome_of(await self._answered(run))

    async def _wait_in_line(self, ticket: Ticket) -> None:
        """Wait for a place to work in; none of the run's time passes meanwhile."""
        if ticket.has_waited:
            await ticket.admitted.wait()
            await self._services.runs.begin_work(self._task.run_id)
            self._budget.start_clock()
            self._services.live.notify(self._task.run_id)

    async def _answered(self, run: LiveRun) -> RLMResponse:
        task = self._task
        one, engine = await self._open_repl()
        run.repl = one.repl
        response = None
        try:
            engine = replace(engine, before=await self._before(one))
            response = await answer(task.question, task.source, one.repl, engine)
            return response
        finally:
            self.variables = await last_variables(one.repl)
            run.repl = None
            # Cancelled in the middle of a cell, or a cell that ran is not on record: what the REPL
            # holds then differs from the log.
            if response is None or isinstance(response.error, StoreError):
                one.let_go.set()
            else:
                self._services.repls.keep(task.run_id, one, caller=self._services.runs.caller)

    async def _before(self, one: OpenRepl) -> str:
        """Say what was asked before in this REPL, and which variables that left."""
        earlier: list[Earlier] = []
        run_id = self._task.continues
        while run_id and len(earlier) < _EARLIER_QUESTIONS:
            try:
                record = await self._services.runs.get(run_id)
            except NotFoundError:  # too old to be kept
                break
            if record.question:
                earlier.insert(0, Earlier(record.question, record.answer))
            run_id = record.continues or ""
        if not self._task.continues:
            return ""
        variables: Sequence[Variable] = ()
        with anyio.move_on_after(_LOOK_SECONDS), suppress(SandboxError):
            variables = await one.repl.variables()
        return describe_earlier(earlier, variables, one.lost)

    async def _open_repl(self) -> tuple[OpenRepl, Engine]:
        task, repls = self._task, self._services.repls
        engine = self._services.engine(task, self._budget, self._emit)
        hears = partial(self._services.live.root_texts.__contains__, task.run_id)
        engine = replace(engine, on_root_delta=self._hear, hears_root=hears)
        options = repl_options(task.config, seed=task.seed)
        own = repls.claim(task.run_id, task.handles, options)
        if own is not None:
            return own, replace(engine, recording=replace(task.recording, is_repl_live=True))
        # Never in the process of the earlier run: its code may have changed what answers there.
        one = await repls.open(task.source, task.handles, options, task.variables)
        if task.continues:
            repls.remember_origin(task.run_id, _origin(task.continues, one.lost))
        if one.lost:
            line = f"Variables of {task.continues} that could not be restored: "
            try:
                await self._emit(RLMEvent.of(RunWarning(), 0, line + names_in_line(one.lost)))
            except BaseException:  # nobody else would close it
                one.let_go.set()
                raise
        return one, engine

    async def _hear(self, piece: str) -> None:
        if text := self._services.live.root_texts.get(self._task.run_id):
            await text.add(piece)

    async def _emit(self, *events: RLMEvent) -> None:
        """Make events durable, then notify whoever waits."""
        await write_lines(self._services, self._task.run_id, list(map(new_event, events)))


def _origin(run_id: str, lost: Sequence[str]) -> str:
    """Say where a question continues: what code had changed in the earlier process is not there."""
    but = f", except {names_in_line(lost)}" if lost else ""
    return f"It continued in a new process, with the saved variables of {run_id}{but}."


def _outcome_of(response: RLMResponse) -> Outcome:
    error = None if response.error is None else error_fields(response.error)
    data = None if response.data is None else json.loads(json.dumps(response.data))
    return Outcome(response.status, response.answer, data, error)
