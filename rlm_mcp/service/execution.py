"""One run at work: from its REPL to the last line of its log."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import anyio

from rlm_mcp.engine.budget import Budget
from rlm_mcp.engine.config import RLMConfig
from rlm_mcp.engine.engine import Engine, SubCallCache, repl_options
from rlm_mcp.engine.model import Endpoint
from rlm_mcp.engine.orchestrator import answer
from rlm_mcp.engine.types import RLMEvent, RLMResponse, Usage
from rlm_mcp.errors import RLMError, SandboxError
from rlm_mcp.sandbox.types import CallReply, ContextSource, Repl, ReplCall, Sandbox
from rlm_mcp.service.live import LiveRun, LiveRuns
from rlm_mcp.store.run_records import Figures, NewEvent, Outcome, SavedVariable
from rlm_mcp.store.runs import Runs

MAX_SAVED_CHARS = 200_000
MAX_SAVED_CHARS_IN_ALL = 5_000_000
_LAST_LOOK_SECONDS = 1.0
_FINISH_SECONDS = 10.0
_RESTORE_SECONDS = 30.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """A question that was checked, and all that its run needs to know.

    `variables` are those of an earlier run that the REPL begins with.
    """

    run_id: str
    question: str
    config: RLMConfig
    source: ContextSource
    root_model: str
    sub_model: str
    answer_schema: Mapping[str, Any] | None = None
    variables: Sequence[SavedVariable] = ()


@dataclass(frozen=True)
class Workshop:
    """What every run of this process works with."""

    runs: Runs
    sandbox: Sandbox
    endpoint: Endpoint
    live: LiveRuns
    cache: SubCallCache | None = None


class Execution:
    """Performs one task, and leaves its outcome in the store whatever happens."""

    def __init__(self, task: Task, run: LiveRun, shop: Workshop, budget: Budget) -> None:
        self._task = task
        self._run = run
        self._shop = shop
        self._budget = budget
        self._variables: list[SavedVariable] | None = None

    async def perform(self) -> None:
        """Work until there is an answer or an end; the outermost frame of a run."""
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
            with anyio.move_on_after(_FINISH_SECONDS, shield=True):
                await self._finish(outcome)
            self._shop.live.remove(self._run)

    async def _outcome(self) -> Outcome:
        try:
            return _outcome_of(await self._answered())
        except RLMError as error:
            return Outcome("failed", error=error_fields(error))
        except Exception:  # a defect of ours must end this run alone, not the server
            log.exception("run %s failed", self._task.run_id)
            return Outcome(
                "failed",
                error=_fields("internal_error", "The server failed; its log says where."),
            )

    async def _answered(self) -> RLMResponse:
        task, shop = self._task, self._shop
        options = repl_options(task.config, seed=int(task.run_id[4:12], 16))
        async with shop.sandbox.open_repl(task.source, options) as repl:
            await _restore(repl, task.variables)
            self._run.repl = repl
            try:
                return await answer(task.question, task.source, repl, self._engine())
            finally:
                self._run.repl = None
                await self._look_at_variables(repl)

    def _engine(self) -> Engine:
        task, shop = self._task, self._shop
        return Engine(
            root=shop.endpoint.model(task.root_model),
            sub=shop.endpoint.model(task.sub_model),
            sandbox=shop.sandbox,
            config=task.config,
            budget=self._budget,
            emit=self._emit,
            cache=shop.cache,
            model_names=(task.root_model, task.sub_model),
            answer_schema=task.answer_schema,
        )

    async def _emit(self, event: RLMEvent) -> None:
        """Make an event durable, then tell whoever waits."""
        new = NewEvent(
            type=event.type,
            preview=event.preview,
            iteration=event.iteration,
            depth=event.depth,
            detail=event.detail,
            figures=figures(event.usage),
        )
        await self._shop.runs.append_event(self._task.run_id, new)
        self._shop.live.tell(self._task.run_id)

    async def _look_at_variables(self, repl: Repl) -> None:
        """Keep what the REPL holds before it ends, also when the run was cancelled."""
        with anyio.move_on_after(_LAST_LOOK_SECONDS, shield=True), suppress(SandboxError):
            self._variables = await saved_variables(repl)

    async def _finish(self, outcome: Outcome) -> None:
        usage = self._budget.snapshot()
        event = NewEvent(
            "run_finished",
            preview=_ending(outcome),
            iteration=usage.iterations,
            detail={"status": outcome.status, "error": outcome.error},
            figures=figures(usage),
        )
        try:
            await self._shop.runs.finish(self._task.run_id, outcome, event, self._variables)
        except RLMError as error:
            # Nobody waits for this task. The run's lease runs out, which ends it in the log too.
            log.error("the end of run %s could not be stored: %s", self._task.run_id, error)  # noqa: TRY400  # our own errors say enough without a traceback


async def saved_variables(repl: Repl) -> list[SavedVariable]:
    """Read what a REPL holds, values as far as they are worth keeping.

    Raises:
        SandboxError: the REPL is gone.
    """
    kept: list[SavedVariable] = []
    room = MAX_SAVED_CHARS_IN_ALL
    for variable in await repl.variables():
        text = await repl.read_variable(variable.name, limit=min(room, MAX_SAVED_CHARS))
        is_whole = text.end == text.total
        room -= text.end if is_whole else 0
        value = text.text if is_whole else None
        kept.append(SavedVariable(**asdict(variable), value=value, json=text.json and is_whole))
    return kept


async def _restore(repl: Repl, variables: Sequence[SavedVariable]) -> None:
    """Assign saved values anew: JSON-like ones and strings, which are all that were kept whole."""
    lines = ["import json as _json"]
    for variable in variables:
        if variable.value is None or not variable.name.isidentifier():
            continue
        if variable.json:
            lines.append(f"{variable.name} = _json.loads({variable.value!r})")
        elif variable.type == "str":
            lines.append(f"{variable.name} = {variable.value!r}")
    if len(lines) > 1:
        await repl.execute("\n".join(lines), timeout_seconds=_RESTORE_SECONDS, on_call=_no_calls)


async def _no_calls(call: ReplCall) -> CallReply:
    return CallReply(error=f"{call.name} is not available here")


def figures(usage: Usage) -> Figures:
    """The engine's figures as the store keeps them."""
    return Figures(**asdict(usage))


def error_fields(error: Exception) -> dict[str, Any]:
    """An error as `{code, message, retryable, fix}`."""
    if not isinstance(error, RLMError):
        return _fields("internal_error", f"{type(error).__name__}: {error}")
    return _fields(error.code, error.message, retryable=error.retryable, fix=error.fix)


def _fields(code: str, message: str, *, retryable: bool = False, fix: str = "") -> dict[str, Any]:
    return {"code": code, "message": message, "retryable": retryable, "fix": fix}


def _outcome_of(response: RLMResponse) -> Outcome:
    error = None if response.error is None else error_fields(response.error)
    return Outcome(response.status, response.answer, _plain(response.data), error)


def _plain(data: Any) -> Any:
    return None if data is None else json.loads(json.dumps(data))


def _stopped(run: LiveRun) -> Outcome:
    if run.stop == "cancelled":
        return Outcome("cancelled", error=_fields("cancelled", "The run was cancelled."))
    error = _fields(
        "interrupted",
        "The server stopped while it worked on this run.",
        retryable=True,
        fix="Ask again; continue_run begins with what this run saved.",
    )
    return Outcome("interrupted", error=error)


def _ending(outcome: Outcome) -> str:
    reason = f": {outcome.error['message']}" if outcome.error else ""
    return f"{outcome.status}{reason}"
