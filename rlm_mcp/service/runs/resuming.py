"""Resumes runs that have ended: from the log, within limits that hold for the whole run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from rlm_mcp.engine.budget import Budget
from rlm_mcp.engine.config import RLMConfig
from rlm_mcp.engine.pricing import Pricing
from rlm_mcp.engine.recording import RecordedCell, Recording, read_recording
from rlm_mcp.engine.run_context import RLMEvent
from rlm_mcp.engine.spending import spelled
from rlm_mcp.errors import InvalidInputError, NotFoundError
from rlm_mcp.events import FORMAT_VERSION, RunStarted
from rlm_mcp.sandbox.types import ContextSource
from rlm_mcp.service.runs.execution import Task, new_event
from rlm_mcp.service.runs.questions import more_room, used_of, with_budget
from rlm_mcp.store.runs.records import Event, ResumedRun, RunRecord
from rlm_mcp.values import Usage

if TYPE_CHECKING:
    from rlm_mcp.store.contexts.contexts import Contexts
    from rlm_mcp.store.runs.runs import Runs

_EVENTS_AT_ONCE = 500

FindPricing = Callable[[str, str], Awaitable[Pricing]]
FindWalls = Callable[[str], Awaitable[Mapping[str, Any] | None]]


@dataclass(frozen=True)
class Resumption:
    """A run that is ready to be resumed: its task, its budget, and the change to its row."""

    task: Task
    budget: Budget
    change: ResumedRun


class Resumer:
    """Prepares runs that have ended to be resumed.

    Args:
        runs: those of a caller.
        texts: of that caller.
        find_walls: says what stands between model code and the machine, as `RunExecutor.walls`.
        find_pricing: says what two models cost.
    """

    def __init__(
        self, runs: Runs, texts: Contexts, find_walls: FindWalls, find_pricing: FindPricing
    ) -> None:
        self._runs = runs
        self._texts = texts
        self._find_walls = find_walls
        self._find_pricing = find_pricing

    async def prepare(self, record: RunRecord, limits: Mapping[str, Any]) -> Resumption:
        """Read a run's log and check that it can be resumed.

        Args:
            record: a run that does not work.
            limits: of the tool's budget; they replace the old ones.

        Raises:
            InvalidInputError: it cannot be resumed, or not within these limits.
            NotFoundError: a text of it was deleted.
            ConfigurationError: a limit in USD has no prices.
        """
        _check_kind(record)
        source = await self._source(record)
        events = await self._events(record.run_id)
        _check_record(record, events)
        rebuilt = rebuild(events)
        config = with_budget(_config_of(rebuilt), limits)
        _check_limits(rebuilt, config, limits, record.elapsed_seconds)
        models = (rebuilt.config["root_model"], rebuilt.config["sub_model"])
        budget = Budget(
            config,
            spent=replace(rebuilt.figures, by_model=record.figures.by_model),
            spent_seconds=record.elapsed_seconds,
            pricing=await self._find_pricing(*models),
        )
        _check_room(record, rebuilt, budget, config)
        before, first = await self._before(record)
        task = self._task(record, rebuilt, config, source)
        task = replace(
            task,
            recording=replace(task.recording, before=before),
            seed_run=first.run_id,
            isolation=await self._find_walls(source.key),
        )
        return Resumption(task, budget, _resumed(record, rebuilt, task))

    def _task(
        self, record: RunRecord, rebuilt: Rebuilt, config: RLMConfig, source: ContextSource
    ) -> Task:
        return Task(
            run_id=record.run_id,
            question=rebuilt.question,
            config=config,
            source=source,
            root_model=rebuilt.config["root_model"],
            sub_model=rebuilt.config["sub_model"],
            answer_schema=rebuilt.config["answer_schema"],
            handles=rebuilt.contexts,
            recording=rebuilt.recording,
            attempt=record.attempt + 1,
        )

    async def _events(self, run_id: str) -> list[Event]:
        events: list[Event] = []
        while True:
            after = events[-1].seq if events else 0
            page = await self._runs.events(run_id, after=after, limit=_EVENTS_AT_ONCE)
            events += page
            if len(page) < _EVENTS_AT_ONCE:
                return events

    async def _before(self, record: RunRecord) -> tuple[Sequence[RecordedCell], RunRecord]:
        """Collect the cells of the runs whose REPL this one began with, and find the first."""
        cells: list[RecordedCell] = []
        while record.continues:
            try:
                earlier = await self._runs.get(record.continues)
            except NotFoundError:
                break  # it was too old to be kept; what is missing shows when the cells run
            log = await self._events(earlier.run_id)
            until = [event for event in log if event.at <= record.created_at]
            cells = [*read_recording(until).repl_cells, *cells]
            record = earlier
        return cells, record

    async def _source(self, record: RunRecord) -> ContextSource:
        try:
            return await self._texts.source(record.contexts)
        except NotFoundError as error:
            raise NotFoundError(
                f"The run {record.run_id!r} cannot be resumed without its text. {error.message}",
                fix="The run's log was deleted with the text: store the text again, and ask again.",
            ) from error


def _check_kind(record: RunRecord) -> None:
    if not record.question:
        raise InvalidInputError(
            f"The run {record.run_id!r} was created by rlm_exec and has no question to resume.",
            fix="Call rlm_exec with its run_id.",
        )
    if record.status == "completed":
        raise InvalidInputError(
            f"The run {record.run_id!r} has completed: it has its answer.",
            fix="Ask a further question with continue_run of rlm_query.",
        )


def _check_record(record: RunRecord, events: Sequence[Event]) -> None:
    starts = [
        RunStarted.from_detail(one.detail)
        for one in events
        if one.type == RunStarted.type and one.depth == 0
    ]
    if not starts or starts[0].options is None:
        raise InvalidInputError(
            f"The log of the run {record.run_id!r} was deleted with its text.",
            fix="Ask again with rlm_query.",
        )
    newest = max(start.version for start in starts)
    if newest > FORMAT_VERSION:
        raise InvalidInputError(
            f"The run {record.run_id!r} was recorded in format {newest}, by a newer rlm-mcp; "
            f"this one reads formats up to {FORMAT_VERSION}.",
            fix="Upgrade rlm-mcp.",
        )


def _config_of(rebuilt: Rebuilt) -> RLMConfig:
    if not rebuilt.recording.is_whole:
        raise InvalidInputError(
            "The run was recorded by a version that stored too little to resume it.",
            fix="Ask again with continue_run of rlm_query, which begins with its variables.",
        )
    known = {
        name: rebuilt.config[name] for name in RLMConfig.model_fields if name in rebuilt.config
    }
    return RLMConfig.model_validate(known)


def _check_limits(
    rebuilt: Rebuilt, config: RLMConfig, limits: Mapping[str, Any], elapsed_seconds: float
) -> None:
    """Refuse new limits that are used up: they are for the whole run, what is spent included."""
    used = used_of(asdict(rebuilt.figures), elapsed_seconds)
    over = {name: used[name] for name in limits if name in used and used[name] >= limits[name]}
    if over:
        named = ", ".join(f"{name}={limits[name]!r}, {used:g} used" for name, used in over.items())
        raise InvalidInputError(
            f"These limits are already used up: {named}.",
            fix="Give larger ones: a limit counts what the run has already spent.",
        )


def _check_room(record: RunRecord, rebuilt: Rebuilt, budget: Budget, config: RLMConfig) -> None:
    """Refuse to resume an exhausted run with no larger budget."""
    if record.status != "exhausted":
        return
    replies = [turn.reply for turn in rebuilt.recording.turns if turn.reply is not None]
    if replies:
        budget.learn_root_turn(replies[-1])
    is_last = record.figures.iterations >= config.max_iterations
    limit = "iterations" if is_last else budget.last_turn_limit
    if limit is not None:
        proposed = {f"max_{limit}": None} | more_room(record)
        raise InvalidInputError(
            f"The run {record.run_id!r} has used up its budget of {spelled(limit)}.",
            fix=f"Give a larger budget, such as {proposed}: a limit counts what the run has "
            "already spent.",
        )


@dataclass(frozen=True)
class Rebuilt:
    """What a log records of its run; names and meanings are those of `RunRecord`."""

    question: str
    contexts: tuple[str, ...]
    config: Mapping[str, Any]
    figures: Usage = field(default_factory=Usage)
    last_event: int = 0
    recording: Recording = field(default_factory=Recording)


def rebuild(events: Sequence[Event]) -> Rebuilt:
    """Read a whole log, from its first event.

    A resumed run has several starts; the options of the last one hold.
    """
    starts = [
        RunStarted.from_detail(event.detail)
        for event in events
        if event.type == RunStarted.type and event.depth == 0
    ]
    return Rebuilt(
        question=starts[0].question or "",
        contexts=starts[0].contexts or (),
        config=starts[-1].options or {},
        figures=events[-1].figures,
        last_event=events[-1].seq,
        recording=read_recording(events),
    )


def _resumed(record: RunRecord, rebuilt: Rebuilt, task: Task) -> ResumedRun:
    options = {**rebuilt.config, **task.config.model_dump()}
    started = RunStarted(
        version=FORMAT_VERSION,
        question=rebuilt.question,
        contexts=rebuilt.contexts,
        options=options,
        isolation=task.isolation,
        resumed=record.status,
    )
    event = new_event(RLMEvent.of(started, 0, f"resumed after it was {record.status}"))
    return ResumedRun(options, event, rebuilt.last_event)
