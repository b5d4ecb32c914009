"""Values that several layers share: a run's status, what it used, an error as it is stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from rlm_mcp.errors import RLMError

IsolationLevel = Literal["full", "partial", "process"]
SandboxName = Literal["auto", "native", "portable", "docker"]
DOCKER_IMAGE = "python:3.13-slim"  # of the `docker` sandbox, where no other is named
RunStatus = Literal["running", "completed", "exhausted", "cancelled", "failed", "interrupted"]
EndStatus = Literal["completed", "exhausted", "cancelled", "failed", "interrupted"]
RUN_STATUSES: tuple[str, ...] = get_args(RunStatus)


CostIs = Literal["told", "computed", "estimated"]


@dataclass(frozen=True)
class ModelUsage:
    """What one model was used for; `cost_is` says how certain the cost is, which may be None."""

    model: str
    calls: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = None
    cost_is: CostIs | None = None


@dataclass(frozen=True)
class Usage:
    """What a run has used, inner runs included; `cost_usd` is None while no price is known.

    `by_model` says the same by model, for what this process knows of the run.
    """

    iterations: int = 0
    sub_calls: int = 0
    cached_sub_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = None
    by_model: tuple[ModelUsage, ...] = field(default=(), compare=False)


NO_USAGE = Usage()


def error_fields(error: RLMError) -> Mapping[str, Any]:
    """Return an error as it is stored: `{code, message, retryable, fix}`."""
    return stored_error(error.code, error.message, retryable=error.retryable, fix=error.fix)


def stored_error(
    code: str, message: str, *, retryable: bool = False, fix: str = ""
) -> Mapping[str, Any]:
    """Return the four fields under which an error is stored."""
    return {"code": code, "message": message, "retryable": retryable, "fix": fix}
