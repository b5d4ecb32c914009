"""Hands events to functions of the library's user, and prints them to stderr."""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Awaitable, Callable
from functools import partial

from rlm_mcp.engine.run_context import RLMEvent

OnEvent = Callable[[RLMEvent], Awaitable[None] | None]
OnText = Callable[[str], Awaitable[None] | None]

_log = logging.getLogger("rlm_mcp")


class Listeners:
    """Calls the user's functions; the first error of each is logged, and none ends the run."""

    def __init__(
        self, on_event: OnEvent | None, on_delta: OnText | None = None, *, is_verbose: bool = False
    ) -> None:
        self._on_event = on_event
        self._on_delta = on_delta
        self._is_verbose = is_verbose
        self._failed: set[str] = set()

    @property
    def wants_deltas(self) -> bool:
        """Whether there is a function for pieces of replies."""
        return self._on_delta is not None

    async def emit(self, *events: RLMEvent) -> None:
        """Hand on events."""
        for event in events:
            if self._is_verbose:
                indent = "  " * event.depth
                sys.stderr.write(f"{indent}[{event.iteration}] {event.type}: {event.preview}\n")
            if self._on_event is not None:
                await self._call("on_event", partial(self._on_event, event))

    async def emit_delta(self, text: str) -> None:
        """Hand on a piece of the root's reply; `""` when the reply begins again."""
        if self._on_delta is not None:
            await self._call("on_delta", partial(self._on_delta, text))

    async def _call(self, name: str, function: Callable[[], Awaitable[None] | None]) -> None:
        try:
            result = function()
            if inspect.isawaitable(result):
                await result
        except Exception:  # noqa: BLE001  # user code: no error of it may end a run
            if name not in self._failed:
                self._failed.add(name)
                _log.warning("%s raised an error; the run continues.", name, exc_info=True)
