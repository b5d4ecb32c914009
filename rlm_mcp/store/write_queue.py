"""How writes take turns: one at a time in order of arrival, and small ones as a group.

Group commit: small writes that come at the same time share one transaction, and so do reads.
While one group is at work, the next one gathers, so under load a thread and a commit serve many
calls, and alone a call waits for nobody. After a group of several the next one waits for what the
other tasks that are ready have to write. Each write has a savepoint of its own: one that fails is
undone alone. A write is in the file once its caller has its result.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from sqlite3 import Connection, Error
from typing import Any, Generic, TypeVar

import anyio
import anyio.lowlevel

from rlm_mcp.errors import StoreError
from rlm_mcp.store.connection import busy


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


T = TypeVar("T")

# So that other writes, and other processes, wait for no more than this many.
MAX_GROUP = 256


class GroupedCall(Generic[T]):
    """One call of a group, and its outcome.

    Args:
        fn: does the work; if its group cannot be committed, it is run again alone.
        leave_bytes: how much of the disk must be free.
    """

    def __init__(self, fn: Callable[[Connection], T], leave_bytes: int) -> None:
        self.fn = fn
        self.leave_bytes = leave_bytes
        self.woken = anyio.Event()
        """Set when the call is done, or is to lead the next group."""
        self.is_begun = False
        self.is_done = False
        self._result: T | None = None
        self._error: BaseException | None = None
        self._is_settled = False
        self._failure: BaseException | None = None

    def read(self, db: Connection) -> None:
        """Do a read, of which nothing must be undone; blocks."""
        try:
            self.succeed(self.fn(db))
        except Error:
            raise
        except Exception as error:  # noqa: BLE001  # it is raised where the call was made
            self.fail(error)

    def write(self, db: Connection) -> None:
        """Do a write in a savepoint of the open transaction; blocks. `commit` makes it known.

        Raises:
            sqlite3.Error: SQLite could not do it; the whole group is in doubt.
        """
        db.execute("SAVEPOINT grouped")
        self._failure = None
        try:
            self._result = self.fn(db)
        except Error:
            raise
        except Exception as error:  # noqa: BLE001  # it is raised where the call was made
            db.execute("ROLLBACK TO grouped")
            self._failure = error
        db.execute("RELEASE grouped")

    def commit(self) -> None:
        """Keep what became of a write whose transaction is in the file."""
        self._error = self._failure
        self._is_settled = True

    def succeed(self, result: T) -> None:
        """Keep the result."""
        self._result, self._error = result, None
        self._is_settled = True

    def fail(self, error: BaseException) -> None:
        """Keep the error."""
        self._error = error
        self._is_settled = True

    def outcome(self) -> T:
        """Return the result of a call that is done, or raise its error."""
        if not self._is_settled:
            raise StoreError("The call was abandoned.", fix="Try again.")
        if self._error is not None:
            raise self._error
        return self._result  # pyright: ignore[reportReturnType]  # it is T once the call is done


class GroupCommit:
    """Gathers calls into groups; one caller of each group does it for all.

    Args:
        do_group: waits until it may work, calls `take`, and does what that returns.
    """

    def __init__(self, do_group: Callable[[], Awaitable[None]]) -> None:
        self._do_group = do_group
        self._waiting: deque[GroupedCall[Any]] = deque()
        self._has_leader = False
        self._has_company = False  # whether the last group was one of several calls

    async def run(self, fn: Callable[[Connection], T], leave_bytes: int = 0) -> T:
        """Do a call with those that come at the same time.

        A caller that is cancelled while its call waits leaves no trace of it.

        Args:
            leave_bytes: how much of the disk must be free.

        Raises:
            StoreError: the database could not do it; and what `fn` raises.
        """
        call = GroupedCall(fn, leave_bytes)
        self._waiting.append(call)
        try:
            if self._has_leader:
                await self._until_woken(call)
            if not call.is_done:
                await self._lead()
        except BaseException:
            self._withdraw(call)
            raise
        return call.outcome()

    def take(self) -> Sequence[GroupedCall[Any]]:
        """Take the next group; its calls have begun."""
        group = [self._waiting.popleft() for _ in range(min(MAX_GROUP, len(self._waiting)))]
        for call in group:
            call.is_begun = True
        self._has_company = len(group) > 1
        return group

    def fail(self, error: StoreError) -> None:
        """End all calls that wait with an error."""
        group = self.take()
        for call in group:
            call.fail(error)
        self.conclude(group)

    @staticmethod
    def conclude(group: Sequence[GroupedCall[Any]]) -> None:
        """Wake the callers of a group that is done."""
        for call in group:
            call.is_done = True
            call.woken.set()

    async def _until_woken(self, call: GroupedCall[Any]) -> None:
        try:
            await call.woken.wait()
        except BaseException:
            if call.is_begun:  # the cancellation is delivered once the call has ended
                with anyio.CancelScope(shield=True):
                    await call.woken.wait()
            raise

    async def _lead(self) -> None:
        self._has_leader = True
        try:
            if self._has_company:
                await anyio.lowlevel.checkpoint()
            await self._do_group()
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        """Let the oldest call that waits lead the next group."""
        self._has_leader = bool(self._waiting)
        if self._waiting:
            self._waiting[0].woken.set()

    def _withdraw(self, call: GroupedCall[Any]) -> None:
        if call.is_begun or call not in self._waiting:
            return
        is_leader = call.woken.is_set()
        self._waiting.remove(call)
        if is_leader:
            self._pass_on()
