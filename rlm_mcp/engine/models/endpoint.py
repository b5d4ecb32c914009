"""One provider's endpoint: what is sent to it, how fast, when again, and what it refused."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import anyio

from rlm_mcp.engine.models.chat import ChatModel, ChatReply, ChatRequest
from rlm_mcp.engine.models.metering import Stopwatch
from rlm_mcp.engine.models.refusals import SYSTEM_ROLE
from rlm_mcp.engine.models.retry import (
    AttemptFailedError,
    Clock,
    Diagnosis,
    RetryPolicy,
    Timing,
)
from rlm_mcp.errors import ModelError, ModelRateLimitError
from rlm_mcp.text import without_surrogates

EMPTY_REPLIES_ALLOWED = 1
WIDEST_WINDOW = 1024
SECONDS_BETWEEN_SLOWDOWNS = 1.0
CALM_SECONDS = 30.0
MOST_ATTEMPTS = 1000


class Wire(Protocol):
    """What reaches the provider."""

    async def send(self, body: dict[str, Any], request: ChatRequest) -> ChatReply:
        """Send one body once.

        Raises:
            AttemptFailedError: there is no reply.
        """
        ...

    async def check(self) -> list[str]:
        """See that the provider is there and takes the key; see `Endpoint.check`."""
        ...


@dataclass(frozen=True)
class Limits:
    """How one provider is asked: calls at once, patience, pace, and how to wait."""

    limiter: anyio.CapacityLimiter
    policy: RetryPolicy
    pace: Pace
    timing: Timing


class Endpoint:
    """One provider, with what was learnt about it: its pace, and what of requests it refused."""

    def __init__(self, wire: Wire, limits: Limits) -> None:
        self._wire = wire
        self._limits = limits
        self._refused: dict[str, frozenset[str]] = {}
        self.extras: Mapping[str, Any] = {}
        """Further fields of each request, left out where they are refused."""
        self.takes_cache_key = False
        """Whether the provider finds the prompt it has read by the name of its conversation."""
        self.takes_schemas = False
        """Whether the provider makes replies that fit a JSON Schema."""
        self.on_crowded: Callable[[float], None] = _nobody_asks
        """Told for how many seconds the provider is left alone, when it has refused a call."""

    def model(self, name: str) -> ChatModel:
        """One model of this endpoint, asked by name."""
        return _EndpointModel(self, name)

    async def check(self) -> list[str]:
        """See that the endpoint is there and takes the key, by asking for its models once.

        Returns their names; none where it does not list them.

        Raises:
            ModelConnectionError: nothing answers.
            ModelAuthenticationError: the key was rejected.
        """
        return await self._wire.check()

    def hold(self, seconds: float) -> None:
        """Leave the provider alone for that long: another process was refused a call."""
        self._limits.pace.slow_down(seconds)

    async def complete(self, model: str, request: ChatRequest) -> ChatReply:
        """Ask until there is an answer or patience ends.

        Raises:
            ModelError: there is none.
        """
        patience = Patience(self._limits.policy, self._limits.timing.clock)
        stopwatch = Stopwatch(self._limits.timing.clock)
        request = stopwatch.watch(request)
        empty = 0
        while True:
            try:
                reply = await self._attempt(model, request, stopwatch)
            except AttemptFailedError as failure:
                await self._prepare_next(model, failure.diagnosis, patience)
            else:
                self._limits.pace.recover()
                is_empty = not (reply.text or reply.reasoning) and reply.finish_reason == "stop"
                if not is_empty or empty == EMPTY_REPLIES_ALLOWED:
                    return replace(reply, timing=stopwatch.timing)
                empty += 1
            if request.on_delta is not None:
                await request.on_delta("")

    async def _prepare_next(self, model: str, failed: Diagnosis, patience: Patience) -> None:
        if failed.refused_parameter is not None:
            patience.note_refused(failed)
            refused = self._refused.get(model, frozenset())
            self._refused[model] = refused | {failed.refused_parameter}
            return
        pause = patience.pause_after(failed)
        if failed.is_crowded:
            # The next attempt waits with all the others.
            if self._limits.pace.slow_down(pause):
                self.on_crowded(pause)
        else:
            await self._limits.timing.sleep(pause)

    async def _attempt(self, model: str, request: ChatRequest, stopwatch: Stopwatch) -> ChatReply:
        body = self._body(model, request)
        pace = self._limits.pace
        while True:
            async with pace.turn(), borrowed(self._limits.limiter):
                # While this call waited, the server may have asked another to come later.
                if not pace.is_held:
                    stopwatch.note_sending()
                    return await self._wire.send(body, request)

    def _body(self, model: str, request: ChatRequest) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": model,
            "messages": [_sendable(message) for message in request.messages],
        }
        refused = self._refused.get(model, frozenset())
        if SYSTEM_ROLE in refused:
            body["messages"] = folded(body["messages"])
        optional: dict[str, Any] = {"temperature": request.temperature, **self.extras}
        # Newer models of OpenAI refuse the one name, most other servers know only it.
        name = "max_completion_tokens" if "max_tokens" in refused else "max_tokens"
        optional[name] = request.max_tokens
        if self.takes_cache_key and request.conversation:
            optional.setdefault("prompt_cache_key", request.conversation)
        if self.takes_schemas and request.reply_schema is not None:
            optional["response_format"] = _response_format(request.reply_schema)
        if request.on_delta is not None and "stream" not in refused:
            body["stream"] = True
            optional["stream_options"] = {"include_usage": True}
        taken = {k: v for k, v in optional.items() if v is not None and k not in refused}
        return {**body, **taken}


def _nobody_asks(_seconds: float) -> None:
    """No other process asks the same provider."""


@dataclass(frozen=True)
class _EndpointModel:
    endpoint: Endpoint
    name: str

    async def complete(self, request: ChatRequest) -> ChatReply:
        return await self.endpoint.complete(request.model or self.name, request)


def optional_parts(body: Mapping[str, Any]) -> tuple[str, ...]:
    """Name what of a request can be left out or written another way if it is refused."""
    names = [name for name in body if name not in {"model", "messages"}]
    messages: list[dict[str, Any]] = body.get("messages", [])
    is_folded = folded(messages) == messages
    return tuple(names if is_folded else [*names, SYSTEM_ROLE])


def folded(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Write system messages into the first message of the user, and join neighbours of one role."""
    rows: list[dict[str, Any]] = []
    for message in messages:
        role = "user" if message["role"] == "system" else message["role"]
        if rows and rows[-1]["role"] == role:
            rows[-1]["content"] = f"{rows[-1]['content']}\n\n{message['content']}"
        else:
            rows.append({**message, "role": role})
    return rows


