"""Group commit: small writes that come at the same time share one transaction.

While one group is being written, the next one gathers, so under load a thread and a commit serve
many writes, and alone a write waits for nobody. Each write has a savepoint of its own: one that
fails is undone alone. A write is in the file once its caller has its result.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from sqlite3 import Connection, Error
from typing import Any, Generic, TypeVar

import anyio

from rlm_mcp.errors import StoreError

T = TypeVar("T")

# So that the writes of other kinds, and other processes, wait for no more than this many.
MAX_GROUP = 256


class GroupedWrite(Generic[T]):
    """One write of a group, and its outcome.

    Args:
        fn: does the write; if its group cannot be committed, it is run again in one of its own.
    """

    def __init__(self, fn: Callable[[Connection], T]) -> None:
        self.fn = fn
        self.woken = anyio.Event()
        """Set when the write is done, or is to lead the next group."""
        self.is_begun = False
        self.is_done = False
        self._result: T | None = None
        self._error: BaseException | None = StoreError("The write was abandoned.", fix="Try again.")

    def attempt(self, db: Connection) -> None:
        """Do the write in a savepoint of the open transaction; blocks.

        Raises:
            sqlite3.Error: SQLite could not do it; the whole group is in doubt.
        """
        db.execute("SAVEPOINT grouped")
        try:
            self.succeed(self.fn(db))
        except Error:
            raise
        except Exception as error:  # noqa: BLE001  # it is raised where the write was asked for
            db.execute("ROLLBACK TO grouped")
            self.fail(error)
        db.execute("RELEASE grouped")

    def succeed(self, result: T) -> None:
        """Keep the result."""
        self._result, self._error = result, None

    def fail(self, error: BaseException) -> None:
        """Keep the error."""
        self._error = error

    def outcome(self) -> T:
        """Return the result of a write that is done, or raise its error."""
        if self._error is not None:
            raise self._error
        return self._result  # pyright: ignore[reportReturnType]  # it is T once the write is done


class GroupCommit:
    """Gathers writes into groups; one caller of each group writes it for all.

    Args:
        write_group: waits until it may write, calls `take`, and writes what that returns.
    """

    def __init__(self, write_group: Callable[[], Awaitable[None]]) -> None:
        self._write_group = write_group
        self._waiting: deque[GroupedWrite[Any]] = deque()
        self._has_leader = False

    async def run(self, fn: Callable[[Connection], T]) -> T:
        """Do a write with those that come at the same time.

        A caller that is cancelled while its write waits leaves no trace of it.

        Raises:
            StoreError: the write could not be committed; and what `fn` raises.
        """
        write = GroupedWrite(fn)
        self._waiting.append(write)
        try:
            if self._has_leader:
                await self._until_woken(write)
            if not write.is_done:
                await self._lead()
        except BaseException:
            self._withdraw(write)
            raise
        return write.outcome()

    def take(self) -> Sequence[GroupedWrite[Any]]:
        """Take the next group; its writes have begun."""
        group = [self._waiting.popleft() for _ in range(min(MAX_GROUP, len(self._waiting)))]
        for write in group:
            write.is_begun = True
        return group

    @staticmethod
    def conclude(group: Sequence[GroupedWrite[Any]]) -> None:
        """Wake the callers of a group that is written."""
        for write in group:
            write.is_done = True
            write.woken.set()

    async def _until_woken(self, write: GroupedWrite[Any]) -> None:
        try:
            await write.woken.wait()
        except BaseException:
            if write.is_begun:  # the cancellation is delivered once the write has ended
                with anyio.CancelScope(shield=True):
                    await write.woken.wait()
            raise

    async def _lead(self) -> None:
        self._has_leader = True
        try:
            await self._write_group()
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        """Let the oldest write that waits lead the next group."""
        self._has_leader = bool(self._waiting)
        if self._waiting:
            self._waiting[0].woken.set()

    def _withdraw(self, write: GroupedWrite[Any]) -> None:
        if write.is_begun or write not in self._waiting:
            return
        is_leader = write.woken.is_set()
        self._waiting.remove(write)
        if is_leader:
            self._pass_on()
