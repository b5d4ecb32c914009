"""`rlm_exec`: the caller's own code in a REPL, with no root model."""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, replace

from rlm_mcp.engine.budget import Budget
from rlm_mcp.engine.citations.checking import check_citations
from rlm_mcp.engine.daily_limits import one_run
from rlm_mcp.engine.loop.orchestrator import calls_of
from rlm_mcp.engine.prompts.cell_output import cut_middle
from rlm_mcp.engine.recording import cell_record
from rlm_mcp.engine.run_context import EventSink, RLMEvent, repl_options
from rlm_mcp.errors import InvalidInputError, RLMError
from rlm_mcp.events import (
    FORMAT_VERSION,
    CheckedCitation,
    CodeGenerated,
    EventDetail,
    FinalAnswer,
    RunStarted,
    Support,
)
from rlm_mcp.sandbox.types import CallReply, CellResult, ReplCall, Variable
from rlm_mcp.service.repls import OpenRepl
from rlm_mcp.service.runs.execution import Execution, RunServices, Task, new_event
from rlm_mcp.service.runs.live import LiveRun, RunQueue
from rlm_mcp.service.runs.questions import RunDefaults
from rlm_mcp.service.saved_variables import last_variables, save_variables
from rlm_mcp.store.contexts.contexts import Contexts
from rlm_mcp.store.runs.records import NewEvent, NewRun, Outcome, SavedVariable
from rlm_mcp.text import names_in_line, preview
from rlm_mcp.values import Usage

MAX_CODE_CHARS = 100_000
MAX_OUTPUT_CHARS = 16_000
_PLACE_SECONDS = 30.0
_WITH_WORDS = ("str", "dict", "list")  # answers that may hold quotations
_AGAIN = "Call rlm_exec with its run_id to continue in its REPL."


@dataclass(frozen=True)
class CellDone:
    """What one cell of the caller did.

    `error` is the traceback or None; `answer` is the value given to `FINAL`; `citations` are the
    passages that it cited or its answer quotes, looked up in the text; `note` says what happened to
    the REPL, if anything.
    """

    run_id: str
    output: str
    error: str | None
    truncated: bool
    variables: list[Variable]
    answer: str | None = None
    citations: tuple[CheckedCitation, ...] = ()
    note: str | None = None


