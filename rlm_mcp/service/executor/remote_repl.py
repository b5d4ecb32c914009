"""REPLs of workers as the server uses them: that of a run at work, and those held after it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from rlm_mcp.errors import RLMError, RunLostError, SandboxBusyError, SandboxDiedError
from rlm_mcp.sandbox.types import (
    CallHandler,
    CallReply,
    CellResult,
    ContextSource,
    ReplCall,
    ReplOptions,
    Variable,
    VariableText,
)
from rlm_mcp.service.executor.cluster import WorkerLostError
from rlm_mcp.service.executor.crew import CrewWorker
from rlm_mcp.service.executor.messages import (
    CellCall,
    Passage,
    Place,
    PlaceOfPassage,
    Question,
    ReplGone,
    TextPart,
    WantedRepl,
    given,
)
from rlm_mcp.service.executor.remote_text import read_text
from rlm_mcp.service.repls import OpenRepl
from rlm_mcp.store.runs.records import SavedVariable

# A cell that has not stopped by then makes no more calls: they are refused.
_STOP_SECONDS = 8.0


class RemoteRepl:
    """A `Repl` over messages, for looks: no cell of a caller runs in a run at work.

    Args:
        worker: where it is.
        at: names it there; of a run at work, its id and its attempt.
    """

    _when_lost = (
        "The worker of {!r} is lost; the run continues on another one.",
        "Try again in a moment.",
    )

    def __init__(self, worker: CrewWorker, at: Place) -> None:
        self.worker = worker
        self.at = at

    async def execute(
        self, code: str, *, timeout_seconds: float, on_call: CallHandler
    ) -> CellResult:
        """Refuse a cell.

        Raises:
            SandboxBusyError: always; the run works in the REPL.
        """
        raise SandboxBusyError(
            f"The run {self.at[0]!r} is at work.", fix="Try again when it has ended."
        )

    async def variables(self) -> list[Variable]:
        """List the variables; none while the REPL is not open.

        Raises:
            SandboxError: they cannot be read.
        """
        return await self._ask("variables")

    async def read_variable(
        self, name: str, *, start: int = 0, limit: int = 4000, whole: bool = False
    ) -> VariableText:
        """Read a slice of one variable as text; see `Repl`.

        Raises:
            NotFoundError: no such variable.
            SandboxError: it cannot be read.
        """
        return await self._ask("read_variable", name, start, limit, whole)

    async def _ask(self, method: str, *arguments: object) -> Any:
        try:
            return given(await self.worker.process.call(method, self.at, *arguments))
        except WorkerLostError as error:
            message, fix = self._when_lost
            raise SandboxDiedError(message.format(self.at[0]), fix=fix) from error


class HeldRepl(RemoteRepl):
    """A REPL that a worker holds for cells of callers; a `DistantRepl`.

    The worker runs the cells. What they call is answered here, and so is what the worker reads of
    the text.

    Args:
        source: what the REPL was opened over.
        caller: whose it is.
    """

    _when_lost = (
        "The worker that held the REPL is lost, and with it what its last cell did.",
        "Call rlm_exec with the run_id again: a new REPL gets the saved variables.",
    )

    def __init__(self, worker: CrewWorker, at: Place, source: ContextSource, caller: str) -> None:
        super().__init__(worker, at)
        self._source = source
        self.caller = caller
        self._on_call: CallHandler | None = None
        self._calls: set[anyio.CancelScope] = set()
        self._is_closed_there = False
        self.let_go = anyio.Event()
        self.is_busy = False
        """Whether a cell runs in it, or is about to."""
        worker.repls[at] = self

    async def open(self, wanted: WantedRepl) -> list[str]:
        """Open it at its worker; return the names of variables that it could not be given.

        Raises:
            SandboxError: it cannot be opened.
        """
        self.is_busy = True
        return await self._ask("open_repl", wanted)

    async def execute(
        self, code: str, *, timeout_seconds: float, on_call: CallHandler
    ) -> CellResult:
        """Run one cell; see `Repl`.

        Raises:
            SandboxDiedError: the REPL is gone.
        """
        self._on_call, self.is_busy = on_call, True
        try:
            return await self._ask("run_cell", code, timeout_seconds)
        except anyio.get_cancelled_exc_class():
            self._end_calls()
            with anyio.move_on_after(_STOP_SECONDS, shield=True), suppress(SandboxDiedError):
                await self._ask("stop_cell")
            raise
        finally:
            self.is_busy = False
            self._end_calls()

    def _end_calls(self) -> None:
        """End the calls of the cell that are under way, and refuse further ones."""
        self._on_call = None
        for scope in self._calls:
            scope.cancel()

    async def is_there(self) -> bool:
        """Whether the worker answers, and still holds the REPL."""
        try:
            return await self._ask("holds_repl")
        except SandboxDiedError:
            return False

    async def saved(self, *, after_cell: bool) -> Sequence[SavedVariable]:
        """Read what the REPL holds; see `DistantRepl`.

        Raises:
            SandboxDiedError: the REPL is gone.
        """
        return await self._ask("saved", after_cell)

    def lend(self) -> Place:
        """Give the REPL back to the worker, for a run that continues in it; return its name."""
        self.lose()
        return self.at

    def lose(self) -> None:
        """Take note that the worker holds it no longer."""
        self._is_closed_there = True
        self.let_go.set()

    async def close_when_let_go(self) -> None:
        """Wait until it is let go, and have its worker close it."""
        try:
            await self.let_go.wait()
        finally:
            self.worker.repls.pop(self.at, None)
        if not self._is_closed_there:
            with suppress(RLMError):
                await self._ask("close_repl")

    async def answer(self, question: Question) -> Any:
        """Do what the worker asks for the REPL.

        Raises:
            RLMError: it cannot be done.
        """
        if isinstance(question, CellCall):
            return await self._answer_call(question.call)
        if isinstance(question, ReplGone):
            return self.lose()
        if isinstance(question, TextPart | Passage | PlaceOfPassage):
            return await anyio.to_thread.run_sync(read_text, self._source, question)
        raise RunLostError(
            f"The run {self.at[0]!r} has ended.", fix="rlm_run_wait shows how it ended."
        )

    async def _answer_call(self, call: ReplCall) -> CallReply:
        """Answer a call of the cell, unless the cell ends before it."""
        with anyio.CancelScope() as scope:
            self._calls.add(scope)
            try:
                if self._on_call is not None:
                    return await self._on_call(call)
            finally:
                self._calls.discard(scope)
        return CallReply(error="the cell has ended")


def stand_in(
    held: HeldRepl, handles: Sequence[str], options: ReplOptions, tasks: TaskGroup
) -> OpenRepl:
    """Return a REPL of a worker as `Repls` keeps it; a task closes it there once it is let go."""
    now = anyio.current_time()
    walls = held.worker.status.isolation
    one = OpenRepl(held, tuple(handles), options, now, isolation=walls, let_go=held.let_go)
    tasks.start_soon(held.close_when_let_go)
    return one
