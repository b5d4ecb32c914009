"""The REPLs that a worker holds for cells of callers, after a run or opened for them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import anyio
from anyio.abc import TaskGroup

from rlm_mcp.errors import SandboxDiedError
from rlm_mcp.sandbox.types import CallReply, CellResult, Repl, ReplCall
from rlm_mcp.service.executor.messages import CellCall, Place, ReplGone, WantedRepl
from rlm_mcp.service.executor.outbox import Outbox
from rlm_mcp.service.executor.remote_text import RemoteSource
from rlm_mcp.service.repls import OpenRepl, Repls
from rlm_mcp.service.saved_variables import last_variables
from rlm_mcp.store.runs.records import SavedVariable


@dataclass
class _Work:
    """What is done for a REPL now, and can be stopped."""

    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    ended: anyio.Event = field(default_factory=anyio.Event)


class HeldRepls:
    """Runs cells in REPLs that stay open between them; the server says when one is let go.

    Those that no cell uses are among the kept ones of `repls`, which closes them when they were
    idle for long or memory is short. The server is told.
    """

    def __init__(self, repls: Repls, outbox: Outbox, tasks: TaskGroup) -> None:
        self._repls = repls
        self._outbox = outbox
        self._tasks = tasks
        self._held: dict[Place, OpenRepl] = {}
        self._work: dict[Place, _Work] = {}

    def find(self, at: Place) -> Repl | None:
        """Return a REPL to look into."""
        one = self._held.get(at)
        return one.repl if one else None

    async def open(self, at: Place, wanted: WantedRepl) -> list[str]:
        """Open a REPL; return the names of variables that it could not be given.

        Raises:
            SandboxError: it cannot be opened, or is no longer wanted.
        """
        source = RemoteSource(wanted.text, self._outbox, at)
        async with self._stoppable(at):
            one = await self._repls.open(
                source, wanted.handles, wanted.options, wanted.variables, caller=wanted.caller
            )
            self._hold(at, one)
            return one.lost
        raise _gone()

    def hold(self, at: Place) -> bool:
        """Hold the REPL of a run that ends; return whether there is one."""
        one = self._repls.take(at[0])
        if one is not None:
            self._hold(at, one)
            self._keep(at, one)
        return at in self._held

    def give(self, at: Place) -> None:
        """Give a REPL to the run that it was held of."""
        one = self._held.pop(at, None)
        if one is not None and self._repls.take(_name(at)) is one:
            self._repls.keep(at[0], one, caller=one.caller)

    async def run_cell(self, at: Place, code: str, timeout_seconds: float) -> CellResult:
        """Run a cell; what it calls is asked of the server.

        Raises:
            SandboxDiedError: the REPL is gone, or the cell was stopped.
        """
        one = self._held.get(at)
        if one is None:
            raise _gone()
        self._repls.take(_name(at))
        try:
            async with self._stoppable(at):
                return await one.repl.execute(
                    code, timeout_seconds=timeout_seconds, on_call=partial(self._call, at)
                )
        finally:
            self._keep(at, one)
        raise _gone()

    async def _call(self, at: Place, call: ReplCall) -> CallReply:
        return await self._outbox.ask(*at, CellCall(call))

    async def stop(self, at: Place) -> None:
        """Stop what is done for a REPL; returns when it has ended."""
        work = self._work.get(at)
        if work is not None:
            work.scope.cancel()
            await work.ended.wait()

    async def saved(self, at: Place, *, after_cell: bool) -> Sequence[SavedVariable]:
        """Read what a REPL holds; see `saved_variables.save_variables`.

        Raises:
            SandboxDiedError: the REPL is gone.
        """
        one = self._held.get(at)
        if one is None:
            raise _gone()
        return await last_variables(one.repl, after_cell=after_cell)

    async def close(self, at: Place) -> None:
        """Let a REPL go, whatever is done in it."""
        await self.stop(at)
        one = self._held.pop(at, None)
        if one is not None:
            self._repls.take(_name(at))
            one.let_go.set()

    def _hold(self, at: Place, one: OpenRepl) -> None:
        self._held[at] = one
        self._tasks.start_soon(self._tell_when_gone, at, one)

    async def _tell_when_gone(self, at: Place, one: OpenRepl) -> None:
        await one.let_go.wait()
        if self._held.get(at) is one:
            del self._held[at]
            self._outbox.tell(*at, ReplGone())

    def _keep(self, at: Place, one: OpenRepl) -> None:
        self._repls.keep(_name(at), one, caller=one.caller)

    @asynccontextmanager
    async def _stoppable(self, at: Place) -> AsyncGenerator[None]:
        work = self._work[at] = _Work()
        try:
            with work.scope:
                yield
        finally:
            del self._work[at]
            work.ended.set()


def _name(at: Place) -> str:
    """Return the name by which `Repls` keeps it: that of no run."""
    return f"{at[0]} {at[1]}"


def _gone() -> SandboxDiedError:
    return SandboxDiedError(
        "The worker no longer holds the REPL.",
        fix="Call rlm_exec with the run_id again: a new REPL gets the saved variables.",
    )
