"""A write that is at work while its caller prepares the next one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup

from rlm_mcp.errors import RLMError, first_of


class WriteBehind:
    """Runs one write at a time beside its caller, who learns with the next one how it ended."""

    def __init__(self) -> None:
        self._tasks: TaskGroup | None = None
        self._end = anyio.Event()
        self._end.set()
        self._error: RLMError | None = None

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Let writes run; none is left at work when the block ends."""
        try:
            async with anyio.create_task_group() as self._tasks:
                yield
        except BaseExceptionGroup as group:  # the first error without the wrapping
            raise first_of(group) from None

    def start(self, write: Callable[[], Awaitable[None]]) -> None:
        """Begin a write; the one before must be done."""
        if self._tasks is None:
            raise AssertionError
        self._end = anyio.Event()
        self._tasks.start_soon(self._run, write)

    async def done(self) -> None:
        """Wait until the last write is done.

        Raises:
            RLMError: it failed.
        """
        await self._end.wait()
        if self._error is not None:
            raise self._error

    async def _run(self, write: Callable[[], Awaitable[None]]) -> None:
        try:
            await write()
        except RLMError as error:
            self._error = error
        finally:
            self._end.set()
