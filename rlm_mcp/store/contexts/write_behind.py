"""Steps of an upload that are at work while its caller takes in more."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup

from rlm_mcp.errors import RLMError, first_of


class WorkBehind:
    """Runs one piece of work at a time beside its caller, who learns with the next how it ended."""

    def __init__(self) -> None:
        self.tasks: TaskGroup | None = None
        self._end = anyio.Event()
        self._end.set()
        self._error: RLMError | None = None

    def start(self, work: Callable[[], Awaitable[None]]) -> None:
        """Begin a piece of work; the one before must be done."""
        if self.tasks is None:
            raise AssertionError
        self._end = anyio.Event()
        self.tasks.start_soon(self._run, work)

    async def done(self) -> None:
        """Wait until the last piece of work is done.

        Raises:
            RLMError: one of them failed.
        """
        await self._end.wait()
        if self._error is not None:
            raise self._error

    async def _run(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except RLMError as error:
            self._error = error
        finally:
            self._end.set()


class Behind:
    """The two steps behind taking in: cutting, and writing what was cut before."""

    def __init__(self) -> None:
        self.cutting = WorkBehind()
        self.writing = WorkBehind()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Let both work; neither is at work when the block ends."""
        try:
            async with anyio.create_task_group() as tasks:
                self.cutting.tasks = self.writing.tasks = tasks
                yield
        except BaseExceptionGroup as group:  # the first error without the wrapping
            raise first_of(group) from None
