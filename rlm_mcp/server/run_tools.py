"""Tools for questions: ask, wait, look on, cancel, look inside."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any, cast

from mcp_types import CallToolResult
from pydantic import Field

from rlm_mcp.server import schemas
from rlm_mcp.server.results import beside, cut, more, result
from rlm_mcp.server.tool import Strings, ToolContext, ToolSpec, service_of
from rlm_mcp.server.trace_text import event_line, trace_text
from rlm_mcp.service.progress import progress_line
from rlm_mcp.service.questions import Question
from rlm_mcp.service.runs import ANSWER_NAME, RunState
from rlm_mcp.store.run_records import RunSummary

MAX_ANSWER_CHARS = 16_000
MAX_WAITED_EVENTS = 20
MAX_DETAIL_CHARS = 60_000
MAX_DATA_CHARS = 50_000
MAX_LISTED_VARIABLES = 200
MAX_CUT_TEXT_CHARS = 800
WaitSeconds = Annotated[float | None, Field(ge=0, le=3600, description="0 returns at once.")]


async def rlm_query(  # noqa: PLR0913  # a tool's parameters are its arguments
    ctx: ToolContext,
    *,
    question: str,
    contexts: Annotated[Strings, Field(description="Handles (ctx_...).")] = (),
    text: Annotated[str, Field(description="A small text, instead of handles.")] = "",
    wait_seconds: WaitSeconds = None,
    root_model: str = "",
    sub_model: str = "",
    budget: schemas.BudgetArguments | None = None,
    options: Annotated[
        dict[str, Any] | None, Field(description="RLMConfig fields for this run.")
    ] = None,
    answer_schema: Annotated[
        dict[str, Any] | None, Field(description="JSON Schema the answer must fit.")
    ] = None,
    continue_run: Annotated[
        str, Field(description="Go on with this run's contexts and variables.")
    ] = "",
    idempotency_key: str = "",
) -> Annotated[CallToolResult, schemas.Run]:
    """Ask a question over stored texts of any length: a model writes Python that searches them and
    calls models on the pieces. Takes seconds to minutes and costs model calls. If the status is
    `running`, go on with rlm_run_wait."""
    asked = Question(
        text=question,
        contexts=tuple(contexts),
        inline_text=text,
        root_model=root_model,
        sub_model=sub_model,
        budget=budget.model_dump(exclude_none=True) if budget else {},
        options=options or {},
        answer_schema=answer_schema,
        continue_run=continue_run,
        idempotency_key=idempotency_key,
    )
    runs = service_of(ctx).runs
    run_id = await runs.start(asked)
    return _run_result(await runs.wait(run_id, wait_seconds, _Progress(ctx).report))


async def rlm_run_wait(
    ctx: ToolContext,
    *,
    run_id: str,
    after_event: Annotated[int, Field(ge=0)] = 0,
    wait_seconds: WaitSeconds = None,
) -> Annotated[CallToolResult, schemas.WaitedRun]:
    """Wait for a run to end, up to wait_seconds; gives its state and what happened after
    after_event."""
    runs = service_of(ctx).runs
    state = await runs.wait(run_id, wait_seconds, _Progress(ctx).report)
    events = await runs.events(run_id, after_event, MAX_WAITED_EVENTS)
    run = schemas.WaitedRun(
        **_run(state, seen=events[-1].seq if events else after_event).model_dump(),
        events=[schemas.EventLine.model_validate(event, from_attributes=True) for event in events],
    )
    return result(run, _run_text(run, state, run.events))


async def rlm_run_list(
    ctx: ToolContext,
    *,
    status: schemas.RunStatus | None = None,
    limit: Annotated[int, Field(ge=1, le=200)] = 20,
    cursor: str = "",
) -> Annotated[CallToolResult, schemas.RunPage]:
    """List runs, newest first."""
    page = await service_of(ctx).runs.list(status, limit, cursor)
    infos = [_run_info(state) for state in page.items]
    lines = [f"{info.run_id}  {info.status:11}  {cut(info.question, 100)}" for info in infos]
    return result(
        schemas.RunPage(runs=infos, next_cursor=page.next_cursor),
        ("\n".join(lines) or "No run yet; rlm_query starts one.") + more(page.next_cursor),
    )


async def rlm_run_cancel(ctx: ToolContext, run_id: str) -> Annotated[CallToolResult, schemas.Run]:
    """Stop a run and its spending. What it found so far stays readable."""
    return _run_result(await service_of(ctx).runs.cancel(run_id))


async def rlm_run_trace(
    ctx: ToolContext,
    *,
    run_id: str,
    after_event: Annotated[int, Field(ge=0)] = 0,
    limit: Annotated[int, Field(ge=1, le=100)] = 20,
) -> Annotated[CallToolResult, schemas.RunTrace]:
    """See what a run did, in full: code, output, prompts and replies of sub-calls, tokens, cost."""
    found = await service_of(ctx).runs.events(run_id, after_event, limit + 1)
    events: list[schemas.Event] = []
    size = 0
    for event in found[:limit]:
        full = _bounded(schemas.Event.model_validate(event, from_attributes=True))
        size += len(full.model_dump_json())
        if events and size > MAX_DETAIL_CHARS:
            break
        events.append(full)
    is_more = len(found) > len(events)
    trace = schemas.RunTrace(events=events, next_event=events[-1].seq if is_more else None)
    return result(trace, trace_text(events, trace.next_event))


async def rlm_run_variables(
    ctx: ToolContext,
    *,
    run_id: str,
    name: Annotated[str, Field(description="Read this one; without it, list all.")] = "",
    start: Annotated[int, Field(ge=0)] = 0,
    limit: Annotated[int, Field(ge=1, le=50_000)] = 4000,
) -> Annotated[CallToolResult, schemas.RunVariables]:
    """Look into a run's REPL, while it works (between cells) and after: its variables, or the text
    of one. FINAL is the whole answer."""
    runs = service_of(ctx).runs
    if name:
        piece = await runs.variable(run_id, name, start, limit)
        more = piece.end if piece.end < piece.total else None
        read = schemas.RunVariables(
            name=name,
            type=piece.type,
            size=piece.size,
            text=piece.text,
            start=piece.start,
            end=piece.end,
            next_start=more,
        )
        place = f"[characters {piece.start} to {piece.end} of {piece.total}]"
        return result(read, beside(piece.text, place))
    found = await runs.variables(run_id)
    end = start + MAX_LISTED_VARIABLES
    variables = [
        schemas.VariableInfo.model_validate(variable, from_attributes=True)
        for variable in found[start:end]
    ]
    lines = [f"{item.name}: {item.type} ({item.size})  {item.preview}" for item in variables]
    listed = schemas.RunVariables(variables=variables, next_start=end if end < len(found) else None)
    note = f"[more: start={end}]" if listed.next_start else f"[{len(found)} variables]"
    return result(listed, beside("\n".join(lines), note))


async def rlm_exec(
    ctx: ToolContext,
    *,
    code: str,
    run_id: Annotated[str, Field(description="Go on in this run's REPL.")] = "",
    contexts: Annotated[Strings, Field(description="Open a REPL over these handles.")] = (),
    timeout_seconds: Annotated[float, Field(gt=0, le=600)] = 30,
) -> Annotated[CallToolResult, schemas.CellDone]:
    """Run your own Python in a sandboxed REPL, with no root model. The text is `context` (str, or
    list of str); llm_query(prompt) and llm_query_batch(prompts) call the sub model. Give contexts
    to begin, then the run_id you get."""
    done = await service_of(ctx).cells.execute(code, run_id, tuple(contexts), timeout_seconds)
    cell = schemas.CellDone.model_validate(done, from_attributes=True)
    parts = (done.note, done.output, done.error, done.answer and f"FINAL: {done.answer}")
    text = "\n".join(part for part in parts if part) or "(nothing was printed)"
    return result(cell, beside(text, f"[run_id={done.run_id}]"))


async def rlm_status(ctx: ToolContext) -> Annotated[CallToolResult, schemas.Status]:
    """Check the server: model endpoint, sandbox, store, limits."""
    state = await service_of(ctx).status()
    status = schemas.Status.model_validate(state, from_attributes=True)
    return result(status, status.model_dump_json(indent=1))


RUN_TOOLS = (
    ToolSpec(rlm_query, "Ask a question over long texts", open_world=True),
    ToolSpec(rlm_run_wait, "Wait for a run", reads_only=True, repeats=True),
    ToolSpec(rlm_run_list, "List runs", reads_only=True, repeats=True),
    ToolSpec(rlm_run_cancel, "Cancel a run", destroys=True, repeats=True),
    ToolSpec(rlm_run_trace, "See what a run did", reads_only=True, repeats=True),
    ToolSpec(rlm_run_variables, "Read a run's variables", reads_only=True, repeats=True),
    ToolSpec(rlm_exec, "Run Python over long texts", open_world=True),
    ToolSpec(rlm_status, "Check the server", reads_only=True, repeats=True, open_world=True),
)


class _Progress:
    """Progress of a run as the protocol wants it: strictly increasing, in seconds."""

    def __init__(self, ctx: ToolContext) -> None:
        self._ctx = ctx
        self._last = 0.0

    async def report(self, state: RunState) -> None:
        message = progress_line(state)
        if not self._last:
            message = f"{state.run_id} · {message}"
        self._last = max(state.elapsed_seconds, self._last + 0.001)
        await self._ctx.report_progress(self._last, None, message)


def _run_result(state: RunState) -> CallToolResult:
    run = _run(state)
    return result(run, _run_text(run, state))


def _run(state: RunState, seen: int | None = None) -> schemas.Run:
    """Give a run; `seen` is the last event that is shown beside it."""
    answer = state.answer
    data = state.data if len(json.dumps(state.data)) <= MAX_DATA_CHARS else None
    return schemas.Run(
        run_id=state.run_id,
        status=state.status,
        answer=None if answer is None else cut(answer, MAX_ANSWER_CHARS),
        answer_chars=len(answer or ""),
        data=data,
        **asdict(state.figures),
        elapsed_seconds=round(state.elapsed_seconds, 3),
        error=schemas.ErrorInfo.model_validate(state.error) if state.error else None,
        last_event=state.last_event,
        next=_next_call(state, state.last_event if seen is None else seen),
    )


def _next_call(state: RunState, seen: int) -> str | None:
    if state.status == "running":
        return f'rlm_run_wait(run_id="{state.run_id}", after_event={seen})'
    if len(state.answer or "") > MAX_ANSWER_CHARS:
        return (
            f'rlm_run_variables(run_id="{state.run_id}", name="{ANSWER_NAME}", '
            f"start={MAX_ANSWER_CHARS - 60})"
        )
    return None


def _run_text(run: schemas.Run, state: RunState, events: Sequence[schemas.EventLine] = ()) -> str:
    lines = [f"{run.run_id} is {run.status}: {progress_line(state)}"]
    if run.error:
        lines.append(f"{run.error.code}: {run.error.message} {run.error.fix}".rstrip())
    if run.answer is not None:
        lines.insert(0, run.answer + "\n")
    if run.next:
        lines.append(f"Next: {run.next}")
    lines.extend(event_line(event) for event in events)
    return "\n".join(lines)


def _bounded(event: schemas.Event) -> schemas.Event:
    """Cut the long texts of an event that is too large to send whole."""
    if len(event.model_dump_json()) <= MAX_DETAIL_CHARS:
        return event
    return event.model_copy(update={"detail": _with_short_texts(event.detail)})


def _with_short_texts(value: Any) -> Any:
    match value:
        case str():
            return cut(value, MAX_CUT_TEXT_CHARS)
        case dict():
            fields = cast("dict[str, Any]", value)
            return {key: _with_short_texts(item) for key, item in fields.items()}
        case list():
            return [_with_short_texts(item) for item in cast("list[Any]", value)]
        case _:
            return value


def _run_info(summary: RunSummary) -> schemas.RunInfo:
    info = schemas.RunInfo.model_validate(summary, from_attributes=True)
    return info.model_copy(update={"question": cut(info.question, 500)})
