"""Chooses where runs are worked on: in this process, or by the workers of a cluster."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Literal

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from rlm_mcp.sandbox.types import Sandbox
from rlm_mcp.service.executor.cluster import Cluster, ClusterState
from rlm_mcp.service.executor.local import LocalExecutor
from rlm_mcp.service.repls import Repls
from rlm_mcp.service.runs.execution import RunExecutor, RunServices
from rlm_mcp.service.runs.live import RunQueue
from rlm_mcp.settings import Settings
from rlm_mcp.store.contexts.contexts import Contexts
from rlm_mcp.store.runs.leases import RunLeases

if TYPE_CHECKING:
    from rlm_mcp.engine.models.named import Models
    from rlm_mcp.service.executor.crew import Crew

MakeExecutor = Callable[[RunServices, Contexts], RunExecutor]
"""Makes the executor of one caller's runs, over that caller's texts."""

Purpose = Literal["serve", "work", "look"]


@asynccontextmanager
async def open_crew(
    settings: Settings, cluster: Cluster | None = None, purpose: Purpose = "work"
) -> AsyncGenerator[Crew | None]:
    """Have workers on a cluster, by default the one that the settings name; None without one.

    Nobody who only looks has any.

    Raises:
        ConfigurationError: there is no such cluster, or nothing to reach it with, or no worker.
    """
    if purpose == "look" or (cluster is None and settings.ray_address is None):
        yield None
        return
    # Few have a cluster: nothing of it is loaded for the others.
    from rlm_mcp.service.executor.crew import Crew  # noqa: PLC0415
    from rlm_mcp.service.executor.sent_settings import to_send  # noqa: PLC0415

    async with AsyncExitStack() as stack:
        if cluster is None:
            # Ray is an extra, and large.
            from rlm_mcp.service.executor.ray_cluster import open_cluster  # noqa: PLC0415

            # By name, since the server depends on its messages alone: nodes are where it runs.
            worker = import_module("rlm_mcp.service.executor.worker").Worker
            address = settings.ray_address or ""
            cluster = await stack.enter_async_context(open_cluster(address, worker))
        crew = Crew(cluster, to_send(settings), settings.max_concurrent_calls)
        await crew.require_nodes()
        tasks = await stack.enter_async_context(anyio.create_task_group())
        tasks.start_soon(crew.run_forever)
        try:
            yield crew
        finally:
            tasks.cancel_scope.cancel()


@dataclass(frozen=True)
class WorkSite:
    """Where runs are worked on, and what outlives every request there.

    Args:
        crew: works on the runs; None for this process.
        leases: of this process.
        tasks: of this process, in the background.
        purpose: where somebody only looks, nothing is worked on, and runs of servers that are gone
            are let be. Without a crew they end else. With one, a server continues them, and whoever
            only has some work done ends those that it waits for and leaves the others to a server.
    """

    crew: Crew | None
    leases: RunLeases
    tasks: TaskGroup
    purpose: Purpose = "work"

    async def end_lost_runs(self) -> None:
        """End the runs of dead servers as `interrupted`, where that is to be done here."""
        if self.crew is None and self.purpose != "look":
            await self.leases.interrupt_dead()

    @property
    def ends_awaited_runs(self) -> bool:
        """Whether runs of dead servers end as `interrupted` as soon as somebody waits for them."""
        return self.crew is not None and self.purpose == "work"

    def repls(self, sandbox: Sandbox, most_kept: int) -> Repls:
        """Return what opens and keeps REPLs for cells of callers.

        Args:
            sandbox: of this process.
            most_kept: how many are kept here at most.
        """
        if self.crew is None:
            return Repls(sandbox, self.tasks, most_kept)
        from rlm_mcp.service.executor.remote_repls import RemoteRepls  # noqa: PLC0415  # few

        return RemoteRepls(sandbox, self.tasks, self.crew)

    def state(self, caller: str, *, is_remote: bool) -> ClusterState | None:
        """Describe the cluster, if there is one; see `cluster_state`."""
        if self.crew is None:
            return None
        from rlm_mcp.service.executor.worker_states import cluster_state  # noqa: PLC0415  # few

        return cluster_state(self.crew, caller, is_remote=is_remote)

    def executors(self, models: Models, *queues: RunQueue) -> MakeExecutor:
        """Return what makes the executor of each caller.

        Args:
            models: of this server; what providers refuse here or at a worker holds everywhere.
            queues: get as many places as a crew.
        """
        crew, start = self.crew, self.tasks.start_soon
        if crew is None:
            return lambda services, _texts: LocalExecutor(services, self.tasks)
        from rlm_mcp.service.executor.remote import CrewDuty, RemoteExecutor  # noqa: PLC0415  # few
        from rlm_mcp.service.executor.shares import hold, tell_refusals  # noqa: PLC0415  # few

        def resize(places: int) -> None:
            for queue in queues:
                queue.resize(places)

        crew.on_places = resize
        if crew.workers:  # they were up before anybody was told
            crew.tell_places()
        crew.on_crowded = partial(hold, models)
        tell_refusals(models, lambda crowded: start(crew.hold, None, crowded))
        return partial(RemoteExecutor, duty=CrewDuty(crew, self.leases, self.tasks))

    def taking_up(
        self, services: RunServices, texts: Contexts, make_executor: MakeExecutor, queue: RunQueue
    ) -> Callable[[], Awaitable[None]] | None:
        """Return what continues the runs of servers that are gone; None where they end."""
        if self.purpose == "look" or self.ends_awaited_runs:
            return checkpoint
        if self.crew is None:
            return None
        from rlm_mcp.service.executor.taking_up import LostRuns  # noqa: PLC0415  # few

        return LostRuns(services, texts, queue, make_executor, self.leases).take_up
