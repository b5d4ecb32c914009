"""Times one call to a model: how long it was queued, its first piece, and how often it failed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from rlm_mcp.engine.models.chat import CallTiming, ChatRequest


class Stopwatch:
    """Started when a call is made, and told of each request that is sent for it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began = clock()
        self._sent: float | None = None
        self._first: float | None = None
        self._requests = 0

    def watch(self, request: ChatRequest) -> ChatRequest:
        """Return the request so that its first piece is noted, where it is streamed."""
        on_delta = request.on_delta
        if on_delta is None:
            return request

        async def note(text: str) -> None:
            if text and self._first is None:
                self._first = self._clock()
            await on_delta(text)

        return replace(request, on_delta=note)

    def note_sending(self) -> None:
        """Note that a request is sent now."""
        self._requests += 1
        if self._sent is None:
            self._sent = self._clock()

    @property
    def timing(self) -> CallTiming:
        """The times so far."""
        now = self._clock()
        return CallTiming(
            seconds=now - self._began,
            queued_seconds=(now if self._sent is None else self._sent) - self._began,
            first_token_seconds=None if self._first is None else self._first - self._began,
            retries=max(0, self._requests - 1),
        )
