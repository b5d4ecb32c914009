"""Logs sub-calls: their batches, and when each call began and ended."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace

import anyio
from anyio.abc import TaskGroup

from rlm_mcp.engine.run_context import RunLog
from rlm_mcp.errors import RLMError
from rlm_mcp.events import SubCall, SubCallsFinished, SubCallsStarted
from rlm_mcp.sandbox.types import CallReply, ReplCall
from rlm_mcp.text import preview

CALLS_PER_EVENT = 32
PROMPT_CHARS_TOLD = 2000
REPLY_CHARS_TOLD = 4000
REPORT_SECONDS = 0.5  # whoever watches sees at once what a long batch does
LAST_REPORT_SECONDS = 1.0
CUT_OFF = "cancelled"


@dataclass(frozen=True)
class Outcome:
    """How one call ended, with what it used."""

    reply: CallReply
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = None
    queued_seconds: float = 0.0
    is_cached: bool = False
    model: str | None = None

    def plus(self, more: Outcome) -> Outcome:
        """Return how a second call ended, with what both used."""
        costs = [one for one in (self.cost_usd, more.cost_usd) if one is not None]
        return replace(
            more,
            input_tokens=self.input_tokens + more.input_tokens,
            output_tokens=self.output_tokens + more.output_tokens,
            cost_usd=sum(costs) if costs else None,
            queued_seconds=self.queued_seconds + more.queued_seconds,
        )


@dataclass
class Batch:
    """Calls that belong together, of which the last few are still to be reported.

    `id` is that of the REPL, by which its calls are known; `number` is that of the log.
    """

    id: int
    number: int
    size: int
    started: float
    begun: int = 0
    finished: int = 0
    unreported: list[SubCall] = field(default_factory=list[SubCall])


@dataclass(frozen=True)
class CallPlace:
    """One call under way: its batch, its place in it, when it began, and its slot."""

    batch: Batch
    n: int
    began: float
    slot: int

    @property
    def ended(self) -> float:
        """Seconds from the beginning of the batch to now."""
        return time.monotonic() - self.batch.started


class CallLog:
    """Reports the sub-calls of one REPL: at the beginning of a batch, and while its calls end."""

    def __init__(self, log: RunLog) -> None:
        self._log = log
        self._engine = log.engine
        self._batches: dict[int, Batch] = {}
        self._number = 0
        self._tasks: TaskGroup | None = None  # while a cell runs
        self._is_due = False

    async def begin(self, call: ReplCall) -> CallPlace:
        """Give a call its place; the first of a batch is reported."""
        batch = await self._batch_of(call)
        batch.begun += 1
        began = time.monotonic() - batch.started
        return CallPlace(batch, batch.begun - 1, began, self._engine.budget.take_slot())

    async def end(self, place: CallPlace, call: ReplCall, outcome: Outcome, key: str) -> None:
        """Note that a call ended, and report it now or soon."""
        batch = place.batch
        self._note(place, _sub_call(place, call, outcome, key))
        is_done = batch.finished >= batch.size
        if is_done:
            self._batches.pop(batch.id, None)
        if is_done or len(batch.unreported) >= CALLS_PER_EVENT:
            await self._report(batch)
        elif self._tasks is not None and not self._is_due:
            self._is_due = True
            self._tasks.start_soon(self._report_soon)

    def cut_off(self, place: CallPlace, call: ReplCall, key: str) -> None:
        """Note that a call was cancelled; it is reported when its cell ends."""
        outcome = Outcome(CallReply(error=CUT_OFF))
        self._note(place, _sub_call(place, call, outcome, key, is_cut_off=True))

    def _note(self, place: CallPlace, call: SubCall) -> None:
        self._engine.budget.free_slot(place.slot)
        place.batch.finished += 1
        place.batch.unreported.append(call)

    @asynccontextmanager
    async def reporting(self) -> AsyncGenerator[None]:
        """Report calls at each half second while a cell runs, and the last when it ends."""
        failure: RLMError | None = None
        self._is_due = False
        try:
            async with anyio.create_task_group() as self._tasks:
                try:
                    yield
                except RLMError as error:  # raised again below, not in a group
                    failure = error
                self._tasks.cancel_scope.cancel()
        except anyio.get_cancelled_exc_class():
            # Calls under way are paid for, so they belong in the log.
            with anyio.move_on_after(LAST_REPORT_SECONDS, shield=True), suppress(RLMError):
                await self._report_all()
            raise
        if failure is not None:
            raise failure
        await self._report_all()

    async def _report_soon(self) -> None:
        # All runs report at the same moments, so that the store writes them together.
        await anyio.sleep(REPORT_SECONDS - time.monotonic() % REPORT_SECONDS)
        self._is_due = False
        # The end of the cell must not cut off an event, which might then be stored twice.
        with anyio.move_on_after(LAST_REPORT_SECONDS, shield=True):
            for batch in list(self._batches.values()):
                with suppress(RLMError):  # the next report fails with it too
                    await self._report(batch)

    async def _report_all(self) -> None:
        batches, self._batches = self._batches, {}
        for batch in batches.values():
            await self._report(batch)

    async def _batch_of(self, call: ReplCall) -> Batch:
        batch = self._batches.get(call.batch_id) if call.batch_size > 1 else None
        if batch is not None:
            return batch
        # Single calls may share an id, so each gets one that no batch has.
        self._number += 1
        id_ = call.batch_id if call.batch_size > 1 else -self._number
        batch = Batch(id_, self._number, call.batch_size, time.monotonic())
        self._batches[id_] = batch
        asked = f": {preview(call.prompt, 80)}" if batch.size == 1 else ""
        started = SubCallsStarted(
            calls=batch.size, name=call.name, model=call.model, batch=batch.number
        )
        await self._log.emit(started, f"{_count(batch.size, 'sub-call')}{asked}")
        return batch

    async def _report(self, batch: Batch) -> None:
        calls, batch.unreported = batch.unreported, []
        if not calls:
            return
        given = sum(call.input_tokens for call in calls)
        made = sum(call.output_tokens for call in calls)
        costs = [call.cost_usd for call in calls if call.cost_usd is not None]
        failed = sum(call.error is not None for call in calls)
        finished = SubCallsFinished(
            calls=len(calls),
            finished=batch.finished,
            of=batch.size,
            failed=failed,
            cached=sum(call.cached for call in calls),
            input_tokens=given,
            output_tokens=made,
            cost_usd=sum(costs) if costs else None,
            seconds=round(time.monotonic() - batch.started, 3),
            items=tuple(calls),
            batch=batch.number,
        )
        failures = f", {failed} failed" if failed else ""
        line = f"{batch.finished} of {_count(batch.size, 'sub-call')} finished{failures}"
        try:
            await self._log.emit(finished, line)
        except RLMError:
            batch.unreported[:0] = calls
            raise


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _sub_call(
    place: CallPlace, call: ReplCall, outcome: Outcome, key: str, *, is_cut_off: bool = False
) -> SubCall:
    return SubCall(
        prompt=call.prompt[:PROMPT_CHARS_TOLD],
        prompt_chars=len(call.prompt) + sum(map(len, call.documents)),
        reply=outcome.reply.text[:REPLY_CHARS_TOLD],
        reply_chars=len(outcome.reply.text),
        error=outcome.reply.error,
        input_tokens=outcome.input_tokens,
        output_tokens=outcome.output_tokens,
        cached=outcome.is_cached,
        key=key,
        n=place.n,
        slot=place.slot,
        began=round(place.began, 4),
        ended=round(place.ended, 4),
        cut_off=is_cut_off or None,
        model=outcome.model,
        cost_usd=outcome.cost_usd,
        queued=round(outcome.queued_seconds, 4) or None,
    )
