"""How patient one call of a model is, and what a failed request means for the next."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

import anyio

from rlm_mcp.errors import ModelError

Sleep = Callable[[float], Awaitable[None]]
Clock = Callable[[], float]


@dataclass(frozen=True)
class Timing:
    """How to wait, and a clock in seconds that only goes forward."""

    sleep: Sleep = anyio.sleep
    clock: Clock = time.monotonic


@dataclass(frozen=True)
class RetryPolicy:
    """How patient one call is.

    Args:
        attempts: requests sent for one call, the first included; where the provider is there and
            says that it will answer later, time alone is the limit.
        brief_attempts: the same where nothing listens at all.
        total_seconds: no wait begins that would end later than this after the call's start.
        attempt_seconds: one request may take this long.
        first_pause_seconds: the pause after the first failure; it doubles each time.
        longest_pause_seconds: where the doubling stops.
    """

    attempts: int = 6
    brief_attempts: int = 3
    total_seconds: float = 300.0
    attempt_seconds: float = 600.0
    first_pause_seconds: float = 0.5
    longest_pause_seconds: float = 30.0


@dataclass(frozen=True)
class Diagnosis:
    """What one failed request means.

    Args:
        error: what the caller gets when this was the last attempt.
        retry: whether the same request may succeed later; `briefly` where it hardly will,
            `patiently` where it will once a limit is reset or a model is loaded.
        retry_after_seconds: what the provider asked to wait.
        is_crowded: the provider has too much to do, so others should hold back as well.
        refused_parameter: a parameter to leave out, after which it may succeed at once.
        was_idle: the connection may just have been left idle too long, so a new one is tried first.
        is_elsewhere: there is nothing at this address; it may be at another.
    """

    error: ModelError
    retry: Literal["no", "briefly", "yes", "patiently"] = "no"
    retry_after_seconds: float | None = None
    is_crowded: bool = False
    refused_parameter: str | None = None
    was_idle: bool = False
    is_elsewhere: bool = False


class AttemptFailedError(Exception):
    """One request failed; never leaves the engine."""

    def __init__(self, diagnosis: Diagnosis) -> None:
        super().__init__(str(diagnosis.error))
        self.diagnosis = diagnosis
