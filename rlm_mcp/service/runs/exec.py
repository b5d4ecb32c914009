"""Code of the caller's own in a REPL, with no root model: for a caller that is its own root."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, replace

import anyio

from rlm_mcp.engine.budget import Budget
from rlm_mcp.engine.loop.orchestrator import calls_of
from rlm_mcp.engine.prompts.display import cut_middle, preview
from rlm_mcp.engine.recording import cell_record
from rlm_mcp.engine.run_context import repl_options
from rlm_mcp.engine.types import RLMEvent, Usage
from rlm_mcp.errors import InvalidInputError, RLMError, SandboxBusyError
from rlm_mcp.events import FORMAT_VERSION, CodeGenerated, EventDetail, RunFinished, RunStarted
from rlm_mcp.sandbox.types import CallReply, CellResult, ReplCall, Variable
from rlm_mcp.service.repls import OpenRepl, save_variables
from rlm_mcp.service.runs.execution import Task, Workshop, error_fields, figures, new_event, stopped
from rlm_mcp.service.runs.live import LiveRun
from rlm_mcp.service.runs.queue import Ticket
from rlm_mcp.service.runs.starting import RunDefaults
from rlm_mcp.store.contexts.contexts import Contexts
from rlm_mcp.store.runs.records import NewEvent, NewRun, Outcome, SavedVariable

MAX_CODE_CHARS = 100_000
MAX_OUTPUT_CHARS = 16_000
_FINISH_SECONDS = 5.0
_PLACE_SECONDS = 30.0
_AGAIN = "rlm_exec with its run_id goes on in its REPL."

Emit = Callable[[RLMEvent], Awaitable[None]]


@dataclass(frozen=True)
class CellDone:
    """What one cell of the caller did.

    `error` is the traceback or None; `answer` is what it handed to `FINAL`; `note` says what
    happened to the REPL, if anything did.
    """

    run_id: str
    output: str
    error: str | None
    truncated: bool
    variables: list[Variable]
    answer: str | None = None
    note: str | None = None


class CellService:
    """Use cases over cells."""

    def __init__(self, shop: Workshop, texts: Contexts, defaults: RunDefaults) -> None:
        self._shop = shop
        self._texts = texts
        self._defaults = defaults

    async def execute(
        self, code: str, run_id: str, handles: Sequence[str], timeout_seconds: float
    ) -> CellDone:
        """Run a cell over contexts, in a run of its own, or in the REPL of a run that has ended.

        Raises:
            InvalidInputError: the code is empty or too long, or it is not said where to run it.
            NotFoundError: there is no such run or context.
            StoreError: the run has not ended.
            SandboxBusyError: too many cells run, or one of this run, and none of them ends.
            SandboxError: no REPL can be had.
        """
        _check(code, run_id, handles)
        async with self._place() as ticket:
            if run_id:
                await self._shop.runs.get(run_id)  # who may not know of a run gets no turn of it
                async with self._shop.repls.turn(run_id, _PLACE_SECONDS):
                    return await self._in_run(code, run_id, timeout_seconds)
            new = await self._new_run(list(dict.fromkeys(handles)), ticket)
            return await self._in_new_run(new, code, timeout_seconds)

    @asynccontextmanager
    async def _place(self) -> AsyncGenerator[Ticket]:
        """Wait until so few cells run that one more may."""
        ticket = self._shop.cell_queue.enter(self._shop.caller)
        try:
            with anyio.move_on_after(_PLACE_SECONDS) as waiting:
                await ticket.admitted.wait()
            if waiting.cancelled_caught:
                raise SandboxBusyError(
                    f"{self._shop.cell_queue.places} cells run, which is as many as may at once.",
                    fix="Try again when one of them has ended.",
                )
            yield ticket
        finally:
            ticket.leave()

    async def _new_run(self, handles: Sequence[str], ticket: Ticket) -> _Opened:
        """Open a REPL and record the run that it is for."""
        task = await self._task(f"run_{secrets.token_hex(16)}", handles)
        emit = self._emitting(self._shop.runs.append_event, task.run_id)
        cell = _Cell(self._shop, task, Budget(task.config), emit)
        one = await self._shop.repls.open(task.source, handles, repl_options(task.config))
        try:
            await self._record(task)
        except BaseException:  # there is no run that it could be kept for
            one.let_go.set()
            raise
        return _Opened(task, one, cell, LiveRun(task.run_id, ticket, repl=one.repl))

    async def _in_new_run(self, new: _Opened, code: str, timeout_seconds: float) -> CellDone:
        one, run = new.one, new.live
        outcome = Outcome(
            "cancelled", error=error_fields(RLMError("The caller gave up.", fix=_AGAIN))
        )
        self._shop.live.add(run)
        try:
            with run.scope:
                result = await new.cell.run(one, code, timeout_seconds)
                outcome = Outcome("completed", answer=result.final.text if result.final else None)
                return _done(run.run_id, result, await one.repl.variables())
            outcome = stopped(run)
        except RLMError as error:
            outcome = Outcome("failed", error=error_fields(error))
            raise
        finally:
            try:
                await self._finish(new.task, one, outcome, new.cell.usage)
            finally:
                self._shop.live.remove(run)
        return _ended_early(run.run_id, outcome)

    async def _finish(self, task: Task, one: OpenRepl, outcome: Outcome, usage: Usage) -> None:
        self._shop.repls.keep(task.run_id, one)
        finished = RunFinished(outcome.status, outcome.error)
        ended = NewEvent.of(finished, outcome.status, figures=figures(usage))
        variables: list[SavedVariable] = []
        # The run ends in any case, whatever becomes of its variables and of the caller.
        with anyio.move_on_after(_FINISH_SECONDS, shield=True), suppress(RLMError):
            await save_variables(one.repl, variables)
        with anyio.CancelScope(shield=True):  # the wait for the file is bounded
            await self._shop.runs.finish(task.run_id, outcome, ended, variables)

    async def _in_run(self, code: str, run_id: str, timeout_seconds: float) -> CellDone:
        record = await self._shop.runs.get(run_id)
        if record.status == "running":
            raise InvalidInputError(
                f"The run {run_id!r} is at work in its REPL.",
                fix="Wait for its end with rlm_run_wait, or cancel it with rlm_run_cancel.",
            )
        task = await self._task(run_id, record.contexts)
        one, note = await self._repl_of(task)
        try:
            spent = Usage(**asdict(record.figures))
            budget = Budget(task.config, spent=spent)
            emit = self._emitting(self._shop.runs.append_afterwards, run_id)
            cell = _Cell(self._shop, task, budget, emit)
            result = await cell.run(one, code, timeout_seconds)
            variables: list[SavedVariable] = []
            await save_variables(one.repl, variables)
            await self._shop.runs.save_variables(run_id, variables)
        finally:
            self._shop.repls.keep(run_id, one)
        return _done(run_id, result, await one.repl.variables(), note)

    async def _repl_of(self, task: Task) -> tuple[OpenRepl, str | None]:
        options = repl_options(task.config)
        one = self._shop.repls.take(task.run_id, task.handles, options)
        if one is not None:
            return one, None
        saved = await self._shop.runs.saved_variables(task.run_id)
        one = await self._shop.repls.open(task.source, task.handles, options, saved)
        note = "The run's REPL was gone; a fresh one was given the variables that were saved"
        return one, f"{note}, but for {', '.join(one.lost[:20])}." if one.lost else f"{note}."

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

    async def _record(self, task: Task) -> None:
        options = task.config.model_dump()
        new = NewRun(task.run_id, "", contexts=task.handles, config=options)
        isolation = asdict(await self._shop.sandbox.isolation())
        started = RunStarted(
            version=FORMAT_VERSION,
            contexts=tuple(task.handles),
            options=options,
            isolation=isolation,
        )
        await self._shop.runs.create(new, NewEvent.of(started, "code of the caller"))

    def _emitting(self, append: Callable[[str, NewEvent], Awaitable[object]], run_id: str) -> Emit:
        async def emit(event: RLMEvent) -> None:
            await append(run_id, new_event(event))
            self._shop.live.tell(run_id)

        return emit


class _Cell:
    """One cell: its calls to models, and its lines in the log."""

    def __init__(self, shop: Workshop, task: Task, budget: Budget, emit: Emit) -> None:
        self._budget = budget
        self._emit = emit
        self._has_model = bool(task.sub_model)
        self._calls = calls_of(shop.engine(task, budget, emit))

    @property
    def usage(self) -> Usage:
        """What the calls have used."""
        return self._budget.snapshot()

    async def run(self, one: OpenRepl, code: str, timeout_seconds: float) -> CellResult:
        await self._tell(CodeGenerated(code), preview(code))
        result = await one.repl.execute(code, timeout_seconds=timeout_seconds, on_call=self._answer)
        await self._calls.end_cell()
        line = preview(result.error.message if result.error else result.output)
        executed = replace(
            cell_record(result, cut_middle(result.output, MAX_OUTPUT_CHARS)),
            code=code,
            by="caller",
            balances=self._calls.take_balances(),
        )
        await self._tell(executed, line)
        return result

    async def _answer(self, call: ReplCall) -> CallReply:
        if self._has_model or call.name == "budget":
            return await self._calls.handle(call)
        return CallReply(error="no model is configured; the operator sets RLM_MCP_SUB_MODEL")

    async def _tell(self, detail: EventDetail, line: str) -> None:
        await self._emit(RLMEvent.of(detail, 0, line, usage=self.usage))


@dataclass(frozen=True)
class _Opened:
    """A run that is made for one cell of a caller."""

    task: Task
    one: OpenRepl
    cell: _Cell
    live: LiveRun


def _check(code: str, run_id: str, handles: Sequence[str]) -> None:
    if not code.strip():
        raise InvalidInputError("The code is empty.", fix="Give Python to run.")
    if len(code) > MAX_CODE_CHARS:
        raise InvalidInputError(
            f"The code has {len(code):,} characters; the limit is {MAX_CODE_CHARS:,}.",
            fix="Store data with rlm_context_add, and read it as `context`.",
        )
    if bool(run_id) == bool(handles):
        given = "both" if run_id else "neither"
        raise InvalidInputError(
            f"Of run_id and contexts, {given} is given.",
            fix="Give contexts to begin, then the run_id you get to go on.",
        )


def _done(
    run_id: str, result: CellResult, variables: list[Variable], note: str | None = None
) -> CellDone:
    if result.lost_variables:
        note = "The REPL was replaced by a fresh one; large variables are gone."
    return CellDone(
        run_id=run_id,
        output=cut_middle(result.output, MAX_OUTPUT_CHARS),
        error=result.error.traceback if result.error else None,
        truncated=result.output_chars > MAX_OUTPUT_CHARS,
        variables=variables,
        answer=result.final.text if result.final else None,
        note=note,
    )


def _ended_early(run_id: str, outcome: Outcome) -> CellDone:
    """What is told of a cell whose run was cancelled, or whose server stops."""
    told = f"KeyboardInterrupt: {(outcome.error or {}).get('message', '')}"
    return CellDone(run_id, "", told, truncated=False, variables=[], note=_AGAIN)
