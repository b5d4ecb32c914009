"""A batch at work: each question is a run with an idempotency key, so a batch can be started again.

The store is the truth. Started again after any end, a batch finds the runs that are done, resumes
those that were interrupted from their logs, and asks the rest: nothing on record is paid twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import anyio

from rlm_mcp.errors import RLMError
from rlm_mcp.service.batch.judging import judge_question, verdict
from rlm_mcp.service.batch.lines import BatchLine
from rlm_mcp.service.batch.scores import JUDGE, SCORES
from rlm_mcp.service.runs.questions import Question
from rlm_mcp.service.runs.runs import RunService
from rlm_mcp.store.runs.records import RunRecord
from rlm_mcp.values import error_fields

# A run ends by its own budget; a wait is begun again until then.
_WAIT_SECONDS = 3600.0
_MAX_FAILED_WAITS = 10

FindHandles = Callable[[Sequence[str]], Awaitable[tuple[str, ...]]]


@dataclass(frozen=True)
class BatchOptions:
    """How a batch is worked on.

    Args:
        name: of the batch; the same name and question find the same run again.
        settings: all that an answer depends on besides its line; if it changes, runs are new ones.
        at_once: how many questions are worked on at the same time.
        retries_failed: whether runs that failed are resumed too.
        max_usd: no question is begun once all together have cost so much.
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
        self._spent_usd = 0.0
        self.unasked = 0

    async def run(self, lines: Sequence[BatchLine]) -> AsyncGenerator[dict[str, Any]]:
        """Yield a result for each question, in order of their end. Close it when you stop early.

        Raises:
            ConfigurationError: there is a limit in USD and no price, so that it would never end.
        """
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
                async for result in receive:
                    yield result

    async def _work(self, waiting: Any, results: Any) -> None:
        async with results:
            for line in waiting:
                if self._is_spent():
                    self.unasked += 1
                    continue
                result = await self._answer(line)
                self._spent_usd += result["cost_usd"] or 0.0
                await results.send(result)

    def _is_spent(self) -> bool:
        limit = self._options.max_usd
        return limit is not None and self._spent_usd >= limit

    async def _answer(self, line: BatchLine) -> dict[str, Any]:
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
            run_id = (await self._runs.begin(question)).run_id
            run = await self._ended(run_id)
            if self._is_judged(line) and run.answer is not None:
                return self._result(line, run) | await self._judged(line, run, handles)
            return self._result(line, run)
        except RLMError as error:
            return self._refused(line, error) | {"run_id": run_id}

    def _is_judged(self, line: BatchLine) -> bool:
        return line.expected is not None and (line.score or self._options.score) == JUDGE

    async def _judged(
        self, line: BatchLine, run: RunRecord, handles: tuple[str, ...]
    ) -> dict[str, Any]:
        """Return the fields of a result that a judge's verdict sets; its cost is the batch's."""
        answer, judge = run.answer or "", self._options.judge_model
        digest = hashlib.sha256(json.dumps([line.expected, answer, judge]).encode()).hexdigest()
        key = f"verdict {self._options.name[:80]} {line.id[:80]} {run.run_id} {digest[:32]}"
        try:
            begun = await self._runs.begin(judge_question(line, answer, handles, judge, key))
            said = await self._ended(begun.run_id)
        except RLMError as error:  # the answer is paid for, and stays
            return {"score": None, "score_error": error_fields(error)}
        both = (run.figures, said.figures)
        costs = [one.cost_usd for one in both if one.cost_usd is not None]
        score = verdict(said.data)
        return {
            "score": score,
            "score_error": None if score is not None else said.error,
            "judge_run_id": begun.run_id,
            "input_tokens": sum(one.input_tokens for one in both),
            "output_tokens": sum(one.output_tokens for one in both),
            "cost_usd": sum(costs) if costs else None,
        }

    async def _ended(self, run_id: str) -> RunRecord:
        before = await self._runs.state(run_id)
        state = await self._wait(run_id)
        is_failed = state.status == "failed" and self._options.retries_failed
        # Whoever cancels a run of a batch at work wants no more of it to be paid.
        is_cancelled = state.status == "cancelled" and before.status != "running"
        if is_failed or is_cancelled or state.status == "interrupted":
            await self._runs.resume(run_id, {})
            state = await self._wait(run_id)
        return state

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
            "score": self._score(line, run.answer),
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
        score = self._score(line, None)
        named = {"id": line.id, "status": "refused", "score": score, "error": error_fields(error)}
        return {**named, **empty, **zeros}

    def _score(self, line: BatchLine, answer: str | None) -> float | None:
        if line.expected is None:
            return None
        if answer is None:
            return 0.0
        compare = SCORES.get(line.score or self._options.score)
        return compare(answer, line.expected) if compare else None


async def _no_report(state: RunRecord) -> None:
    """A batch reports results, not what its runs do."""
