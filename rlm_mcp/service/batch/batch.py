"""A batch at work: each question is a run with an idempotency key, so a batch can be started again.

The store is the truth. Started again after any end, a batch finds the runs that are done, resumes
those that were interrupted from their logs, and asks the rest: nothing on record is paid twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import anyio

from rlm_mcp.errors import RLMError
from rlm_mcp.service.batch.judging import judge_question, verdict
from rlm_mcp.service.batch.lines import BatchLine
from rlm_mcp.service.batch.patterns import match_score
from rlm_mcp.service.batch.scores import JUDGE, REGEX, SCORES, ordered_json
from rlm_mcp.service.runs.questions import Question
from rlm_mcp.service.runs.runs import RunService
from rlm_mcp.store.runs.records import RunRecord
from rlm_mcp.values import error_fields

# A run ends by its own budget; a wait is begun again until then.
_WAIT_SECONDS = 3600.0
_MAX_FAILED_WAITS = 10
# Each takes a core until its pattern is found, or it has taken too long.
_PATTERNS_AT_ONCE = 4

FindHandles = Callable[[Sequence[str]], Awaitable[tuple[str, ...]]]


@dataclass(frozen=True)
class BatchOptions:
    """How a batch is worked on.

    Args:
        name: of the batch; the same name and question find the same run again.
        settings: all that an answer depends on besides its line; if it changes, runs are new ones.
        at_once: how many questions are worked on at the same time.
        retries_failed: whether runs that failed are resumed too.
        max_usd: nothing is begun or resumed once all together have cost so much; what is on record
            still has its results.
        score: how answers are compared where a line does not say.
        judge_model: who compares where the score is `judge`; empty for the root model.
    """

    name: str = "batch"
    settings: str = ""
    at_once: int = 8
    retries_failed: bool = False
    max_usd: float | None = None
    score: str = "contains"
    judge_model: str = ""


class Batch:
    """Asks the questions of a batch.

    Args:
        runs: where they are asked.
        find_handles: returns the handles of the named texts, or of all if none is named.
    """

    def __init__(self, runs: RunService, find_handles: FindHandles, options: BatchOptions) -> None:
        self._runs = runs
        self._find_handles = find_handles
        self._options = options
        self._matching = anyio.CapacityLimiter(_PATTERNS_AT_ONCE)
        self._spent_usd = 0.0
        self.unasked = 0

    async def run(self, lines: Sequence[BatchLine]) -> AsyncGenerator[dict[str, Any]]:
        """Yield a result for each question, in order of their end. Close it when you stop early.

        Raises:
            ConfigurationError: no model is configured, or there is a limit in USD and no price, so
                that it would never end.
        """
        await self._runs.find(Question("?", ("none",)))  # refuses where no model is configured
        if self._options.max_usd:
            limit = {"max_usd": self._options.max_usd}
            await self._runs.check_limits(Question("?", budget=limit))
        send, receive = anyio.create_memory_object_stream[dict[str, Any]](0)
        waiting = iter(lines)
        async with anyio.create_task_group() as group:
            for _ in range(self._options.at_once):
                group.start_soon(self._work, waiting, send.clone())
            send.close()
            async with receive:
                try:
                    async for result in receive:
                        yield result
                except GeneratorExit:  # whoever closes this gets no group of exceptions
                    group.cancel_scope.cancel()

    async def _work(self, waiting: Any, results: Any) -> None:
        async with results:
            for line in waiting:
                result = await self._answer(line)
                if result is None:
                    self.unasked += 1
                    continue
                self._spent_usd += result["cost_usd"] or 0.0
                await results.send(result)

    def _is_spent(self) -> bool:
        limit = self._options.max_usd
        return limit is not None and self._spent_usd >= limit

    async def _answer(self, line: BatchLine) -> dict[str, Any] | None:
        """Return the result of a question; None where it would cost more than there is."""
        run_id: str | None = None
        try:
            handles = await self._find_handles(line.contexts)
            question = Question(
                line.question,
                contexts=handles,
                budget=line.budget,
                answer_schema=line.answer_schema,
                idempotency_key=self._key(line, handles),
            )
            run_id = await self._begun(question)
            if run_id is None:
                return None
            run = await self._ended(run_id)
            return self._result(line, run) | await self._scored_elsewhere(line, run, handles)
        except RLMError as error:
            return self._refused(line, error) | {"run_id": run_id}

    async def _begun(self, question: Question) -> str | None:
        """Return the run of a question, on record or new; None where it would cost too much."""
        # First, as what is on record needs nothing of what a new run needs.
        run_id = await self._runs.find(question)
        if not self._is_spent():
            return run_id or (await self._runs.begin(question)).run_id
        status = (await self._runs.state(run_id)).status if run_id else "running"
        return None if status in (*self._resumed, "running") else run_id

    @property
    def _resumed(self) -> Sequence[str]:
        """How runs ended that are resumed, where that was before this batch."""
        return ("interrupted", "cancelled", *(["failed"] * self._options.retries_failed))

    async def _scored_elsewhere(
        self, line: BatchLine, run: RunRecord, handles: tuple[str, ...]
    ) -> dict[str, Any]:
        """Return what a judge or a pattern says of an answer, where that is how it is scored."""
        score = line.score or self._options.score
        if line.expected is None or run.answer is None or score not in {JUDGE, REGEX}:
            return {}
        if score == JUDGE:
            return await self._judged(line, run, handles)
        try:
            async with self._matching:
                return {"score": await match_score(run.answer, line.expected)}
        except RLMError as error:  # the answer is paid for, and stays
            return {"score_error": error_fields(error)}

    async def _judged(
        self, line: BatchLine, run: RunRecord, handles: tuple[str, ...]
    ) -> dict[str, Any]:
        """Return the fields of a result that a judge's verdict sets; its cost is the batch's."""
        answer, judge = run.answer or "", self._options.judge_model
        digest = hashlib.sha256(json.dumps([line.expected, answer, judge]).encode()).hexdigest()
        key = f"verdict {self._options.name[:80]} {line.id[:80]} {run.run_id} {digest[:32]}"
        question = judge_question(line, answer, handles, judge, key)
        try:
            run_id = await self._begun(question)
            if run_id is None:
                return {}
            said = await self._ended(run_id)
        except RLMError as error:  # the answer is paid for, and stays
            return {"score": None, "score_error": error_fields(error)}
        both = (run.figures, said.figures)
        costs = [one.cost_usd for one in both if one.cost_usd is not None]
        score = verdict(said.data)
        return {
            "score": score,
            "score_error": None if score is not None else said.error,
            "judge_run_id": run_id,
            "input_tokens": sum(one.input_tokens for one in both),
            "output_tokens": sum(one.output_tokens for one in both),
            "cost_usd": sum(costs) if costs else None,
        }

    async def _ended(self, run_id: str) -> RunRecord:
        before = await self._runs.state(run_id)
        state = await self._wait(run_id)
        # Whoever cancels a run of a batch at work wants no more of it to be paid.
        is_cancelled = state.status == "cancelled" and before.status == "running"
        if state.status not in self._resumed or is_cancelled:
            return state
        try:
            await self._runs.resume(run_id, {})
        except RLMError as error:  # what it came to stays
            return replace(state, error=error_fields(error))
        return await self._wait(run_id)

    async def _wait(self, run_id: str) -> RunRecord:
        failures = 0
        while True:
            try:
                state = await self._runs.wait(run_id, _WAIT_SECONDS, _no_report)
            except RLMError as error:
                # The run goes on and is paid for: what passes by must not lose its result.
                failures += 1
                if not error.retryable or failures == _MAX_FAILED_WAITS:
                    raise
                await anyio.sleep(failures)
                continue
            if state.status != "running":
                return state

    def _key(self, line: BatchLine, handles: Sequence[str]) -> str:
        asked = [line.question, handles, line.answer_schema, line.budget, self._options.settings]
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        return f"batch {self._options.name[:80]} {line.id[:80]} {digest[:32]}"

    def _result(self, line: BatchLine, run: RunRecord) -> dict[str, Any]:
        figures = run.figures
        return {
            "id": line.id,
            "run_id": run.run_id,
            "status": run.status,
            "answer": run.answer,
            "data": run.data,
            "score": self._score(line, run),
            "turns": figures.iterations,
            "sub_calls": figures.sub_calls,
            "input_tokens": figures.input_tokens,
            "output_tokens": figures.output_tokens,
            "cost_usd": figures.cost_usd,
            "seconds": round(run.elapsed_seconds, 3),
            "error": run.error,
        }

    def _refused(self, line: BatchLine, error: RLMError) -> dict[str, Any]:
        empty = dict.fromkeys(("run_id", "answer", "data", "cost_usd"))
        zeros = dict.fromkeys(("turns", "sub_calls", "input_tokens", "output_tokens", "seconds"), 0)
        score = None if line.expected is None else 0.0
        named = {"id": line.id, "status": "refused", "score": score, "error": error_fields(error)}
        return {**named, **empty, **zeros}

    def _score(self, line: BatchLine, run: RunRecord) -> float | None:
        if line.expected is None:
            return None
        if run.answer is None:
            return 0.0
        compare = SCORES.get(line.score or self._options.score)
        if compare is None:
            return None
        if line.answer_schema is not None:
            is_typed = run.data is not None
            answer = json.dumps(run.data, ensure_ascii=False) if is_typed else run.answer
            return compare(ordered_json(answer), ordered_json(line.expected))
        return compare(run.answer, line.expected)


async def _no_report(state: RunRecord) -> None:
    """A batch reports results, not what its runs do."""
