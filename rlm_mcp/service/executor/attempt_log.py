"""The lines of one attempt at a run, written by the server in the order in which they came."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from rlm_mcp.errors import RLMError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlm_mcp.service.executor.messages import Lines
    from rlm_mcp.store.runs.records import Event
    from rlm_mcp.store.runs.runs import Runs


class AttemptLog:
    """Writes lines one group after another; none after a refused one of which nobody was told.

    Otherwise a log could lack a line and have the next one, and nobody could continue from it.

    Args:
        runs: writes as this attempt alone.
    """

    def __init__(self, runs: Runs, run_id: str) -> None:
        self._runs = runs
        self._run_id = run_id
        self._turn = anyio.Lock(fast_acquire=True)
        self._refusal: RLMError | None = None

    async def append(self, lines: Lines) -> Sequence[Event]:
        """Write lines after those that came before them, all or none; return them as stored.

        Raises:
            RLMError: they were refused, or earlier ones were.
        """
        async with self._turn:
            if self._refusal is not None:
                raise self._refusal
            try:
                return await self._runs.append_events(self._run_id, lines.events)
            except RLMError as error:
                if not lines.is_awaited:
                    self._refusal = error
                raise

    async def settled(self) -> RLMError | None:
        """Wait until what came is written; return why lines are missing, if some are."""
        async with self._turn:
            return self._refusal
