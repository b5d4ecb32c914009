"""The queue of writers: one writes at a time, in order of arrival."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from rlm_mcp.store.failures import busy


class WriteTurns:
    """A queue of writers, of whom one writes.

    How long one waits depends on the writers before it and does not mean that anything is wrong;
    that no write makes progress does.

    Args:
        path: the file that they write to.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._line: deque[anyio.Event] = deque()
        self._is_taken = False
        self._writes = 0

    def count(self) -> None:
        """Note that a write made progress; called in the writer's thread."""
        self._writes += 1

    @asynccontextmanager
    async def one(self, patience_seconds: float = math.inf) -> AsyncGenerator[None]:
        """Write while the block lasts.

        Args:
            patience_seconds: how long to wait while no other write makes progress.

        Raises:
            StoreBusyError: no write made progress for so long.
        """
        await self._take(patience_seconds)
        try:
            yield
        finally:
            self._pass_on()

    async def _take(self, patience_seconds: float) -> None:
        if not self._is_taken:
            self._is_taken = True
            return
        turn = anyio.Event()
        self._line.append(turn)
        try:
            await self._wait(turn, patience_seconds)
        except BaseException:  # cancelled, or out of patience
            if turn.is_set():
                self._pass_on()
            else:
                self._line.remove(turn)
            raise

    async def _wait(self, turn: anyio.Event, patience_seconds: float) -> None:
        while not turn.is_set():
            before = self._writes
            with anyio.move_on_after(patience_seconds):
                await turn.wait()
            if not turn.is_set() and self._writes == before:
                raise busy(self._path)

    def _pass_on(self) -> None:
        if self._line:
            self._line.popleft().set()
        else:
            self._is_taken = False
