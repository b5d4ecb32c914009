"""Several attempts at one question, side by side within one budget; what they agree on counts."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace

import anyio
from anyio import to_thread

from rlm_mcp.engine.cache import MemoryCache
from rlm_mcp.engine.config import RLMConfig
from rlm_mcp.engine.loop.agreement import Agreement, equal_groups, majority, read_verdict
from rlm_mcp.engine.models.chat import ChatRequest
from rlm_mcp.engine.models.metering import with_estimate
from rlm_mcp.engine.parsing.reasoning import without_reasoning
from rlm_mcp.engine.prompts.messages import judge_attempts
from rlm_mcp.engine.recording import Recording
from rlm_mcp.engine.run_context import Engine, EventSink, RLMEvent, RunLog, repl_options
from rlm_mcp.engine.subcalls.nested_runs import InnerPart
from rlm_mcp.engine.types import RLMResponse
from rlm_mcp.errors import RLMError
from rlm_mcp.events import (
    ATTEMPT_NAME,
    FORMAT_VERSION,
    FinalAnswer,
    RunStarted,
    RunWarning,
    Support,
)
from rlm_mcp.sandbox.types import ContextSource, Repl
from rlm_mcp.text import preview

# Each attempt is asked a little warmer than the one before, so that they go different ways.
WARMER = 0.15
WARMEST = 1.0
JUDGE_TOKENS = 2_000


AnswerOnce = Callable[[str, ContextSource, Repl, Engine], Awaitable[RLMResponse]]
BringBack = Callable[[str, ContextSource, Repl, Engine], Awaitable[None]]


class Attempts:
    """As many attempts at one question as the configuration says.

    Args:
        question: what is asked.
        source: the text.
        engine: of the run that they make up.
        answer_once: makes one attempt in a REPL; whatever ends it, it gives a response.
        bring_back: brings a fresh REPL to where a recorded attempt left its own.
    """

    def __init__(
        self,
        question: str,
        source: ContextSource,
        engine: Engine,
        answer_once: AnswerOnce,
        bring_back: BringBack,
    ) -> None:
        self._answer_once = answer_once
        self._bring_back = bring_back
        self._question = question
        self._source = source
        # What one asked a sub-model, the others need not ask again.
        self._engine = replace(engine, cache=engine.cache or MemoryCache())
        self._log = RunLog(self._engine)
        self._tries = engine.config.attempts
        self._ended: list[RLMResponse | None] = [None] * self._tries
        self._errors: list[RLMError | None] = [None] * self._tries

    async def answer(self, repl: Repl) -> RLMResponse:
        """Answer by what the attempts agree on; the first of them works in `repl`.

        Raises:
            RLMError: no attempt could begin, or an event could not be stored.
        """
        async with anyio.create_task_group() as group:
            for place in range(self._tries):
                group.start_soon(self._try, place, repl)
        told = [one for one in self._ended if one is not None]
        answered = [one for one in told if one.answer is not None]
        whole = [one for one in answered if one.status == "completed"]
        if not answered:
            return self._without_answer(told)
        return await self._agreed(whole or answered)

    async def _try(self, place: int, repl: Repl) -> None:
        """Make one attempt; whatever ends it, the others go on."""
        try:
            self._ended[place] = await self._attempt(place + 1, repl)
        except RLMError as error:
            self._errors[place] = error
            line = f"Attempt {place + 1} failed: {error.message}"
            with suppress(RLMError):  # what cannot be stored now shows when the answer is stored
                await self._log.emit(RunWarning(code=error.code), line)

    async def _attempt(self, number: int, repl: Repl) -> RLMResponse:
        engine = self._engine_of(number)
        async with AsyncExitStack() as stack:
            recording = engine.recording
            if self._is_over(recording):
                if number == 1:  # who continues this run finds its variables
                    with suppress(RLMError):
                        await self._bring_back(self._question, self._source, repl, engine)
                return _recorded(recording)
            started = RunStarted(version=FORMAT_VERSION, question=self._question, attempt=number)
            usage = engine.budget.snapshot()
            line = f"attempt {number} of {self._tries}"
            await engine.emit(RLMEvent.of(started, 0, line, usage=usage))
            if number > 1:
                options = repl_options(engine.config, seed=_seed(self._question, number))
                repl = await stack.enter_async_context(
                    engine.sandbox.open_repl(self._source, options)
                )
            return await self._answer_once(self._question, self._source, repl, engine)

    def _engine_of(self, number: int) -> Engine:
        engine = self._engine
        name = f"{ATTEMPT_NAME}{number}"
        recording = engine.recording.inner.get(name, Recording())
        if number == 1:
            recording = replace(recording, is_repl_live=engine.recording.is_repl_live)
        return replace(
            engine,
            config=_config_of(engine.config, number),
            recording=recording,
            emit=_one_level_down(InnerPart(name, recording).within(engine.emit)),
            on_root_delta=engine.on_root_delta if number == 1 else None,
            attempt=number,
        )

    def _is_over(self, recording: Recording) -> bool:
        """Whether an attempt ended before its run was resumed; more room reopens exhausted ones."""
        has_room = self._engine.recording.ended_as == "exhausted"
        return recording.is_answered or (recording.final is not None and not has_room)

    async def _agreed(self, responses: Sequence[RLMResponse]) -> RLMResponse:
        groups = equal_groups(responses)
        agreement = majority(groups, len(responses)) or await self._judged(responses, groups)
        chosen = responses[agreement.chosen]
        told = f"{agreement.agreeing} of {self._tries}"
        support = replace(chosen.support or Support(), agreement=told)
        final = FinalAnswer(
            answer=chosen.answer or "",
            data=chosen.data,
            origin="attempts",
            status=chosen.status,
            direct=chosen.direct,
            citations=chosen.citations or None,
            support=support,
        )
        await self._log.emit(final, f"{told} attempts agree: {preview(chosen.answer or '')}")
        return self._with_figures(replace(chosen, support=support))

    async def _judged(
        self, responses: Sequence[RLMResponse], groups: Sequence[Sequence[int]]
    ) -> Agreement:
        """Ask a model once which of the different answers say the same."""
        answers = [responses[group[0]].answer or "" for group in groups]
        try:
            reply = await self._ask(judge_attempts(self._question, answers))
            # In a thread, since it loads the validator.
            agreement = await to_thread.run_sync(read_verdict, reply, groups)
            line = "The attempts differ; a model judged which of them say the same."
        except RLMError as error:
            agreement = Agreement(groups[0][0], len(groups[0]))
            line = f"The attempts differ, and a model could not judge them: {error.message}"
        await self._log.emit(RunWarning(), line)
        return agreement

    async def _ask(self, prompt: str) -> str:
        engine = self._engine
        config = engine.config
        request = ChatRequest(
            messages=({"role": "user", "content": prompt},),
            max_tokens=min(JUDGE_TOKENS, config.root_max_tokens),
            temperature=None if config.temperature is None else 0.0,
        )
        async with engine.budget.root_turn(request.width) as settle:
            reply = with_estimate(await engine.root.complete(request), request)
            settle(reply)
        return without_reasoning(reply.text)

    def _without_answer(self, told: Sequence[RLMResponse]) -> RLMResponse:
        """Say why there is none: the first reason, that of an attempt with more to say first."""
        if told:
            exhausted = [one for one in told if one.status == "exhausted"]
            return self._with_figures((exhausted or told)[0])
        error = next(error for error in self._errors if error is not None)
        raise error

    def _with_figures(self, response: RLMResponse) -> RLMResponse:
        usage = self._engine.budget.snapshot()
        return replace(
            response,
            iterations=usage.iterations,
            sub_calls=usage.sub_calls,
            total_input_tokens=usage.input_tokens,
            total_output_tokens=usage.output_tokens,
            elapsed_seconds=self._engine.budget.elapsed_seconds,
            cost=usage.cost_usd,
            cached_sub_calls=usage.cached_sub_calls,
        )


def _config_of(config: RLMConfig, number: int) -> RLMConfig:
    changes: dict[str, object] = {"attempts": 1}
    if config.temperature is not None:
        warmer = min(WARMEST, config.temperature + WARMER * (number - 1))
        changes["temperature"] = max(config.temperature, round(warmer, 2))
    return config.model_copy(update=changes)


def _seed(question: str, number: int) -> int:
    """Return what `random` starts from in a REPL: the same when the attempt is resumed."""
    return int(hashlib.sha256(f"{number} {question}".encode()).hexdigest()[:8], 16)


def _one_level_down(emit: EventSink) -> EventSink:
    async def tell(*events: RLMEvent) -> None:
        await emit(*(replace(event, depth=event.depth + 1) for event in events))

    return tell


def _recorded(recording: Recording) -> RLMResponse:
    """Make the response of an attempt that ended before its run was resumed."""
    final = recording.final or FinalAnswer()
    return RLMResponse(
        answer=final.answer,
        status="completed" if final.status == "completed" else "exhausted",
        iterations=len(recording.turns),
        sub_calls=0,
        total_input_tokens=0,
        total_output_tokens=0,
        elapsed_seconds=0.0,
        data=final.data,
        direct=final.direct,
        citations=final.citations or (),
        support=final.support,
    )
