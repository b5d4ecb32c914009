"""Tools for questions: ask, wait, look on, cancel, look inside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from mcp_types import CallToolResult
from pydantic import Field

from rlm_mcp.events import CodeExecuted, CodeGenerated, SubCall, SubCallsFinished, read_detail
from rlm_mcp.server import schemas
from rlm_mcp.server.results import MAX_TEXT_CHARS, beside, more, result
from rlm_mcp.server.schemas import Event, EventLine
from rlm_mcp.server.tool import Strings, ToolContext, ToolSpec, service_of
from rlm_mcp.server.views import run_page, run_view, trace_view, variable_view, variables_view
from rlm_mcp.service.runs.questions import Question
from rlm_mcp.service.runs.runs import RunState, progress_line
from rlm_mcp.text import cut

MAX_WAITED_EVENTS = 20
ATTACHED = (
    "This question was asked before, so no second run was started; to have one, give a new "
    "idempotency_key."
)
WaitSeconds = Annotated[float | None, Field(ge=0, le=3600)]


async def rlm_query(  # noqa: PLR0913  # a tool's parameters are its arguments
    ctx: ToolContext,
    *,
    question: str,
    contexts: Annotated[Strings, Field(description="Handles (ctx_...).")] = (),
    text: Annotated[str, Field(description="A small text, instead of handles.")] = "",
    wait_seconds: Annotated[WaitSeconds, Field(description="0 returns at once.")] = None,
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
    calls models on the pieces. It sees nothing of your conversation: say all that matters in the
    question. Takes seconds to minutes and costs model calls. If the status is `running`, go on with
    rlm_run_wait."""
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
    begun = await runs.begin(asked)
    state = await runs.wait(begun.run_id, wait_seconds, _Progress(ctx).report)
    return run_result(state, ATTACHED if begun.is_attached else "")


async def rlm_run_wait(
    ctx: ToolContext,
    *,
    run_id: str,
    after_event: Annotated[int, Field(ge=0)] = 0,
    wait_seconds: WaitSeconds = None,
) -> Annotated[CallToolResult, schemas.WaitedOutcome]:
    """Wait for a run to end, up to wait_seconds; gives its state and what happened after
    after_event."""
    runs = service_of(ctx).runs
    state = await runs.wait(run_id, wait_seconds, _Progress(ctx).report)
    events = await runs.events(run_id, after_event, MAX_WAITED_EVENTS)
    run = schemas.WaitedRun(
        **run_view(state, seen=events[-1].seq if events else after_event).model_dump(),
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
    page = run_page(await service_of(ctx).runs.list(status, limit, cursor))
    lines = [f"{info.run_id}  {info.status:11}  {cut(info.question, 100)}" for info in page.runs]
    text = "\n".join(lines) or "No run yet; rlm_query starts one."
    return result(page, text + more(page.next_cursor))


async def rlm_run_cancel(
    ctx: ToolContext, run_id: str
) -> Annotated[CallToolResult, schemas.RunOutcome]:
    """Stop a run and its spending. What it found so far stays readable."""
    return run_result(await service_of(ctx).runs.cancel(run_id))


async def rlm_run_resume(
    ctx: ToolContext,
    *,
    run_id: str,
    budget: Annotated[
        schemas.BudgetArguments | None,
        Field(description="As for rlm_query; limits are for the whole run."),
    ] = None,
    wait_seconds: WaitSeconds = None,
) -> Annotated[CallToolResult, schemas.RunOutcome]:
    """Let an interrupted, exhausted, cancelled or failed run go on where it was; nothing on
    record is paid
    twice."""
    runs = service_of(ctx).runs
    await runs.resume(run_id, budget.model_dump(exclude_none=True) if budget else {})
    return run_result(await runs.wait(run_id, wait_seconds, _Progress(ctx).report))


async def rlm_run_trace(
    ctx: ToolContext,
    *,
    run_id: str,
    after_event: Annotated[int, Field(ge=0)] = 0,
    limit: Annotated[int, Field(ge=1, le=100)] = 20,
) -> Annotated[CallToolResult, schemas.RunTrace]:
    """See what a run did, in full: code, output, prompts and replies of sub-calls, tokens, cost."""
    found = await service_of(ctx).runs.events(run_id, after_event, limit + 1)
    trace = trace_view(found, limit)
    return result(trace, trace_text(trace.events, trace.next_event))


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
        place = f"[characters {piece.start} to {piece.end} of {piece.total}]"
        return result(variable_view(name, piece), beside(piece.text, place))
    found = await runs.variables(run_id)
    listed = variables_view(found, start)
    lines = [
        f"{item.name}: {item.type} ({item.size})  {item.preview}" for item in listed.variables or ()
    ]
    note = (
        f"[more: start={listed.next_start}]" if listed.next_start else f"[{len(found)} variables]"
    )
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
    ToolSpec(rlm_run_resume, "Resume a run", open_world=True),
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


def run_result(state: RunState, note: str = "") -> CallToolResult:
    """Give a run as the tools that start and end runs do."""
    run = run_view(state)
    text = _run_text(run, state)
    return result(run, f"{text}\n{note}" if note else text)


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


_SHOWN_CALLS = 5
_SHOWN_CALL_CHARS = 300
_MIN_SHOWN_CHARS = 400


def event_line(event: EventLine) -> str:
    """One event in one line."""
    return f"{event.seq}. {event.type}: {event.preview}"


def trace_text(events: Sequence[Event], next_event: int | None) -> str:
    """Events with the code that ran, its output and some of the sub-calls, fairly cut."""
    if not events:
        return "No such event yet."
    room = max(_MIN_SHOWN_CHARS, MAX_TEXT_CHARS // len(events) - 200)
    text = "\n".join(line for event in events for line in _shown(event, room))
    more = "the end so far" if next_event is None else f"more: after_event={next_event}"
    return beside(text, f"[{more}]")


def _shown(event: Event, room: int) -> Iterator[str]:
    match read_detail(event):
        case CodeGenerated(code=text) | CodeExecuted(output=text) if text:
            yield f"{event.seq}. {event.type}:"
            yield cut(text, room)
        case SubCallsFinished(items=items):
            yield event_line(event)
            yield from map(_call_shown, items[:_SHOWN_CALLS])
        case _:
            yield event_line(event)


def _call_shown(call: SubCall) -> str:
    asked = " ".join(call.prompt.split())
    told = " ".join((call.error or call.reply).split())
    return f"   {cut(asked, _SHOWN_CALL_CHARS)!r} → {cut(told, _SHOWN_CALL_CHARS)!r}"