class CellService:
    """Use cases over cells."""

    def __init__(
        self, services: RunServices, queue: RunQueue, texts: Contexts, defaults: RunDefaults
    ) -> None:
        self._services = services
        self._queue = queue
        self._texts = texts
        self._defaults = defaults

    async def execute(
        self, code: str, run_id: str, handles: Sequence[str], timeout_seconds: float
    ) -> CellDone:
        """Run a cell over contexts, in a run of its own, or in the REPL of a run that has ended.

        Raises:
            InvalidInputError: the code is empty or too long, or both or neither of `run_id` and
                `handles` are given.
            NotFoundError: there is no such run or context.
            BudgetExceededError: the caller began as many runs today as it may.
            StoreError: the run has not ended, or its end cannot be stored.
            SandboxBusyError: too many cells run, or one of this run, and none of them ends.
            SandboxError: no REPL can be opened.
        """
        _check(code, run_id, handles)
        caller = self._services.runs.caller
        async with self._queue.place(caller, _PLACE_SECONDS, "cells") as ticket:
            if run_id:
                await self._services.runs.get(run_id)  # another caller's run gets no turn
                async with self._services.repls.turn(run_id, _PLACE_SECONDS):
                    return await self._in_run(code, run_id, timeout_seconds)
            work = await self._begin(list(dict.fromkeys(handles)), code, timeout_seconds)
            run = LiveRun(work.run_id, ticket, repl=work.one.repl, stop="cancelled")
            self._services.live.add(run)
            outcome = await Execution(run, work, self._services, is_patient=False).perform()
            return work.result(outcome)

    async def _begin(self, handles: Sequence[str], code: str, timeout_seconds: float) -> _CellWork:
        """Open a REPL and record the run that it is for."""
        task = await self._task(f"run_{secrets.token_hex(16)}", handles)
        emit = self._emitting(self._services.runs.append_event, task.run_id)
        budget = await self._budget(task)
        cell = _Cell(self._services, task, budget, emit)
        options, caller = repl_options(task.config), self._services.runs.caller
        one = await self._services.repls.open(task.source, handles, options, caller=caller)
        try:
            with one_run(budget.pricing.allowance):
                await self._record(task, one)
        except BaseException:  # without a run nobody would close the REPL
            one.let_go.set()
            raise
        return _CellWork(task.run_id, one, cell, self._services, (code, timeout_seconds))

    async def _in_run(self, code: str, run_id: str, timeout_seconds: float) -> CellDone:
        record = await self._services.runs.get(run_id)
        if record.status == "running":
            raise InvalidInputError(
                f"The run {run_id!r} is at work in its REPL.",
                fix="Wait for its end with rlm_run_wait, or cancel it with rlm_run_cancel.",
            )
        task = await self._task(run_id, record.contexts)
        one, note = await self._repl_of(task)
        try:
            budget = await self._budget(task, record.figures)
            emit = self._emitting(self._services.runs.append_afterwards, run_id)
            cell = _Cell(self._services, task, budget, emit)
            ran = await self._counted(cell, cell.run(one, code, timeout_seconds))
            listed = await one.repl.variables()
            variables: list[SavedVariable] = []
            await save_variables(one.repl, variables, after_cell=True)
            await self._services.runs.save_variables(run_id, variables)
        finally:
            self._services.repls.keep(run_id, one, caller=self._services.runs.caller)
        return _done(run_id, ran, listed, note)

    async def _counted(self, cell: _Cell, running: Awaitable[_Ran]) -> _Ran:
        """Count what a cell used for its caller, also where it fails."""
        before = cell.usage
        try:
            return await running
        finally:
            self._services.live.tally(self._services.runs.caller).add_use(before, cell.usage)

    async def _repl_of(self, task: Task) -> tuple[OpenRepl, str | None]:
        options, runs, repls = repl_options(task.config), self._services.runs, self._services.repls
        await repls.find(task.run_id)  # one that is lost is let go
        one = repls.claim(task.run_id, task.handles, options)
        if one is not None:
            return one, None
        saved = await runs.saved_variables(task.run_id)
        one = await repls.open(task.source, task.handles, options, saved, caller=runs.caller)
        note = "The run's REPL had ended; a new one got the saved variables"
        return one, f"{note}; not restored: {names_in_line(one.lost)}." if one.lost else f"{note}."

    async def _task(self, run_id: str, handles: Sequence[str]) -> Task:
        sub_model = self._defaults.sub_model or self._defaults.root_model or ""
        return Task(
            run_id=run_id,
            question="",
            config=self._defaults.config,
            source=await self._texts.source(handles),
            root_model=sub_model,
            sub_model=sub_model,
            handles=tuple(handles),
        )

    async def _budget(self, task: Task, spent: Usage | None = None) -> Budget:
        pricing = await self._services.pricing(task.sub_model, task.sub_model)
        return Budget(task.config, spent=spent, pricing=pricing)

    async def _record(self, task: Task, one: OpenRepl) -> None:
        isolation = one.isolation or await self._services.sandbox.isolation()
        options = task.config.model_dump()
        new = NewRun(task.run_id, "", contexts=task.handles, config=options)
        started = RunStarted(
            version=FORMAT_VERSION,
            contexts=tuple(task.handles),
            options=options,
            isolation=asdict(isolation),
        )
        event = new_event(RLMEvent.of(started, 0, "code of the caller"))
        await self._services.runs.create(new, event)

    def _emitting(
        self, append: Callable[[str, NewEvent], Awaitable[object]], run_id: str
    ) -> EventSink:
        async def emit(*events: RLMEvent) -> None:
            for event in events:
                await append(run_id, new_event(event))
            self._services.live.notify(run_id)

        return emit


@dataclass(frozen=True)
class _Ran:
    """What came of a cell, and the passages that it cited, checked."""

    result: CellResult
    citations: tuple[CheckedCitation, ...]


