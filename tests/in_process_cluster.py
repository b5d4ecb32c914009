"""A cluster whose workers are in this process: all that crosses is pickled, and they can be lost.

It stands for Ray where a test needs no real processes; `tests/ray` has those.
"""

from __future__ import annotations

import pickle
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from rlm_mcp.sandbox.choice import OwnedSandbox
from rlm_mcp.service.executor.cluster import Node, WorkerLostError
from rlm_mcp.service.executor.worker import Worker
from rlm_mcp.service.opening import open_service
from rlm_mcp.service.runs.runs import RunState
from rlm_mcp.service.service import Service
from rlm_mcp.testing.scripted_model import ScriptedModel
from tests.serving import SHARED_SANDBOX, settings_in


class InProcess:
    """A worker of this process; `kill` ends all that it does, and it answers no more.

    While it `hangs`, calls to it do not return. `calls` names the methods that were called.
    """

    def __init__(self, sent: Mapping[str, Any], cluster: InProcessCluster) -> None:
        self.hangs = False
        self.calls: list[str] = []
        self._cluster = cluster
        shared = cluster.sandbox or SHARED_SANDBOX.get()
        self._worker = Worker(pickle.loads(pickle.dumps(sent)), shared)
        self._dead = anyio.Event()

    async def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the worker."""
        self.calls.append(method)
        if method == "work":
            self._cluster.hosts.append(self)
        given = pickle.loads(pickle.dumps(arguments))
        result = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._until_dead, tasks.cancel_scope)
            if self.hangs:
                await anyio.sleep_forever()
            result = await getattr(self._worker, method)(*given)
            if self.hangs:
                await anyio.sleep_forever()
            tasks.cancel_scope.cancel()
        if method == "take":
            self._cluster.count_take(self)
        if self._dead.is_set():
            raise WorkerLostError("it was killed")
        self._cluster.note(method, self)
        return pickle.loads(pickle.dumps(result))

    async def _until_dead(self, scope: anyio.CancelScope) -> None:
        await self._dead.wait()
        scope.cancel()

    def die(self) -> None:
        """End the worker at once."""
        self._dead.set()

    async def kill(self) -> None:
        """End the worker."""
        self.die()


class InProcessCluster:
    """Some nodes, each of which offers a worker.

    Args:
        nodes: how many.
        last_take: a worker dies instead of answering the so many-th `take` of all; 0 for none.
        sandbox: of all workers; None for that of the tests.
    """

    def __init__(
        self, nodes: int = 2, *, last_take: int = 0, sandbox: OwnedSandbox | None = None
    ) -> None:
        self.sandbox = sandbox
        self._takes_left = last_take
        self.offered = [Node(f"node-{number}", f"10.0.0.{number}") for number in range(nodes)]
        self.hosts: list[InProcess] = []
        """The workers that were sent runs, in order."""
        self.workers: list[InProcess] = []
        """The workers that were started, in order."""
        self._answered: dict[str, set[InProcess]] = {}
        self._news = anyio.Event()

    def note(self, method: str, worker: InProcess) -> None:
        """Take note that a worker answered a call of a method."""
        self._answered.setdefault(method, set()).add(worker)
        self._news.set()

    def count_take(self, worker: InProcess) -> None:
        """Take note that a worker has questions for the server; it dies with the last ones."""
        self._takes_left -= 1
        if self._takes_left == 0:
            worker.die()

    async def until_called(self, method: str, workers: int = 1) -> None:
        """Wait until so many workers have answered a call of a method."""
        while len(self._answered.get(method, ())) < workers:
            self._news = anyio.Event()
            await self._news.wait()

    async def nodes(self) -> Sequence[Node]:
        """Return the nodes that are there."""
        return tuple(self.offered)

    async def start(self, node: Node, sent: Mapping[str, Any]) -> InProcess:
        """Start a worker."""
        self.workers.append(worker := InProcess(sent, self))
        return worker

    def called(self, method: str) -> list[InProcess]:
        """Return the workers of which this was asked."""
        return [worker for worker in self.workers if method in worker.calls]


@asynccontextmanager
async def open_front(
    directory: Path, model: ScriptedModel, cluster: InProcessCluster, **changes: Any
) -> AsyncGenerator[Service]:
    """A server whose runs are worked on by the workers of a cluster."""
    settings = settings_in(directory, base_url=model.base_url, **changes)
    async with open_service(settings, shared=SHARED_SANDBOX.get(), cluster=cluster) as service:
        yield service


async def ended(service: Service, run_id: str) -> RunState:
    """Wait until a run has ended; return how."""
    with anyio.fail_after(120):
        while (state := await service.runs.wait(run_id, 30, _unreported)).status == "running":
            pass
    return state


async def _unreported(state: RunState) -> None:
    """Nobody watches."""
