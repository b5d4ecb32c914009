"""Begins runs, and resumes those that have ended."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import anyio
import anyio.to_thread

from rlm_mcp.engine.budget import Budget
from rlm_mcp.engine.config import RLMConfig
from rlm_mcp.engine.parsing.typed_answer import check_schema
from rlm_mcp.engine.run_context import RLMEvent
from rlm_mcp.errors import ConfigurationError, InvalidInputError, SandboxBusyError, StoreError
from rlm_mcp.events import FORMAT_VERSION, RunStarted
from rlm_mcp.sandbox.types import Particular
from rlm_mcp.service.contexts.contexts import ContextService
from rlm_mcp.service.contexts.requests import NewText
from rlm_mcp.service.contexts.text_reader import read_inline
from rlm_mcp.service.runs.estimating import Estimate, Estimator
from rlm_mcp.service.runs.execution import RunExecutor, RunServices, Task, new_event
from rlm_mcp.service.runs.live import LiveRun, RunQueue
from rlm_mcp.service.runs.questions import Begun, Question, RunDefaults, check_question, run_config
from rlm_mcp.service.runs.resuming import Resumer, Resumption
from rlm_mcp.service.saved_variables import last_variables
from rlm_mcp.store.contexts.contexts import Contexts
from rlm_mcp.store.contexts.texts import handle_of
from rlm_mcp.store.runs.records import NewRun, RunRecord, SavedVariable

# How long somebody who resumes a run waits for what is still done in its REPL.
TURN_SECONDS = 5.0


class Starter:
    """Puts runs to work at `executor`, which outlives every request."""

    def __init__(
        self,
        services: RunServices,
        queue: RunQueue,
        contexts: ContextService,
        texts: Contexts,
        executor: RunExecutor,
        defaults: RunDefaults,
    ) -> None:
        self._services = services
        self._queue = queue
        self._contexts = contexts
        self._texts = texts
        self._executor = executor
        self._defaults = defaults
        self._resumer = Resumer(services.runs, texts, executor.walls, services.pricing)

    async def begin(self, question: Question) -> Begun:
        """Begin a run that outlives its caller, or find it at work.

        The same idempotency key stands for the same run, and so does the same question in every
        respect while it is worked on: who asks again after a lost reply must not pay twice. Who
        wants two runs gives a key.

        Raises:
            InvalidInputError: the question or an option cannot be used, or the text is too large.
            NotFoundError: there is no such context, or no such run to continue.
            ConfigurationError: no model is configured, or a limit in USD has no prices.
        """
        check_question(question)
        root_model, sub_model = self._models(question)
        config, budget = await self._limits(question, root_model, sub_model)
        if question.answer_schema is not None:
            await anyio.to_thread.run_sync(check_schema, question.answer_schema)
        handles, variables = await self._material(question)
        source = await self._texts.source(handles)
        task = Task(
            run_id=f"run_{secrets.token_hex(16)}",
            question=question.text,
            config=config,
            source=source,
            root_model=root_model,
            sub_model=sub_model,
            answer_schema=question.answer_schema,
            handles=handles,
            continues=question.continue_run,
            variables=variables,
            isolation=await self._executor.walls(source.key),
        )
        begun = Begun(task.run_id)
        if isinstance(self._services.sandbox, Particular):
            self._services.sandbox.check(task.source)
        # A caller that gives up here must not leave a run behind that nobody works on.
        with anyio.CancelScope(shield=True):
            begun = await self._begin(task, question, budget)
        return begun  # noqa: RET504  # a scope may swallow what is raised in it, as types go

    async def check_limits(self, question: Question) -> None:
        """Refuse a question whose limits cannot be kept, and begin nothing.

        Raises:
            InvalidInputError: a limit or option cannot be used.
            ConfigurationError: no model is configured, or a limit in USD has no prices.
        """
        await self._limits(question, *self._models(question))

    async def estimate(self, question: Question) -> Estimate:
        """Say what a question would cost; begins and stores nothing, and asks no model.

        Raises:
            InvalidInputError, NotFoundError, ConfigurationError: as for `begin`.
        """
        check_question(question)
        config = run_config(self._defaults.config, question)
        pricing = await self._services.pricing(*self._models(question))
        services = self._services
        estimator = Estimator(self._texts, services.runs, services.models)
        return await estimator.estimate(question, config, pricing)

    async def _limits(self, question: Question, root: str, sub: str) -> tuple[RLMConfig, Budget]:
        config = run_config(self._defaults.config, question)
        pricing = await self._services.pricing(root, sub)
        if pricing.allowance is not None:
            pricing.allowance.refuse_spent("runs", "usd", "tokens")
        return config, Budget(config, pricing=pricing)

    async def _begin(self, task: Task, question: Question, budget: Budget) -> Begun:
        allowance, begun = budget.pricing.allowance, Begun("")
        if allowance is not None:
            allowance.begin_run()
        ticket = self._queue.enter(self._services.runs.caller)
        try:
            begun, record = await self._record(task, question, is_queued=ticket.has_waited)
        finally:
            if begun.run_id != task.run_id:
                ticket.leave()
                if allowance is not None:
                    allowance.give_back_run()
        if begun.run_id == task.run_id:
            self._executor.execute(task, budget, ticket)
            if run := self._services.live.get(task.run_id):
                run.record.set(record)  # its lines bring that up to date
        return begun

    async def _record(
        self, task: Task, question: Question, *, is_queued: bool
    ) -> tuple[Begun, RunRecord]:
        """Record that a run begins, or find the run that already answers it."""
        models = task.root_model, task.sub_model
        options = _stored_options(task.config, models, task.answer_schema)
        new = replace(
            _new_run(question, task.handles, options), run_id=task.run_id, is_queued=is_queued
        )
        started = RunStarted(
            version=FORMAT_VERSION,
            question=task.question,
            contexts=tuple(task.handles),
            options=options,
            isolation=task.isolation,
        )
        event = new_event(RLMEvent.of(started, 0, task.question[:200]))
        record = await self._services.runs.create(new, event)
        if record.run_id != task.run_id:
            return Begun(_same_run(record, new), is_attached=True), record
        return Begun(task.run_id), record

    async def find(self, question: Question) -> str | None:
        """Return the run that `begin` would find for a question; begins and stores nothing.

        Raises:
            InvalidInputError, NotFoundError, ConfigurationError: as for `begin`.
        """
        check_question(question)
        config = run_config(self._defaults.config, question)
        handles: list[str] = []
        if question.continue_run:
            handles += (await self._services.runs.get(question.continue_run)).contexts
        handles += question.contexts
        if question.inline_text:
            handles.append(await anyio.to_thread.run_sync(_handle_of_text, question.inline_text))
        options = _stored_options(config, self._models(question), question.answer_schema)
        handles = list(dict.fromkeys(handles))
        return await self._services.runs.find_same(_new_run(question, handles, options))

    async def resume(self, run_id: str, limits: Mapping[str, Any]) -> None:
        """Resume a run that ended without completing, as the same run, where it stopped.

        One that works already is let be.

        Args:
            limits: of the tool's budget, for the whole run; they replace the old ones.

        Raises:
            NotFoundError: there is no such run, or a text of it was deleted.
            InvalidInputError: it cannot be resumed, or not within these limits.
            ConfigurationError: a limit in USD has no prices.
            SandboxBusyError: a cell runs in its REPL.
            StoreError: something else happened to it at the same time.
        """
        before = self._services.live.get(run_id)
        record = await self._services.runs.get(run_id)
        if record.status == "running":
            _refuse_limits(record, limits)
            return
        if before is not None:
            await _let_end(before)
        ready = await self._resumer.prepare(record, limits)
        is_ours = False
        async with self._services.repls.turn(run_id, TURN_SECONDS):
            # A caller that gives up here must not leave a run behind that nobody works on.
            with anyio.CancelScope(shield=True):
                is_ours = await self._mark_resumed(ready)
        if not is_ours:
            _refuse_limits(await self._services.runs.get(run_id), limits)

    async def _mark_resumed(self, ready: Resumption) -> bool:
        task, ticket = ready.task, self._queue.enter(self._services.runs.caller)
        is_ours = False
        try:
            change = replace(ready.change, is_queued=ticket.has_waited)
            is_ours = await self._services.runs.resume(task.run_id, change)
        finally:
            if not is_ours:
                ticket.leave()
        if is_ours:
            self._executor.execute(task, ready.budget, ticket)
        return is_ours

    def _models(self, question: Question) -> tuple[str, str]:
        root = question.root_model or self._defaults.root_model
        if not root:
            raise ConfigurationError(
                "No model is configured: RLM_MCP_ROOT_MODEL is not set.",
                fix="Set it in the server's environment, with RLM_MCP_API_KEY or, for a server "
                "of your own, RLM_MCP_BASE_URL; or name one as root_model.",
            )
        sub = question.sub_model or self._defaults.sub_model or root
        for name in (root, sub):
            self._services.models.catalogue.refuse_not_allowed(name)
        return root, sub

    async def _material(self, question: Question) -> tuple[list[str], Sequence[SavedVariable]]:
        """Find the contexts of a question, in order and once each, and an earlier run's values."""
        handles: list[str] = []
        variables: Sequence[SavedVariable] = ()
        if question.continue_run:
            earlier = await self._services.runs.get(question.continue_run)
            handles += earlier.contexts
            variables = await self._variables_of(earlier.run_id)
        handles += question.contexts
        if question.inline_text:
            added = await self._contexts.add(NewText(text=question.inline_text), _unreported)
            handles.append(str(added.handle))
        return list(dict.fromkeys(handles)), variables

    async def _variables_of(self, run_id: str) -> Sequence[SavedVariable]:
        """Return a run's variables: those saved, or what its REPL holds if that can keep more.

        After a cell of a caller less is saved than at the end of a question.
        """
        saved = await self._services.runs.saved_variables(run_id)
        repl = await self._services.repls.find(run_id)
        if repl is None or not any(one.reason for one in saved):
            return saved
        with suppress(SandboxBusyError):
            async with self._services.repls.turn(run_id, TURN_SECONDS):
                held = await last_variables(repl)
                if _kept(held) > _kept(saved):
                    await self._services.runs.save_variables(run_id, held)
                    return held
        return saved


