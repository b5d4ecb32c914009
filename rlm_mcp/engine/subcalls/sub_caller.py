"""Calls out of the REPL: sub-calls, batches of them, runs inside a run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import cached_property
from typing import Any

import anyio

from rlm_mcp.engine.cache import GroupedCache
from rlm_mcp.engine.models.chat import ChatReply, ChatRequest
from rlm_mcp.engine.models.metering import with_estimate
from rlm_mcp.engine.parsing.reasoning import without_reasoning
from rlm_mcp.engine.run_context import RunLog
from rlm_mcp.engine.subcalls.call_log import REPLY_CHARS_TOLD, CallLog, CallPlace, Outcome
from rlm_mcp.engine.subcalls.nested_runs import InnerPart, InnerParts
from rlm_mcp.engine.subcalls.typed_calls import (
    Schemas,
    corrected,
    read_typed_reply,
    typed_messages,
)
from rlm_mcp.engine.telemetry import chat_span
from rlm_mcp.engine.types import HistoryEntry, RLMResponse
from rlm_mcp.errors import BudgetExceededError, InvalidInputError, RLMError, StoreError
from rlm_mcp.events import RunWarning
from rlm_mcp.sandbox.host.text import TextContext
from rlm_mcp.sandbox.types import CallReply, ContextSource, ReplCall
from rlm_mcp.text import cut

SUB_CALLS_IN_HISTORY = 256

BALANCES_PER_CELL = 100
# While so many calls are under way, a reply waits to be kept together with others: a share of the
# time that it took, and no longer than this.
BUSY_CALLS = 8
GATHER_SHARE = 0.05
GATHER_SECONDS = 0.05
MODEL_NAME_CHARS = 100
OWN = ":own"  # added to the key of a reply that is kept for this run alone

Recurse = Callable[[str, ContextSource, InnerPart], Awaitable[RLMResponse]]


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
        self._calls = CallLog(log)
        self._is_over_told = False
        self._schemas = Schemas()
        self._balances: list[str] = []
        self._places: dict[str, str] = {}  # of models, by name
        recording = engine.recording
        self._is_taken_up = bool(recording.turns)
        # Replies in a cell that did not end; they are not asked for again when it runs again.
        self._loose = {call.key: call.text for call in recording.loose if call.error is None}

    @cached_property
    def _parts(self) -> InnerParts:
        recording = self._engine.recording
        return InnerParts(recording.inner, list(recording.ended_calls))

    async def handle(self, call: ReplCall) -> CallReply:
        """Answer one call; an error is returned to the code that made it."""
        if call.name == "budget":
            balance = json.dumps(self._remaining())
            if len(self._balances) < BALANCES_PER_CELL:
                self._balances.append(balance)
            return CallReply(balance)
        call = _with_text_in_prompt(call)
        place, key = await self._calls.begin(call), self.key(call)
        try:
            outcome = await self._outcome(call, key, place)
        except anyio.get_cancelled_exc_class():
            self._calls.cut_off(place, call, key)
            raise
        self._remember(outcome)
        await self._calls.end(place, call, outcome, key)
        return outcome.reply

    def reporting(self) -> AbstractAsyncContextManager[None]:
        """Report calls while a cell runs, and the last when it ends, however it ends."""
        return self._calls.reporting()

    def take_balances(self) -> tuple[str, ...]:
        """Return and forget what `budget()` returned in this cell, for a replay to return again."""
        balances, self._balances = self._balances, []
        return tuple(balances)

    def _remaining(self) -> dict[str, Any]:
        left = self._engine.budget.remaining()
        levels = self._engine.config.max_recursion_depth
        return left if levels == 1 else {**left, "depth": levels - 1 - self._engine.depth}

    async def _outcome(self, call: ReplCall, key: str, place: CallPlace) -> Outcome:
        try:
            if self._is_inner(call):
                return await self._run_inside(call, key, place)
            return await self._query(call, key)
        except BudgetExceededError as error:
            await self._warn_once(error)
            return Outcome(CallReply(error=str(error)))
        except RLMError as error:
            # Without `fix`, which is meant for the operator, not for the model.
            return Outcome(CallReply(error=error.message))

    def _is_inner(self, call: ReplCall) -> bool:
        return call.name == "rlm_query" and bool(call.documents) and self._engine.can_recurse

    async def _query(self, call: ReplCall, key: str) -> Outcome:
        config = self._engine.config
        prompt = "\n\n".join((call.prompt, *call.documents))
        if problem := self._problem_with(prompt, call.model):
            return Outcome(CallReply(error=problem))
        known = await self._known(key, call.model)
        if known is not None:
            self._engine.budget.count_cached()
            return Outcome(CallReply(known), is_cached=True)
        request = ChatRequest(
            messages=({"role": "user", "content": prompt},),
            max_tokens=config.sub_max_tokens,
            temperature=config.sub_temperature,
            model=call.model,
        )
        if call.name == "typed_query":
            return await self._ask_typed(call, request, key)
        return await self._ask(request, key)

    async def _ask_typed(self, call: ReplCall, request: ChatRequest, key: str) -> Outcome:
        """Ask for a reply that fits a schema, and once more where it does not; reply as JSON."""
        document = call.documents[0] if call.documents else ""
        schema = await self._schemas.read(document)
        messages = typed_messages(call.prompt, document)
        request = replace(request, messages=messages, reply_schema=schema)
        used = await self._ask(request, None)
        if used.reply.error is not None:
            return used
        try:
            data = await read_typed_reply(used.reply.text, schema)
        except InvalidInputError as error:
            again = corrected(request.messages, used.reply.text, error.message)
            used = used.plus(await self._ask(replace(request, messages=again), None))
            if used.reply.error is not None:
                return used
            data = await read_typed_reply(used.reply.text, schema)
        text = json.dumps(data, ensure_ascii=False)
        is_own = used.model is not None
        await self._keep(key + OWN if is_own else self._placed(key, call.model), text)
        return replace(used, reply=CallReply(text))

    async def _ask(self, request: ChatRequest, key: str | None) -> Outcome:
        """Ask a model; its reply is kept under `key`, if there is one."""
        engine = self._engine
        most = engine.config.sub_max_tokens
        async with engine.budget.sub_call(request.width, most, request.model) as settle:
            with chat_span(engine.tracer, engine.sub_name, request) as span:
                reply = with_estimate(await engine.sub.complete(request), request)
                span.reply(reply)
            cost = settle(reply)
        await self._log.warn_of_cut_prompt(reply, request.chars)
        answer = await self._answer_in(reply, request, key)
        return Outcome(
            answer,
            reply.input_tokens,
            reply.output_tokens,
            cost,
            reply.timing.queued_seconds,
            model=None if reply.model in {"", engine.sub_name} else reply.model,
        )

    async def _answer_in(
        self, reply: ChatReply, request: ChatRequest, key: str | None
    ) -> CallReply:
        """Return what a reply says, once it is kept, or why it says nothing."""
        text = without_reasoning(reply.text)
        # Some servers return the answer itself as reasoning.
        is_apart = not text.strip() and reply.finish_reason != "length"
        said = text if text.strip() else reply.reasoning * is_apart
        if not said.strip():
            return CallReply(error=_why_empty(reply))
        if key is None:
            return CallReply(said)
        if reply.is_whole and not reply.is_prompt_cut and not is_apart:
            await self._keep_whole(request, reply, key, said)
        else:  # it is not for other runs, but this one has paid for it
            await self._keep(key + OWN, said, self._gather_seconds(reply))
        return CallReply(said)

    async def _keep_whole(
        self, request: ChatRequest, reply: ChatReply, key: str, text: str
    ) -> None:
        """Keep a reply for all runs, under the name of the model that gave it."""
        asked = request.model or self._engine.sub_name
        is_asked = reply.model in {"", asked}
        given = key if is_asked else self._key_of(reply.model, str(request.messages[0]["content"]))
        keys = [self._placed(given, asked if is_asked else reply.model)]
        if not is_asked or len(text) > REPLY_CHARS_TOLD:
            keys.append(key + OWN)  # when resumed, this run gets what it got before
        await self._keep_under(keys, text, self._gather_seconds(reply))

    def _gather_seconds(self, reply: ChatReply) -> float:
        if self._engine.budget.calls_under_way < BUSY_CALLS:
            return 0.0
        took = reply.timing.seconds - reply.timing.queued_seconds
        return min(GATHER_SECONDS, GATHER_SHARE * took)

    async def kept(self, call: ReplCall) -> str | None:
        """Return the reply that is kept of a call, including those kept for this run alone."""
        return await self._kept(self.key(call), call.model)

    async def _kept(self, key: str, model: str | None) -> str | None:
        return await self._cached(self._placed(key, model), key, key + OWN)

    async def _known(self, key: str, model: str | None = None) -> str | None:
        if not self._is_taken_up:
            return await self._cached(self._placed(key, model), key)
        return self._loose.get(key) or await self._kept(key, model)

    def _placed(self, key: str, model: str | None) -> str:
        """Add to a key where its model answers, as another place may have one of the same name.

        Without it are the keys of logs, and those of replies that earlier versions kept.
        """
        name = model or self._engine.sub_name
        place = self._places.get(name)
        if place is None:
            place = self._places[name] = self._engine.place_of(name)
        return _digest((key, place)) if place else key

    async def _cached(self, *keys: str) -> str | None:
        """Return the reply that is kept under the first of several keys that has one."""
        if self._cache is None:
            return None
        try:
            return await self._cache.get(*dict.fromkeys(keys))
        except StoreError as error:  # the model can still be asked
            await self._log.emit(RunWarning(code=error.code), error.message)
            return None

    async def _keep(self, key: str, text: str, gather_seconds: float = 0.0) -> None:
        await self._keep_under([key], text, gather_seconds)

    async def _keep_under(self, keys: Sequence[str], text: str, gather_seconds: float) -> None:
        if self._cache is None:
            return
        try:
            await self._cache.put(keys, text, gather_seconds)
        except StoreError as error:  # the answer is paid for and must reach the code
            await self._log.emit(RunWarning(code=error.code), error.message)

    async def _run_inside(self, call: ReplCall, key: str, place: CallPlace) -> Outcome:
        source = TextContext(
            call.documents,
            is_list=call.is_list,
            names=tuple(f"document {index}" for index in range(len(call.documents))),
        )
        known = await self._known(key) if self._is_taken_up else None
        if known is not None:
            return Outcome(CallReply(known))
        part = self._parts.take(key)
        if part.recording.is_answered and part.recording.final is not None:
            return Outcome(CallReply(part.recording.final.answer))
        part = replace(part, batch=place.batch.number, n=place.n)
        response = await self._recurse(call.prompt, source, part)
        # Its own events report its tokens, so none are counted here.
        if response.answer is None:
            why = f"The inner run ended as {response.status} without an answer: {response.error}"
            return Outcome(CallReply(error=why))
        if len(response.answer) > REPLY_CHARS_TOLD:  # more than the log keeps
            await self._keep(key + OWN, response.answer)
        return Outcome(CallReply(response.answer))

    def _problem_with(self, prompt: str, model: str | None) -> str | None:
        limit = self._engine.config.sub_call_max_input_chars
        if len(prompt) > limit:
            return (
                f"The prompt has {len(prompt):,} characters; one sub-call takes at most {limit:,}. "
                "Cut it into pieces and ask about each."
            )
        names = self._engine.model_names
        if model is not None and model not in names:
            named = cut(model, MODEL_NAME_CHARS)
            return f"There is no model {named!r}. Leave `model` out, or use one of {list(names)}."
        return None

    def key(self, call: ReplCall) -> str:
        """Digest what is asked, of which model and how."""
        asked = call.model or self._engine.sub_name
        if self._is_inner(call):
            inner = ("rlm_query", asked, self._engine.depth, call.prompt, *call.documents)
            return _digest(inner)[:16]
        prompt = "\n\n".join((call.prompt, *call.documents))
        typed = "typed: " if call.name == "typed_query" else ""
        return self._key_of(asked, typed + prompt)

    def _key_of(self, model: str, prompt: str) -> str:
        config = self._engine.config
        return _digest((model, config.sub_temperature, config.sub_max_tokens, prompt))

    def _remember(self, outcome: Outcome) -> None:
        if outcome.reply.error is None and len(self.history) < SUB_CALLS_IN_HISTORY:
            text = outcome.reply.text[:REPLY_CHARS_TOLD]
            self.history.append(HistoryEntry("sub_call", text, "", self._log.turn))

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


def _with_text_in_prompt(call: ReplCall) -> ReplCall:
    """Read `llm_query(question, chunk)`: a second argument that does not name a model is text.

    The question comes last, or else the shorter text: a weak model judges better so.
    """
    text = call.model or ""
    is_short = len(text) <= MODEL_NAME_CHARS and not any(map(str.isspace, text))
    if (is_short and not _is_question(text)) or call.name != "llm_query":
        return call
    first, last = sorted((call.prompt, text), key=lambda each: (_is_question(each), -len(each)))
    return replace(call, prompt=f"{first}\n\n{last}", model=None)


def _is_question(text: str) -> bool:
    return text.rstrip().endswith("?")


def _digest(parts: tuple[object, ...]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
