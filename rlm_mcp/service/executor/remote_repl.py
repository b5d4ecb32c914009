"""The REPL of a run at work on a worker, as the server looks into it."""

from __future__ import annotations

from typing import Any

from rlm_mcp.errors import SandboxBusyError, SandboxDiedError
from rlm_mcp.sandbox.types import CallHandler, CellResult, Variable, VariableText
from rlm_mcp.service.executor.cluster import WorkerLostError
from rlm_mcp.service.executor.crew import CrewWorker
from rlm_mcp.service.executor.messages import given


class RemoteRepl:
    """A `Repl` over messages, for looks: no cell of a caller runs in a run at work."""

    def __init__(self, worker: CrewWorker, run_id: str) -> None:
        self._worker = worker
        self._run_id = run_id

    async def execute(
        self, code: str, *, timeout_seconds: float, on_call: CallHandler
    ) -> CellResult:
        """Refuse a cell.

        Raises:
            SandboxBusyError: always; the run works in the REPL.
        """
        raise SandboxBusyError(
            f"The run {self._run_id!r} is at work.", fix="Try again when it has ended."
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
            return given(await self._worker.process.call(method, self._run_id, *arguments))
        except WorkerLostError as error:
            raise SandboxDiedError(
                f"The worker of {self._run_id!r} is lost; the run continues on another one.",
                fix="Try again in a moment.",
            ) from error
