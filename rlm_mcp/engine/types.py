"""What a run gives when it ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rlm_mcp.errors import RLMError
from rlm_mcp.events import CheckedCitation, Support

RunStatus = Literal["completed", "exhausted", "failed", "cancelled"]
HistoryRole = Literal["root", "repl_output", "sub_call"]


@dataclass(frozen=True)
class HistoryEntry:
    """One entry of the trace.

    `content` is whole, `truncated_content` is what the root model saw of it.
    """

    role: HistoryRole
    content: str
    truncated_content: str
    iteration: int


@dataclass(frozen=True)
class RLMResponse:
    """The outcome of one question; whatever ended it, nothing that was found is left out.

    `answer` is None when there is none. `error` says why a run that is not `completed` ended.
    `data` is the answer as JSON when a schema was asked for or the value was JSON-like. `direct`
    says that the first message held the whole text, so that the answer may come from reading it.
    `citations` are the passages that the run cited or its answer quotes, each looked up in the
    text; `support` says how the answer came about.
    """

    answer: str | None
    status: RunStatus
    iterations: int
    sub_calls: int
    total_input_tokens: int
    total_output_tokens: int
    elapsed_seconds: float
    cost: float | None = None
    cached_sub_calls: int = 0
    error: RLMError | None = None
    data: Any = None
    direct: bool = False
    citations: tuple[CheckedCitation, ...] = ()
    support: Support | None = None
    history: tuple[HistoryEntry, ...] = ()
    repl_variables: Mapping[str, str] = field(default_factory=dict[str, str])
