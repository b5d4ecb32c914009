"""Steps of an upload that are at work while its caller takes in more."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup

from rlm_mcp.errors import RLMError, first_of


class WorkBehind:
    """Does work beside its caller, one piece after another; the caller learns later how it ended.

    Args:
        ahead: how many pieces may be at work or wait.
    """

    def __init__(self, ahead: int = 1) -> None:
        self.tasks: TaskGroup | None = None
        self._ahead = ahead
        self._pending: deque[Callable[[], Awaitable[None]]] = deque()
        self._changed = anyio.Event()
        self._error: RLMError | None = None

    def start(self, work: Callable[[], Awaitable[None]]) -> None:
        """Begin a piece of work, or let it wait for those before; there must be `room`."""
        if self.tasks is None:
            raise AssertionError
        self._pending.append(work)
        if len(self._pending) == 1:
            self.tasks.start_soon(self._run)

    async def room(self) -> None:
        """Wait until another piece may be started.

        Raises:
            RLMError: one of those before failed; the others were given up.
        """
        await self._until_fewer_than(self._ahead)

    async def done(self) -> None:
        """Wait until all is done.

        Raises:
            RLMError: as for `room`.
        """
        await self._until_fewer_than(1)

    async def _until_fewer_than(self, count: int) -> None:
        while len(self._pending) >= count:
            await self._changed.wait()
        if self._error is not None:
            raise self._error

    async def _run(self) -> None:
        while self._pending:
            try:
                await self._pending[0]()
                self._pending.popleft()
            except RLMError as error:
                self._error = error
                self._pending.clear()
            finally:
                changed, self._changed = self._changed, anyio.Event()
                changed.set()


# Cuts that wait for the writer: while it waits for the disk, this much is taken in and cut.
_CUTS_AHEAD = 2


class Behind:
    """The two steps behind taking in: cutting, and writing what was cut before."""

    def __init__(self) -> None:
        self.cutting = WorkBehind()
        self.writing = WorkBehind(_CUTS_AHEAD)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Let both work; neither is at work when the block ends."""
        try:
            async with anyio.create_task_group() as tasks:
                self.cutting.tasks = self.writing.tasks = tasks
                yield
        except BaseExceptionGroup as group:  # the first error without the wrapping
            raise first_of(group) from None
