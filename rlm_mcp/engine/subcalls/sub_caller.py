"""Calls out of the REPL: sub-calls, batches of them, runs inside a run."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from rlm_mcp.engine.cache import GroupedCache
from rlm_mcp.engine.models.chat import ChatReply, ChatRequest
from rlm_mcp.engine.parsing.reasoning import without_reasoning
from rlm_mcp.engine.run_context import RunLog
from rlm_mcp.engine.subcalls.nested_runs import InnerPart, InnerParts
from rlm_mcp.engine.telemetry import chat_span
from rlm_mcp.engine.types import HistoryEntry, RLMResponse
from rlm_mcp.errors import BudgetExceededError, RLMError, StoreError
from rlm_mcp.events import RunWarning, SubCall, SubCallsFinished, SubCallsStarted
from rlm_mcp.sandbox.host.text import TextContext
from rlm_mcp.sandbox.types import CallReply, ContextSource, ReplCall
from rlm_mcp.text import preview

PROMPT_CHARS_TOLD = 2000
REPLY_CHARS_TOLD = 4000
CALLS_PER_EVENT = 32
SUB_CALLS_IN_HISTORY = 256

BALANCES_PER_CELL = 100
OWN = ":own"  # behind the key of a reply that other runs are not given

Recurse = Callable[[str, ContextSource, InnerPart], Awaitable[RLMResponse]]


@dataclass
class _Batch:
    """Calls that belong together, of which the last few are still to be told."""

    id: int
    size: int
    started: float
    finished: int = 0
    untold: list[SubCall] = field(default_factory=list[SubCall])


@dataclass(frozen=True)
class _Outcome:
    """How one call ended, with what it used."""

    reply: CallReply
    input_tokens: int = 0
    output_tokens: int = 0
    is_cached: bool = False


class SubCaller:
    """Answers the calls of one REPL; `handle` is what `Repl.execute` gets as `on_call`.

    Args:
        log: is told of calls; names models, budget and cache.
        recurse: runs a question over a slice of text, one level down.
    """

    def __init__(self, log: RunLog, recurse: Recurse) -> None:
        engine = log.engine
        self.history: list[HistoryEntry] = []
        self._log = log
        self._engine = engine
        self._cache = GroupedCache(engine.cache) if engine.cache is not None else None
        self._recurse = recurse
        self._batches: dict[int, _Batch] = {}
        self._singles = 0
        self._is_over_told = False
        self._balances: list[str] = []
        recording = engine.recording
        self._is_taken_up = bool(recording.turns)
        # What ended in a cell that did not, and is not to be asked again when it runs anew.
        self._loose = {call.key: call.text for call in recording.loose if call.error is None}

    @cached_property
    def _parts(self) -> InnerParts:
        recording = self._engine.recording
        return InnerParts(recording.inner, list(recording.ended_calls))

    async def handle(self, call: ReplCall) -> CallReply:
        """Answer one call; what fails it is told to the code that made it."""
        if call.name == "budget":
            balance = json.dumps(self._remaining())
            if len(self._balances) < BALANCES_PER_CELL:
                self._balances.append(balance)
            return CallReply(balance)
        batch = await self._batch_of(call)
        key = self.key(call)
        outcome = await self._outcome(call, key)
        await self._note(batch, _ended(call, outcome, key), outcome)
        return outcome.reply

    def take_balances(self) -> tuple[str, ...]:
        """Hand over what the cell was told of its budget, so that it can be told so again."""
        balances, self._balances = self._balances, []
        return tuple(balances)

    def _remaining(self) -> dict[str, Any]:
        left = self._engine.budget.remaining()
        levels = self._engine.config.max_recursion_depth
        return left if levels == 1 else {**left, "depth": levels - 1 - self._engine.depth}

    async def end_cell(self) -> None:
        """Tell of calls that finished in batches which the end of their cell cut short."""
        for batch in list(self._batches.values()):
            await self._tell_finished(batch)
        self._batches.clear()

    async def _outcome(self, call: ReplCall, key: str) -> _Outcome:
        try:
            return await (self._run_inside if self._is_inner(call) else self._query)(call, key)
        except BudgetExceededError as error:
            await self._warn_once(error)
            return _Outcome(CallReply(error=str(error)))
        except RLMError as error:
            # Without `fix`: it speaks to whoever runs the server, not to the model.
            return _Outcome(CallReply(error=error.message))

    def _is_inner(self, call: ReplCall) -> bool:
        return call.name == "rlm_query" and bool(call.documents) and self._engine.can_recurse

    async def _query(self, call: ReplCall, key: str) -> _Outcome:
        config = self._engine.config
        prompt = "\n\n".join((call.prompt, *call.documents))
        if problem := self._problem_with(prompt, call.model):
            return _Outcome(CallReply(error=problem))
        known = await self._known(key)
        if known is not None:
            self._engine.budget.count_cached()
            return _Outcome(CallReply(known), is_cached=True)
        request = ChatRequest(
            messages=({"role": "user", "content": prompt},),
            max_tokens=config.sub_max_tokens,
            temperature=config.sub_temperature,
            model=call.model,
        )
        return await self._ask(request, key)

    async def _ask(self, request: ChatRequest, key: str) -> _Outcome:
        engine = self._engine
        async with engine.budget.sub_call(request.chars, engine.config.sub_max_tokens) as settle:
            with chat_span(engine.tracer, engine.sub_name, request) as span:
                reply = await engine.sub.complete(request)
                span.reply(reply)
            settle(reply)
        await self._log.warn_of_cut_prompt(reply, request.chars)
        used = (reply.input_tokens, reply.output_tokens)
        text = without_reasoning(reply.text)
        # Some servers leave the answer itself in the reasoning.
        is_apart = not text.strip() and reply.finish_reason != "length"
        said = text if text.strip() else reply.reasoning * is_apart
        if not said.strip():
            return _Outcome(CallReply(error=_why_empty(reply)), *used)
        # What is not whole is not for other runs, but this one has paid for it.
        is_whole = reply.is_whole and not reply.is_prompt_cut and not is_apart
        await self._keep(key if is_whole else key + OWN, said)
        return _Outcome(CallReply(said), *used)

    async def kept(self, key: str) -> str | None:
        """Give the reply that is kept under a key, also where it is this run's alone."""
        return await self._cached(key) or await self._cached(key + OWN)

    async def _known(self, key: str) -> str | None:
        if not self._is_taken_up:
            return await self._cached(key)
        return self._loose.get(key) or await self.kept(key)

    async def _cached(self, key: str) -> str | None:
        if self._cache is None:
            return None
        try:
            return await self._cache.get(key)
        except StoreError as error:  # the model can still be asked
            await self._log.emit(RunWarning(code=error.code), error.message)
            return None

    async def _keep(self, key: str, text: str) -> None:
        if self._cache is None:
            return
        try:
            await self._cache.put(key, text)
        except StoreError as error:  # the answer is paid for and must reach the code
            await self._log.emit(RunWarning(code=error.code), error.message)

    async def _run_inside(self, call: ReplCall, key: str) -> _Outcome:
        source = TextContext(
            call.documents,
            is_list=call.is_list,
            names=tuple(f"document {index}" for index in range(len(call.documents))),
        )
        known = await self._known(key) if self._is_taken_up else None
        if known is not None:
            return _Outcome(CallReply(known))
        part = self._parts.take(key)
        if part.recording.is_answered and part.recording.final is not None:
            return _Outcome(CallReply(part.recording.final.answer))
        response = await self._recurse(call.prompt, source, part)
        # Its tokens are told by its own events, so none are counted here.
        if response.answer is None:
            why = f"The inner run ended as {response.status} without an answer: {response.error}"
            return _Outcome(CallReply(error=why))
        if len(response.answer) > REPLY_CHARS_TOLD:  # more than the log keeps
            await self._keep(key + OWN, response.answer)
        return _Outcome(CallReply(response.answer))

    def _problem_with(self, prompt: str, model: str | None) -> str | None:
        limit = self._engine.config.sub_call_max_input_chars
        if len(prompt) > limit:
            return (
                f"The prompt has {len(prompt):,} characters; one sub-call takes at most {limit:,}. "
                "Cut it into pieces and ask about each."
            )
        names = self._engine.model_names
        if model is not None and model not in names:
            return f"There is no model {model!r}. Leave `model` out, or use one of {list(names)}."
        return None

    def key(self, call: ReplCall) -> str:
        """Digest what is asked, of which model and how."""
        config, asked = self._engine.config, call.model or self._engine.sub_name
        if self._is_inner(call):
            inner = ("rlm_query", asked, self._engine.depth, call.prompt, *call.documents)
            return _digest(inner)[:16]
        prompt = "\n\n".join((call.prompt, *call.documents))
        return _digest((asked, config.sub_temperature, config.sub_max_tokens, prompt))

    async def _batch_of(self, call: ReplCall) -> _Batch:
        batch = self._batches.get(call.batch_id) if call.batch_size > 1 else None
        if batch is not None:
            return batch
        # Calls of their own may share an id, so each gets one that no batch has.
        self._singles -= 1
        id_ = call.batch_id if call.batch_size > 1 else self._singles
        batch = self._batches[id_] = _Batch(id_, call.batch_size, time.monotonic())
        asked = f": {preview(call.prompt, 80)}" if batch.size == 1 else ""
        started = SubCallsStarted(calls=batch.size, name=call.name, model=call.model)
        await self._log.emit(started, f"{_count(batch.size, 'sub-call')}{asked}")
        return batch

    async def _note(self, batch: _Batch, ended: SubCall, outcome: _Outcome) -> None:
        batch.finished += 1
        batch.untold.append(ended)
        if outcome.reply.error is None and len(self.history) < SUB_CALLS_IN_HISTORY:
            text = outcome.reply.text[:REPLY_CHARS_TOLD]
            self.history.append(HistoryEntry("sub_call", text, "", self._log.turn))
        is_done = batch.finished >= batch.size
        if is_done:
            self._batches.pop(batch.id, None)
        if is_done or len(batch.untold) >= CALLS_PER_EVENT:
            await self._tell_finished(batch)

    async def _tell_finished(self, batch: _Batch) -> None:
        calls, batch.untold = batch.untold, []
        if not calls:
            return
        failed = sum(call.error is not None for call in calls)
        given = sum(call.input_tokens for call in calls)
        made = sum(call.output_tokens for call in calls)
        has_price = self._engine.budget.snapshot().cost_usd is not None
        finished = SubCallsFinished(
            calls=len(calls),
            finished=batch.finished,
            of=batch.size,
            failed=failed,
            cached=sum(call.cached for call in calls),
            input_tokens=given,
            output_tokens=made,
            cost_usd=self._engine.budget.cost(given, made) if has_price else None,
            seconds=round(time.monotonic() - batch.started, 3),
            items=tuple(calls),
        )
        failures = f", {failed} failed" if failed else ""
        line = f"{batch.finished} of {_count(batch.size, 'sub-call')} finished{failures}"
        await self._log.emit(finished, line)

    async def _warn_once(self, error: BudgetExceededError) -> None:
        if not self._is_over_told:
            self._is_over_told = True
            await self._log.emit(RunWarning(limit=error.limit), error.message)


def _why_empty(reply: ChatReply) -> str:
    if reply.finish_reason == "length":
        thought = " after thinking alone" if reply.reasoning or reply.text else ""
        return f"The model gave an empty reply: it was cut at the length limit{thought}."
    if not reply.is_whole:
        return f"The model gave an empty reply; it ended with {reply.finish_reason!r}."
    return "The model gave an empty reply."


def _digest(parts: tuple[object, ...]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _ended(call: ReplCall, outcome: _Outcome, key: str) -> SubCall:
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
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
