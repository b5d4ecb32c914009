"""The models of arguments and results."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from rlm_mcp.values import RunStatus

# The schema of such a model says that it has more fields than it names.
OPEN = ConfigDict(json_schema_extra={"additionalProperties": True})

# For entries whose fields the schema of another tool names.
NAMED_ELSEWHERE = WithJsonSchema({"type": "object"})


class Arguments(BaseModel):
    """A group of arguments; an unknown one is refused rather than dropped."""

    model_config = ConfigDict(extra="forbid")


class BudgetArguments(Arguments):
    """Limits of one run, its children included."""

    max_usd: float | None = Field(default=None, gt=0, description="Needs known prices.")
    max_tokens: int | None = Field(default=None, ge=1, description="In and out.")
    max_seconds: float | None = Field(default=None, gt=0, description="Seconds.")
    max_sub_calls: int | None = Field(default=None, ge=1, description="Calls of models.")
    max_iterations: int | None = Field(default=None, ge=1, description="Turns.")
    max_depth: int | None = Field(default=None, ge=1, description="Runs in runs.")


class ErrorInfo(BaseModel):
    """Why something failed, and the next step."""

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
    """A URL that takes one upload without other credentials."""

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
    name: str
    line: int
    page: str | None = None
    start: int
    end: int
    text: str
    score: float | None = None


class SearchPage(BaseModel):
    """A page of matches: in text order, by words the best first."""

    matches: list[SearchMatch]
    truncated: bool
    next_cursor: str | None


class DeletedContext(BaseModel):
    """What was deleted."""

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
    """The fields of a run that a caller acts on; the schemas of most tools name only these."""

    model_config = OPEN

    run_id: str
    status: RunStatus
    answer: str | None
    error: ErrorInfo | None
    next: str | None


class CitedPassage(BaseModel):
    """A passage that an answer cites or quotes, looked up in the text.

    What was not found has no place. `cited` is false for a quotation that the answer merely holds.
    """

    handle: str | None
    document: int | None
    name: str | None
    start: int | None
    end: int | None
    page: str | None
    quote: str
    verified: bool
    how: str
    cited: bool


class AnswerSupport(BaseModel):
    """How an answer came about, and how many of its citations stand in the text."""

    origin: str
    citations: int
    verified: int
    agreement: str | None


class Run(RunOutcome):
    """One execution of a question."""

    data: Any = None
    iterations: int
    sub_calls: int
    cached_sub_calls: int
    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    elapsed_seconds: float
    last_event: int
    answer_chars: int
    queue_position: int | None = None
    usage_by_model: list[dict[str, Any]] | None = None
    citations: list[CitedPassage] = []
    support: AnswerSupport | None = None
    note: str | None = None
    page_url: str | None = None


class WaitedOutcome(RunOutcome):
    """The fields that a caller acts on, and a run's events."""

    events: list[Annotated[EventLine, NAMED_ELSEWHERE]]


class WaitedRun(Run, WaitedOutcome):
    """A run and its events."""


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
    """Events as the view of a run draws them; `ended` says that no more will come.

    `run_id` is null where the run that was looked for has not begun.
    """

    run_id: str | None
    lines: list[dict[str, Any]]
    ended: bool


class VariableInfo(BaseModel):
    """One variable of a run's REPL."""

    name: str
    type: str
    size: int
    preview: str


class RunVariables(BaseModel):
    """The variables of a run, or a slice of one as text; the other fields are left out."""

    variables: list[VariableInfo] | None = None
    name: str | None = None
    type: str | None = None
    size: int | None = None
    text: str | None = None
    start: int | None = None
    end: int | None = None
    next_start: int | None
    note: str | None = None


class CellDone(BaseModel):
    """The outcome of a cell of the caller's."""

    run_id: str
    output: str
    error: str | None
    truncated: bool
    variables: list[Annotated[VariableInfo, NAMED_ELSEWHERE]]
    answer: str | None
    citations: list[Annotated[CitedPassage, NAMED_ELSEWHERE]]
    note: str | None


class ModelStatus(BaseModel):
    """The state of the model endpoint."""

    configured: bool
    base_url: str | None
    root_model: str | None
    sub_model: str | None
    reachable: bool | None
    error: str | None
    models: list[dict[str, Any]]


class SandboxStatus(BaseModel):
    """The sandbox that holds model-written code."""

    isolation: str
    layers: list[str]
    missing: list[str]


class TextCacheStatus(BaseModel):
    """The files of large texts."""

    path: str | None
    bytes: int


class StoreStatus(BaseModel):
    """The database."""

    path: str | None
    contexts: int
    runs: int
    bytes: int
    text_cache: TextCacheStatus | None


class WorkerState(BaseModel):
    """A worker of the cluster, or why a node has none."""

    state: str
    node: str | None
    version: str | None
    python: str | None
    isolation: str | None
    layers: list[str]
    missing: list[str]
    places: int
    runs: int
    repls: int
    answered_seconds_ago: float | None
    error: str | None


class ClusterState(BaseModel):
    """The workers of a server whose runs are on a cluster."""

    workers: list[WorkerState]


class Status(BaseModel):
    """The server's state."""

    model_config = OPEN

    version: str
    model: ModelStatus
    sandbox: SandboxStatus
    store: StoreStatus
    limits: dict[str, Any]
    cluster: ClusterState | None = None
