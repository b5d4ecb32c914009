"""The REPLs that the workers of a crew hold for cells of callers, as the server keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import TYPE_CHECKING

import anyio
from anyio.abc import TaskGroup

from rlm_mcp.errors import SandboxBusyError
from rlm_mcp.sandbox.types import ContextSource, ReplOptions, Sandbox
from rlm_mcp.service import repls
from rlm_mcp.service.executor.messages import TextLabel, WantedRepl
from rlm_mcp.service.executor.remote_repl import HeldRepl, stand_in
from rlm_mcp.service.repls import OpenRepl, Repls

if TYPE_CHECKING:
    from rlm_mcp.service.executor.crew import Crew, CrewWorker
    from rlm_mcp.store.runs.records import SavedVariable

_WORKER_SECONDS = 30.0


class RemoteRepls(Repls):
    """Opens REPLs on workers; what is kept of them is there, and restored when a worker is lost.

    Args:
        sandbox: of this machine, in which no cell of a caller runs.
        tasks: outlives every request.
        crew: the workers.
    """

    def __init__(self, sandbox: Sandbox, tasks: TaskGroup, crew: Crew) -> None:
        super().__init__(sandbox, tasks)
        self._crew = crew
        self._numbers = count(1)

    async def open(
        self,
        source: ContextSource,
        handles: Sequence[str],
        options: ReplOptions,
        variables: Sequence[SavedVariable] = (),
        *,
        caller: str = "",
    ) -> OpenRepl:
        """Open a REPL on a worker; see `Repls.open`.

        Raises:
            SandboxError: it cannot be opened.
            RLMError: no worker can work.
        """
        worker = await self._pick(source.key)
        worker.texts.add(source.key)
        held = HeldRepl(worker, ("repl", next(self._numbers)), source, caller)
        one = stand_in(held, handles, options, self._tasks)
        wanted = WantedRepl(
            caller=caller,
            text=TextLabel.of(source),
            handles=one.handles,
            options=options,
            variables=variables,
        )
        try:
            one.lost = await held.open(wanted)
        except BaseException:
            one.let_go.set()
            raise
        return one

    async def _pick(self, key: str) -> CrewWorker:
        with anyio.move_on_after(_WORKER_SECONDS):
            return await self._crew.pick(key)
        raise SandboxBusyError(
            "No worker of the cluster is up.", fix="Try again when one is: rlm_status lists them."
        )

    def _most(self) -> int:
        return repls.KEPT_REPLS * max(1, len(self._crew.workers))

    async def evict(self) -> None:
        """Do nothing: a worker closes what is idle for long, or when its memory is short."""
