"""Continues the runs of servers that are gone: a cluster's workers need no more than their logs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import anyio

from rlm_mcp.errors import RLMError, StoreError
from rlm_mcp.service.runs.execution import RunExecutor, RunServices
from rlm_mcp.service.runs.live import RunQueue
from rlm_mcp.service.runs.resuming import Resumer, Resumption

if TYPE_CHECKING:
    from rlm_mcp.store.contexts.contexts import Contexts
    from rlm_mcp.store.runs.attempts import LostRun
    from rlm_mcp.store.runs.leases import RunLeases

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LostRuns:
    """The runs over this database whose server is gone, and what continues them here.

    Args:
        services: what runs work with.
        texts: in the store.
        queue: where runs wait for a place.
        make_executor: makes the executor of one caller's runs.
        leases: of this process.
    """

    services: RunServices
    texts: Contexts
    queue: RunQueue
    make_executor: Callable[[RunServices, Contexts], RunExecutor]
    leases: RunLeases

    async def take_up(self) -> None:
        """Continue each of them from its log; it stays `running`, and waits for a place here.

        One that was to be cancelled, or lost five servers or workers, ends. What has no question,
        or cannot be continued, ends as `interrupted`.

        Raises:
            StoreError: the database failed.
        """
        for lost in await self.leases.lost():
            await self.leases.renew()  # a long log takes long to read
            try:
                await self._take_up(lost)
            except StoreError:  # it is tried again
                raise
            except RLMError as error:
                log.warning("run %s of a lost server cannot continue: %s", lost.run_id, error)
                await self.leases.interrupt([lost])
            except Exception:  # what cannot be read must not keep the others waiting for ever
                log.exception("run %s of a lost server cannot continue", lost.run_id)
                await self.leases.interrupt([lost])

    async def _take_up(self, lost: LostRun) -> None:
        if not lost.is_question:
            await self.leases.interrupt([lost])
            return
        services, texts = self.services.as_caller(lost.caller), self.texts.as_caller(lost.caller)
        executor = self.make_executor(services, texts)
        resumer = Resumer(services.runs, texts, executor.walls, services.pricing)
        record = replace(await services.runs.get(lost.run_id), elapsed_seconds=lost.worked_seconds)
        ready = await resumer.prepare(record, {})
        # Whoever ends this server must not leave a run behind that nobody works on.
        with anyio.CancelScope(shield=True):
            await self._move(lost, ready, executor)

    async def _move(self, lost: LostRun, ready: Resumption, executor: RunExecutor) -> None:
        event = replace(ready.change.event, preview="continues on another server")
        attempt = await self.leases.move(lost, event)
        if attempt is None:
            return
        ticket = self.queue.enter(lost.caller)
        ticket.has_waited = True  # its time begins once it has its place
        executor.execute(replace(ready.task, attempt=attempt), ready.budget, ticket)
