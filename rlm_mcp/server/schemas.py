"""What crosses the boundary of the server: arguments in, results out."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from rlm_mcp.values import RunStatus

# The schema of such a model says that there is more than it spells out.
OPEN = ConfigDict(json_schema_extra={"additionalProperties": True})

# For entries whose fields the schema of another tool names, which is enough for a reader.
NAMED_ELSEWHERE = WithJsonSchema({"type": "object"})


class Arguments(BaseModel):
    """A group of arguments; an unknown one is refused rather than dropped."""

    model_config = ConfigDict(extra="forbid")


class BudgetArguments(Arguments):
    """Limits of one run, its children included."""

    max_usd: float | None = Field(default=None, gt=0)
    max_tokens: int | None = Field(default=None, ge=1)
    max_seconds: float | None = Field(default=None, gt=0)
    max_sub_calls: int | None = Field(default=None, ge=1)
    max_iterations: int | None = Field(default=None, ge=1)
    max_depth: int | None = Field(default=None, ge=1)


class ErrorInfo(BaseModel):
    """Why something did not work, and the next step."""

    code: str
    message: str
    retryable: bool
    fix: str


class SkippedFile(BaseModel):
    """A file of a directory or glob that was left out."""

    path: str
    reason: str


class AddedContext(BaseModel):
    """A stored text, or an upload that is still open."""

    model_config = OPEN

    handle: str | None
    upload_id: str | None
    name: str
    sha256: str | None
    bytes: int
    chars: int
    documents: int
    estimated_tokens: int
    deduplicated: bool
    skipped: list[SkippedFile]
    skipped_total: int
    skipped_reasons: dict[str, int]
    replaced_characters: int
    charset: str
    preview: str


class UploadURL(BaseModel):
    """Where a text may be sent once, without other credentials."""

    url: str
    expires_at: str


class ContextInfo(BaseModel):
    """One line of the list of contexts."""

    handle: str
    name: str
    bytes: int
    chars: int
    documents: int
    estimated_tokens: int
    created_at: str


class ContextPage(BaseModel):
    """A page of contexts, newest first."""

    contexts: list[ContextInfo]
    next_cursor: str | None


class ContextSlice(BaseModel):
    """A piece of one document."""

    text: str
    start: int
    end: int
    total: int
    next_start: int | None
    cut: bool
    cut_at: int | None


class SearchMatch(BaseModel):
    """One match; offsets are characters of its document, `line` counts from 1."""

    handle: str
    document: int
    line: int
    start: int
    end: int
    text: str


class SearchPage(BaseModel):
    """A page of matches, in text order."""

    matches: list[SearchMatch]
    truncated: bool
    next_cursor: str | None


class DeletedContext(BaseModel):
    """What deleting gave back."""

    deleted: bool
    freed_bytes: int


class EventLine(BaseModel):
    """One line of a run's log, compact."""

    seq: int
    at: str
    type: str
    iteration: int
    depth: int
    preview: str


class Event(EventLine):
    """One line of a run's log, in full."""

    detail: dict[str, Any]


class RunOutcome(BaseModel):
    """What a caller acts on, of a run: the schemas of most tools spell out no more than this."""

    model_config = OPEN

    run_id: str
    status: RunStatus
    answer: str | None
    error: ErrorInfo | None
    next: str | None


class Run(RunOutcome):
    """One execution of a question."""

    data: Any
    iterations: int
    sub_calls: int
    cached_sub_calls: int
    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    elapsed_seconds: float
    last_event: int
    answer_chars: int
    queue_position: int | None


class WaitedOutcome(RunOutcome):
    """What a caller acts on, and what happened in a run."""

    events: list[Annotated[EventLine, NAMED_ELSEWHERE]]


class WaitedRun(Run, WaitedOutcome):
    """A run, with what happened in it."""


class RunInfo(BaseModel):
    """One line of the list of runs."""

    run_id: str
    status: RunStatus
    question: str
    created_at: str
    elapsed_seconds: float
    cost_usd: float | None


class RunPage(BaseModel):
    """A page of runs, newest first."""

    runs: list[RunInfo]
    next_cursor: str | None


class RunTrace(BaseModel):
    """Events in full."""

    events: list[Event]
    next_event: int | None


class RunLines(BaseModel):
    """Events as the view of a run draws them; `ended` says that no more will come."""

    lines: list[dict[str, Any]]
    ended: bool


class VariableInfo(BaseModel):
    """One variable of a run's REPL."""

    name: str
    type: str
    size: int
    preview: str


class RunVariables(BaseModel):
    """The variables of a run, or a slice of one of them as text; the other half is left out."""

    variables: list[VariableInfo] | None = None
    name: str | None = None
    type: str | None = None
    size: int | None = None
    text: str | None = None
    start: int | None = None
    end: int | None = None
    next_start: int | None


class CellDone(BaseModel):
    """What a cell of the caller did."""

    run_id: str
    output: str
    error: str | None
    truncated: bool
    variables: list[Annotated[VariableInfo, NAMED_ELSEWHERE]]
    answer: str | None
    note: str | None


class ModelStatus(BaseModel):
    """The model endpoint as it answers now."""

    configured: bool
    base_url: str | None
    root_model: str | None
    sub_model: str | None
    reachable: bool | None
    error: str | None


class SandboxStatus(BaseModel):
    """What stands between model-written code and the machine."""

    isolation: str
    layers: list[str]
    missing: list[str]


class StoreStatus(BaseModel):
    """The database."""

    path: str
    contexts: int
    runs: int
    bytes: int


class Status(BaseModel):
    """The server's state."""

    model_config = OPEN

    version: str
    model: ModelStatus
    sandbox: SandboxStatus
    store: StoreStatus
    limits: dict[str, Any]