def _response_format(schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """Ask for a reply that fits a schema; None where it is not an object: most refuse that."""
    if schema.get("type") != "object":
        return None
    return {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema}}


def _sendable(message: Mapping[str, object]) -> dict[str, object]:
    """Copy a message without lone surrogates, which UTF-8 cannot encode."""
    content = message.get("content")
    return (
        {**message, "content": without_surrogates(content)}
        if isinstance(content, str)
        else {**message}
    )


class Patience:
    """What is left of one call's `RetryPolicy`."""

    def __init__(self, policy: RetryPolicy, clock: Clock = time.monotonic) -> None:
        self._policy = policy
        self._clock = clock
        self._started = clock()
        self._failures = 0
        self._left_out: set[str | None] = set()

    def note_refused(self, diagnosis: Diagnosis) -> None:
        """Note which parameter is left out from now on.

        Raises:
            ModelError: it was left out for this call before, and that has not helped.
        """
        if diagnosis.refused_parameter in self._left_out:
            raise diagnosis.error
        self._left_out.add(diagnosis.refused_parameter)

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

    def slow_down(self, pause_seconds: float) -> bool:
        """Hold every call back for that long, and let fewer go at once afterwards.

        Returns:
            Whether this is news: thirty calls refused together are one sign of a crowd, not thirty.
        """
        now = self._clock()
        is_later = now + pause_seconds >= self._closed_until + SECONDS_BETWEEN_SLOWDOWNS
        self._closed_until = max(self._closed_until, now + pause_seconds)
        is_new = now - self._slowed_at >= SECONDS_BETWEEN_SLOWDOWNS
        if is_new:
            self._slowed_at = now
            self._successes = 0
            in_use = max(1, self._window.borrowed_tokens)
            self._window.total_tokens = max(1, min(self.window, in_use) // 2)
        return is_new or is_later

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
