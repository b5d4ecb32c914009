"""Tools for runs: ask, wait, list, cancel, resume, look inside."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import anyio
from mcp_types import CallToolResult
from pydantic import Field

from rlm_mcp.server import schemas
from rlm_mcp.server.results import beside, beside_all, more, result
from rlm_mcp.server.run_results import cited_lines, run_result, trace_text, waited_result
from rlm_mcp.server.tool import (
    MAX_RESULT_CHARS,
    Cursor,
    RunId,
    Strings,
    ToolContext,
    ToolSpec,
    caller_of,
    is_cancelled_by_client,
    page_of,
    service_of,
    usual_wait,
)
from rlm_mcp.server.views import asked_of, run_page, trace_view, variable_view, variables_view
from rlm_mcp.service.runs.questions import Question, progress_line
from rlm_mcp.text import cut

if TYPE_CHECKING:
    from rlm_mcp.service.service import Service
    from rlm_mcp.store.runs.records import RunRecord


MAX_WAITED_EVENTS = 20
LONGEST_SILENCE_SECONDS = 10.0
ATTACHED = (
    "This question was asked before, so no second run was started. To start one, give a new "
    "idempotency_key."
)
ELSEWHERE = (
    "Another server works on this run. What its REPL holds can be read here once the run has ended."
)
WaitSeconds = Annotated[
    float | None, Field(ge=0, le=3600, description="0 to 3600; 0 returns at once.")
]
Budget = Annotated[
    schemas.BudgetArguments | None, Field(description="Limits of the whole run; default: none set.")
]
Options = Annotated[
    dict[str, Any] | None,
    Field(description="temperature, sandbox_timeout, prompt_variant and others."),
]
AnswerSchema = Annotated[
    dict[str, Any] | None, Field(description="JSON Schema that the answer must fit.")
]
ContinueRun = Annotated[
    str, Field(description="Run (run_...) whose texts and variables to continue with.")
]
IdempotencyKey = Annotated[str, Field(description="A new key asks the same question again.")]
AfterEvent = Annotated[int, Field(ge=0, description="Last event seen; default 0.")]


async def rlm_query(  # noqa: PLR0913  # a tool's parameters are its arguments
    ctx: ToolContext,
    *,
    question: Annotated[str, Field(description="The whole question.")],
    contexts: Annotated[Strings, Field(description="Handles (ctx_...).")] = (),
    text: Annotated[str, Field(description="A small text, instead of handles.")] = "",
    wait_seconds: WaitSeconds = None,
    root_model: Annotated[str, Field(description="Model that writes the code.")] = "",
    sub_model: Annotated[str, Field(description="Model for the pieces.")] = "",
    budget: Budget = None,
    options: Options = None,
    answer_schema: AnswerSchema = None,
    continue_run: ContinueRun = "",
    idempotency_key: IdempotencyKey = "",
) -> Annotated[CallToolResult, schemas.Run]:
    """Ask a question over stored texts of any length: a model writes Python that searches them and
    calls models on the pieces. It sees nothing of your conversation: say all that matters in the
    question. Takes seconds to minutes and costs model calls. If the status is `running`, continue
    with rlm_run_wait. If the call timed out, ask the same question again: that attaches to the run
    and pays nothing twice."""
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
    service = await service_of(ctx)
    begun = await service.runs.begin(asked)
    seconds = _wait_of(ctx, service, wait_seconds)
    with _abandoning(ctx, service, begun.run_id):
        state = await service.runs.wait(begun.run_id, seconds, _Progress(ctx).report)
    page_url = page_of(ctx.request_context, state.run_id)
    note = f"{ATTACHED * begun.is_attached} {service.runs.origin(begun.run_id)}".strip()
    return run_result(state, note, page_url)


async def rlm_run_wait(
    ctx: ToolContext,
    *,
    run_id: RunId,
    after_event: AfterEvent = 0,
    wait_seconds: WaitSeconds = None,
) -> Annotated[CallToolResult, schemas.WaitedOutcome]:
    """Wait up to wait_seconds for a run to end; returns its state and the events after
    after_event."""
    service = await service_of(ctx)
    runs = service.runs
    seconds = _wait_of(ctx, service, wait_seconds)
    state = await runs.wait(run_id, seconds, _Progress(ctx).report)
    events = await runs.events(run_id, after_event, MAX_WAITED_EVENTS)
    return waited_result(state, events, after_event, runs.origin(run_id))


async def rlm_run_list(
    ctx: ToolContext,
    *,
    status: Annotated[
        schemas.RunStatus | None, Field(description="Only these; default all.")
    ] = None,
    limit: Annotated[
        int, Field(ge=1, le=200, description="Runs a page, 1 to 200; default 20.")
    ] = 20,
    cursor: Cursor = "",
) -> Annotated[CallToolResult, schemas.RunPage]:
    """List runs, newest first."""
    page = run_page(await (await service_of(ctx)).runs.list(status, limit, cursor))
    lines = [f"{info.run_id}  {info.status:11}  {cut(asked_of(info), 100)}" for info in page.runs]
    text = "\n".join(lines) or "There is no run yet; rlm_query starts one."
    return result(page, text + more(page.next_cursor))


async def rlm_run_cancel(
    ctx: ToolContext, run_id: RunId
) -> Annotated[CallToolResult, schemas.RunOutcome]:
    """Stop a run and its spending. What it has found so far stays readable."""
    return run_result(await (await service_of(ctx)).runs.cancel(run_id))


async def rlm_run_resume(
    ctx: ToolContext,
    *,
    run_id: RunId,
    budget: Budget = None,
    wait_seconds: WaitSeconds = None,
) -> Annotated[CallToolResult, schemas.RunOutcome]:
    """Continue an interrupted, exhausted, cancelled or failed run where it ended; recorded work is
    not paid twice."""
    service = await service_of(ctx)
    await service.runs.resume(run_id, budget.model_dump(exclude_none=True) if budget else {})
    seconds = _wait_of(ctx, service, wait_seconds)
    with _abandoning(ctx, service, run_id):
        state = await service.runs.wait(run_id, seconds, _Progress(ctx).report)
    return run_result(state, page_url=page_of(ctx.request_context, run_id))


async def rlm_run_trace(
    ctx: ToolContext,
    *,
    run_id: RunId,
    after_event: AfterEvent = 0,
    limit: Annotated[int, Field(ge=1, le=100, description="Events, 1 to 100; default 20.")] = 20,
) -> Annotated[CallToolResult, schemas.RunTrace]:
    """Show what a run did, in full: code, output, prompts and replies of sub-calls, tokens,
    cost."""
    found = await (await service_of(ctx)).runs.events(run_id, after_event, limit + 1)
    trace = trace_view(found, limit)
    return result(trace, trace_text(trace.events, trace.next_event))


async def rlm_run_variables(
    ctx: ToolContext,
    *,
    run_id: RunId,
    name: Annotated[str, Field(description="Read this one; without it, list all.")] = "",
    start: Annotated[int, Field(ge=0, description="Where to begin; default 0.")] = 0,
    limit: Annotated[
        int, Field(ge=1, le=50_000, description="Characters, 1 to 50000; default 4000.")
    ] = 4000,
) -> Annotated[CallToolResult, schemas.RunVariables]:
    """List the variables of a run's REPL, or read one as text, while the run works (between cells)
    and afterwards. FINAL is the whole answer."""
    runs = (await service_of(ctx)).runs
    if name:
        piece = await runs.variable(run_id, name, start, limit)
        place = f"[characters {piece.start} to {piece.end} of {piece.total}]"
        return result(variable_view(name, piece), beside(piece.text, place))
    found = await runs.variables(run_id)
    listed = variables_view(found, start)
    if await runs.is_elsewhere(run_id):
        listed.note = ELSEWHERE
    lines = [
        f"{item.name}: {item.type} ({item.size})  {item.preview}" for item in listed.variables or ()
    ]
    note = (
        f"[more: start={listed.next_start}]" if listed.next_start else f"[{len(found)} variables]"
    )
    text = beside("\n".join(lines), note)
    return result(listed, beside_all(text, listed.note or ""))


async def rlm_exec(
    ctx: ToolContext,
    *,
    code: Annotated[str, Field(description="Python.")],
    run_id: Annotated[str, Field(description="Run (run_...) whose REPL to use.")] = "",
    contexts: Annotated[Strings, Field(description="Open a REPL over these handles.")] = (),
    timeout_seconds: Annotated[
        float, Field(gt=0, le=600, description="Up to 600; default 30.")
    ] = 30,
) -> Annotated[CallToolResult, schemas.CellDone]:
    """Run your own Python in a sandboxed REPL, without a root model. The text is `context` (str, or
    list of str); llm_query(prompt) and llm_query_batch(prompts) call the sub model. Begin with
    contexts, then give the run_id you get."""
    cells = (await service_of(ctx)).cells
    done = await cells.execute(code, run_id, tuple(contexts), timeout_seconds)
    cell = schemas.CellDone.model_validate(done, from_attributes=True)
    parts = (done.note, done.output, done.error, done.answer and f"FINAL: {done.answer}")
    text = "\n".join(part for part in parts if part) or "(nothing was printed)"
    below = [*cited_lines(cell.citations), f"[run_id={done.run_id}]"]
    return result(cell, beside(text, "\n".join(below)))


async def rlm_status(ctx: ToolContext) -> Annotated[CallToolResult, schemas.Status]:
    """Report the state of the server: model endpoint, sandbox, store, limits."""
    state = await (await service_of(ctx)).status()
    status = schemas.Status.model_validate(state, from_attributes=True)
    if status.cluster is None:
        status.model_fields_set.discard("cluster")  # left out where there is none
    return result(status, status.model_dump_json(indent=1, exclude_unset=True))


QUERY_TOOL = ToolSpec(
    rlm_query,
    "Ask a question over long texts",
    loads_always=True,
    has_view=True,
    max_result_chars=MAX_RESULT_CHARS,
)
RUN_TOOLS = (
    QUERY_TOOL,
    ToolSpec(rlm_run_wait, "Wait for a run", reads_only=True, repeats=True),
    ToolSpec(rlm_run_list, "List runs", reads_only=True, repeats=True),
    ToolSpec(rlm_run_cancel, "Cancel a run", destroys=True, repeats=True),
    ToolSpec(rlm_run_resume, "Resume a run", has_view=True, max_result_chars=MAX_RESULT_CHARS),
    ToolSpec(
        rlm_run_trace,
        "Show what a run did",
        has_view=True,
        reads_only=True,
        repeats=True,
        max_result_chars=MAX_RESULT_CHARS,
    ),
    ToolSpec(
        rlm_run_variables,
        "Read a run's variables",
        reads_only=True,
        repeats=True,
        max_result_chars=MAX_RESULT_CHARS,
    ),
    ToolSpec(rlm_exec, "Run Python over long texts", max_result_chars=MAX_RESULT_CHARS),
    ToolSpec(rlm_status, "Check the server", reads_only=True, repeats=True, open_world=True),
)


@contextmanager
def _abandoning(ctx: ToolContext, service: Service, run_id: str) -> Generator[None]:
    """Abandon the run that a request began, if the client cancels the request meanwhile.

    A closed stream or a lost connection ends only the waiting: nobody decided that.
    """
    try:
        yield
    except anyio.get_cancelled_exc_class():
        if is_cancelled_by_client(ctx.request_context):
            service.runs.abandon(run_id)
        raise


def _wait_of(ctx: ToolContext, service: Service, given: float | None) -> float:
    """How long a call waits: as its caller says, else as the operator set, else by the caller."""
    if given is not None:
        return given
    if service.wait_seconds is not None:
        return service.wait_seconds
    client, has_progress = caller_of(ctx.request_context)
    return usual_wait(client, has_progress=has_progress)


class _Progress:
    """Reports progress as the protocol wants it: strictly increasing."""

    def __init__(self, ctx: ToolContext) -> None:
        self._ctx = ctx
        self._last = 0.0
        self._figures: str | None = None
        self._last_event = -1

    async def report(self, state: RunRecord) -> None:
        message = progress_line(state)
        figures = message.rpartition(" · ")[0] or message  # one that waits has no seconds
        if self._shows_nothing_new(figures, state):
            return
        self._figures = figures
        if not self._last:
            message = f"{state.run_id} · {message}"
        self._last = max(state.elapsed_seconds, self._last + 0.001)
        await self._ctx.report_progress(self._last, None, message)

    def _shows_nothing_new(self, figures: str, state: RunRecord) -> bool:
        """Whether an event left the figures as they were sent, not long ago."""
        last_event, self._last_event = self._last_event, state.last_event
        is_recent = state.elapsed_seconds - self._last < LONGEST_SILENCE_SECONDS
        return figures == self._figures and last_event != state.last_event and is_recent