class _Cell:
    """One cell: its calls to models, what it cites, and its lines in the log."""

    def __init__(self, services: RunServices, task: Task, budget: Budget, emit: EventSink) -> None:
        self._budget = budget
        self._emit = emit
        self._has_model = bool(task.sub_model)
        self._source = task.source
        self._calls = calls_of(services.engine(task, budget, emit))

    @property
    def usage(self) -> Usage:
        """What the calls have used."""
        return self._budget.snapshot()

    async def run(self, one: OpenRepl, code: str, timeout_seconds: float) -> _Ran:
        await self._log(CodeGenerated(code), preview(code))
        began = time.monotonic()
        async with self._calls.reporting():
            result = await one.repl.execute(
                code, timeout_seconds=timeout_seconds, on_call=self._answer
            )
        seconds = time.monotonic() - began
        final = result.final
        words = final.text if final is not None and final.type in _WITH_WORDS else ""
        citations = await check_citations(self._source, result.citations, words)
        line = preview(result.error.message if result.error else result.output)
        executed = replace(
            cell_record(result, cut_middle(result.output, MAX_OUTPUT_CHARS)),
            code=code,
            by="caller",
            balances=self._calls.take_balances(),
            wall_seconds=round(seconds, 3),
            citations=citations or None,
        )
        await self._log(executed, line)
        return _Ran(result, citations)

    async def log_answer(self, ran: _Ran) -> None:
        """Write the answer of the run that this cell is, if it gave one, with what it cites."""
        final, citations = ran.result.final, ran.citations
        if final is None:
            return
        verified = sum(one.verified for one in citations)
        answer = FinalAnswer(
            answer=final.text,
            origin="code",
            status="completed",
            citations=citations or None,
            support=Support("output", len(citations), verified),
        )
        await self._log(answer, preview(final.text))

    async def _answer(self, call: ReplCall) -> CallReply:
        if self._has_model or call.name == "budget":
            return await self._calls.handle(call)
        return CallReply(error="no model is configured; the operator sets RLM_MCP_SUB_MODEL")

    async def _log(self, detail: EventDetail, line: str) -> None:
        await self._emit(RLMEvent.of(detail, 0, line, usage=self.usage))


class _CellWork:
    """The run of one cell of the caller."""

    def __init__(
        self,
        run_id: str,
        one: OpenRepl,
        cell: _Cell,
        services: RunServices,
        given: tuple[str, float],
    ) -> None:
        self.run_id = run_id
        self.one = one
        self._cell = cell
        self._repls, self._caller = services.repls, services.runs.caller
        self._code, self._timeout_seconds = given
        self._done: CellDone | None = None
        self._error: RLMError | None = None
        self.variables: Sequence[SavedVariable] | None = None

    @property
    def usage(self) -> Usage:
        """What the cell's calls have used."""
        return self._cell.usage

    async def perform(self, run: LiveRun) -> Outcome:
        """Run the cell; its REPL is kept for the next one whatever becomes of it."""
        try:
            ran = await self._cell.run(self.one, self._code, self._timeout_seconds)
            await self._cell.log_answer(ran)
            self._done = _done(run.run_id, ran, await self.one.repl.variables())
        except RLMError as error:
            self._error = error
            raise
        finally:
            self.variables = await last_variables(self.one.repl, after_cell=True)
            self._repls.keep(self.run_id, self.one, caller=self._caller)
        return Outcome("completed", answer=self._done.answer)

    def result(self, outcome: Outcome) -> CellDone:
        """Return what the cell did, or that its run was stopped.

        Raises:
            RLMError: the cell could not be run.
        """
        if self._error is not None:
            raise self._error
        return self._done or _ended_early(self.run_id, outcome)


def _check(code: str, run_id: str, handles: Sequence[str]) -> None:
    if not code.strip():
        raise InvalidInputError("The code is empty.", fix="Give Python to run.")
    if len(code) > MAX_CODE_CHARS:
        raise InvalidInputError(
            f"The code has {len(code):,} characters; the limit is {MAX_CODE_CHARS:,}.",
            fix="Store data with rlm_context_add, and read it as `context`.",
        )
    if bool(run_id) == bool(handles):
        raise InvalidInputError(
            "Give either `run_id` or `contexts`, not both."
            if run_id
            else "Neither `run_id` nor `contexts` is given.",
            fix="Give contexts to start; then continue with the run_id of the result.",
        )


def _done(run_id: str, ran: _Ran, variables: list[Variable], note: str | None = None) -> CellDone:
    result = ran.result
    if result.lost_variables:
        note = "The REPL was replaced by a fresh one; large variables are gone."
    return CellDone(
        run_id=run_id,
        output=cut_middle(result.output, MAX_OUTPUT_CHARS),
        error=result.error.traceback if result.error else None,
        truncated=result.output_chars > MAX_OUTPUT_CHARS,
        variables=variables,
        answer=result.final.text if result.final else None,
        citations=ran.citations,
        note=note,
    )


def _ended_early(run_id: str, outcome: Outcome) -> CellDone:
    """What a cell's caller gets whose run was cancelled, or whose server stops."""
    error = f"KeyboardInterrupt: {(outcome.error or {}).get('message', '')}"
    return CellDone(run_id, "", error, truncated=False, variables=[], note=_AGAIN)