def _kept(variables: Sequence[SavedVariable]) -> int:
    return sum(one.payload is not None for one in variables)


async def _let_end(run: LiveRun) -> None:
    """End what this process still does for a run that has ended.

    Raises:
        SandboxBusyError: that takes longer than a caller should wait.
    """
    run.end("interrupted")
    with anyio.move_on_after(TURN_SECONDS) as waiting:
        await run.ended.wait()
    if waiting.cancelled_caught:
        raise SandboxBusyError(
            f"The run {run.run_id!r} has ended, but its REPL is still closing.",
            fix="Try again in a moment.",
        )


async def _unreported(done: int, total: int) -> None:
    """Small texts need no progress."""


def _same_run(record: RunRecord, asked: NewRun) -> str:
    """Return the id of the run that an idempotency key names.

    Raises:
        InvalidInputError: it answers another question.
    """
    if (record.question, record.contexts) != (asked.question, tuple(asked.contexts)):
        raise InvalidInputError(
            f"The idempotency_key {asked.idempotency_key!r} belongs to {record.run_id!r}, which "
            f"asks {record.question[:100]!r} over {', '.join(record.contexts)}.",
            fix="Use a new key for a new question.",
        )
    return record.run_id


def _refuse_limits(record: RunRecord, limits: Mapping[str, Any]) -> None:
    """Say that a run that works keeps the limits it has.

    Raises:
        InvalidInputError: others were given.
        StoreError: it does not work after all.
    """
    if record.status != "running":
        raise StoreError(
            f"Run {record.run_id!r} was changed by another request at the same time.",
            fix="Look at it with rlm_run_wait, and try again.",
        )
    if limits:
        raise InvalidInputError(
            f"The run {record.run_id!r} is already at work, within the limits it began with.",
            fix="Follow it with rlm_run_wait, or cancel it and then resume it.",
        )


def _new_run(question: Question, handles: Sequence[str], options: Mapping[str, Any]) -> NewRun:
    """Make what a question's run is stored as, and found by while it works."""
    return NewRun(
        "",
        question.text,
        contexts=handles,
        config=options,
        idempotency_key=question.idempotency_key or None,
        continues=question.continue_run or None,
        is_shared=True,
    )


def _stored_options(
    config: RLMConfig, models: tuple[str, str], answer_schema: Mapping[str, Any] | None
) -> Mapping[str, Any]:
    root_model, sub_model = models
    return {
        **config.model_dump(),
        "root_model": root_model,
        "sub_model": sub_model,
        "answer_schema": answer_schema,
    }


def _handle_of_text(text: str) -> str:
    return handle_of(hashlib.sha256(read_inline(text).data).hexdigest())
