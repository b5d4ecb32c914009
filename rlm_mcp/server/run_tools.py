"""Tools for questions: ask, wait, look on, cancel, look inside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from mcp_types import CallToolResult
from pydantic import Field

from rlm_mcp.server import schemas
from rlm_mcp.server.results import beside, more, result
from rlm_mcp.server.run_results import run_result, trace_text, waited_result
from rlm_mcp.server.tool import Strings, ToolContext, ToolSpec, service_of
from rlm_mcp.server.views import run_page, trace_view, variable_view, variables_view
from rlm_mcp.service.runs.progress import progress_line
from rlm_mcp.service.runs.questions import Question
from rlm_mcp.text import cut

if TYPE_CHECKING:
    from rlm_mcp.store.runs.records import RunRecord


MAX_WAITED_EVENTS = 20
LONGEST_SILENCE_SECONDS = 10.0
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
    runs = (await service_of(ctx)).runs
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
    runs = (await service_of(ctx)).runs
    state = await runs.wait(run_id, wait_seconds, _Progress(ctx).report)
    events = await runs.events(run_id, after_event, MAX_WAITED_EVENTS)
    return waited_result(state, events, after_event)


async def rlm_run_list(
    ctx: ToolContext,
    *,
    status: schemas.RunStatus | None = None,
    limit: Annotated[int, Field(ge=1, le=200)] = 20,
    cursor: str = "",
) -> Annotated[CallToolResult, schemas.RunPage]:
    """List runs, newest first."""
    page = run_page(await (await service_of(ctx)).runs.list(status, limit, cursor))
    lines = [f"{info.run_id}  {info.status:11}  {cut(info.question, 100)}" for info in page.runs]
    text = "\n".join(lines) or "No run yet; rlm_query starts one."
    return result(page, text + more(page.next_cursor))


async def rlm_run_cancel(
    ctx: ToolContext, run_id: str
) -> Annotated[CallToolResult, schemas.RunOutcome]:
    """Stop a run and its spending. What it found so far stays readable."""
    return run_result(await (await service_of(ctx)).runs.cancel(run_id))


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
    runs = (await service_of(ctx)).runs
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
    found = await (await service_of(ctx)).runs.events(run_id, after_event, limit + 1)
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
    runs = (await service_of(ctx)).runs
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
    cells = (await service_of(ctx)).cells
    done = await cells.execute(code, run_id, tuple(contexts), timeout_seconds)
    cell = schemas.CellDone.model_validate(done, from_attributes=True)
    parts = (done.note, done.output, done.error, done.answer and f"FINAL: {done.answer}")
    text = "\n".join(part for part in parts if part) or "(nothing was printed)"
    return result(cell, beside(text, f"[run_id={done.run_id}]"))


async def rlm_status(ctx: ToolContext) -> Annotated[CallToolResult, schemas.Status]:
    """Check the server: model endpoint, sandbox, store, limits."""
    state = await (await service_of(ctx)).status()
    status = schemas.Status.model_validate(state, from_attributes=True)
    return result(status, status.model_dump_json(indent=1))


RUN_TOOLS = (
    ToolSpec(rlm_query, "Ask a question over long texts", open_world=True, has_view=True),
    ToolSpec(rlm_run_wait, "Wait for a run", reads_only=True, repeats=True),
    ToolSpec(rlm_run_list, "List runs", reads_only=True, repeats=True),
    ToolSpec(rlm_run_cancel, "Cancel a run", destroys=True, repeats=True),
    ToolSpec(rlm_run_resume, "Resume a run", open_world=True, has_view=True),
    ToolSpec(rlm_run_trace, "See what a run did", reads_only=True, repeats=True, has_view=True),
    ToolSpec(rlm_run_variables, "Read a run's variables", reads_only=True, repeats=True),
    ToolSpec(rlm_exec, "Run Python over long texts", open_world=True),
    ToolSpec(rlm_status, "Check the server", reads_only=True, repeats=True, open_world=True),
)


class _Progress:
    """Progress of a run as the protocol wants it: strictly increasing, in seconds."""

    def __init__(self, ctx: ToolContext) -> None:
        self._ctx = ctx
        self._last = 0.0
        self._figures = ""
        self._last_event = -1

    async def report(self, state: RunRecord) -> None:
        message = progress_line(state)
        if self._shows_nothing_new(message, state):
            return
        if not self._last:
            message = f"{state.run_id} · {message}"
        self._last = max(state.elapsed_seconds, self._last + 0.001)
        await self._ctx.report_progress(self._last, None, message)

    def _shows_nothing_new(self, message: str, state: RunRecord) -> bool:
        """Whether an event left the line as it was, and the line was sent not long ago."""
        figures, self._figures = self._figures, message.rpartition(" · ")[0]
        last_event, self._last_event = self._last_event, state.last_event
        is_recent = state.elapsed_seconds - self._last < LONGEST_SILENCE_SECONDS
        return figures == self._figures and last_event != state.last_event and is_recent
