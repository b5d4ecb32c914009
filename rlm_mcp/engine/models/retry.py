"""When to ask a provider again, and how fast to ask it at all."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

import anyio

from rlm_mcp.errors import ModelError, ModelRateLimitError

Sleep = Callable[[float], Awaitable[None]]
Clock = Callable[[], float]

WIDEST_WINDOW = 1024
SECONDS_BETWEEN_SLOWDOWNS = 1.0
CALM_SECONDS = 30.0
MOST_ATTEMPTS = 1000


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


class Patience:
    """What is left of one call's `RetryPolicy`."""

    def __init__(self, policy: RetryPolicy, clock: Clock = time.monotonic) -> None:
        self._policy = policy
        self._clock = clock
        self._started = clock()
        self._failures = 0

    def pause_after(self, diagnosis: Diagnosis) -> float:
        """Say how many seconds to wait before the next attempt.

        Raises:
            ModelError: there is no next attempt.
        """
        self._failures += 1
        policy = self._policy
        if self._failures >= self._allowed(diagnosis):
            raise diagnosis.error
        pause = diagnosis.retry_after_seconds
        if diagnosis.was_idle and self._failures == 1:
            pause = 0.0
        if pause is None or self._failures >= policy.attempts:
            doubled = policy.first_pause_seconds * 2 ** min(self._failures - 1, 16)
            # Jitter, so that calls that failed together do not come back together.
            usual = min(doubled, policy.longest_pause_seconds) * random.uniform(0.5, 1.0)  # noqa: S311  # no secret
            pause = max(pause or 0.0, usual)
        if self._clock() - self._started + pause > policy.total_seconds:
            raise _out_of_patience(diagnosis, pause, policy)
        return pause

    def _allowed(self, diagnosis: Diagnosis) -> int:
        policy = self._policy
        if diagnosis.retry == "patiently" and policy.attempts > 1:
            return MOST_ATTEMPTS
        allowed = {"no": 0, "briefly": policy.brief_attempts}
        return allowed.get(diagnosis.retry, policy.attempts)


def _out_of_patience(diagnosis: Diagnosis, pause: float, policy: RetryPolicy) -> ModelError:
    if not isinstance(diagnosis.error, ModelRateLimitError):
        return diagnosis.error
    return ModelRateLimitError(
        f"{diagnosis.error.message} It asked to wait {pause:.0f} s, and a call waits "
        f"{policy.total_seconds:.0f} s at most.",
        fix=diagnosis.error.fix,
    )


class Pace:
    """How fast one provider is asked: a window of calls at once that shrinks and recovers.

    A rate limit met by one call holds all calls back until the time the provider named, and halves
    the window; a window of successes widens it by one (additive increase, multiplicative decrease,
    as TCP), and each success does once there was none for a while.
    """

    def __init__(self, timing: Timing) -> None:
        self._sleep = timing.sleep
        self._clock = clock = timing.clock
        self._window = anyio.CapacityLimiter(WIDEST_WINDOW)
        self._closed_until = clock()
        self._slowed_at = clock() - SECONDS_BETWEEN_SLOWDOWNS
        self._successes = 0

    @property
    def window(self) -> int:
        """Calls that may be on their way at once."""
        return int(self._window.total_tokens)

    @property
    def is_held(self) -> bool:
        """Whether no call is to be sent now."""
        return self._closed_until > self._clock()

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[None]:
        """Hold one place in the window, after any pause that the provider asked for."""
        async with borrowed(self._window):
            pause = self._closed_until - self._clock()
            if pause > 0:
                await self._sleep(pause)
            yield

    def slow_down(self, pause_seconds: float) -> None:
        """Hold every call back for that long, and let fewer go at once afterwards."""
        now = self._clock()
        self._closed_until = max(self._closed_until, now + pause_seconds)
        # Thirty calls refused together are one sign of a crowd, not thirty.
        if now - self._slowed_at >= SECONDS_BETWEEN_SLOWDOWNS:
            self._slowed_at = now
            self._successes = 0
            in_use = max(1, self._window.borrowed_tokens)
            self._window.total_tokens = max(1, min(self.window, in_use) // 2)

    def recover(self) -> None:
        """Let one more call go at once, after enough successes."""
        if self.window >= WIDEST_WINDOW:
            return
        self._successes += 1
        is_calm = self._clock() - self._slowed_at > CALM_SECONDS
        if is_calm or self._successes >= self.window:
            self._successes = 0
            self._window.total_tokens = self.window + 1


@asynccontextmanager
async def borrowed(limiter: anyio.CapacityLimiter) -> AsyncGenerator[None]:
    """Hold one token, also in a task that holds others already."""
    borrower = object()
    try:  # where there is room, without a turn of the event loop
        limiter.acquire_on_behalf_of_nowait(borrower)
    except anyio.WouldBlock:
        await limiter.acquire_on_behalf_of(borrower)
    try:
        yield
    finally:
        limiter.release_on_behalf_of(borrower)
