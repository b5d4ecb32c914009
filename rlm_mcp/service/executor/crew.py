"""The workers of a cluster as the server keeps them: started, watched, replaced when one is lost.

Every node that offers a worker has one. What a worker asks is answered as it comes, by the run that
it asks for. A worker that does not answer for some seconds is given up like one that died: Ray
notices processes and nodes that end, but none that hang.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import anyio
from anyio.abc import TaskGroup

from rlm_mcp import __version__
from rlm_mcp.errors import ConfigurationError, RLMError, RunLostError, first_of
from rlm_mcp.service.executor.answering import serve_worker
from rlm_mcp.service.executor.cluster import Cluster, Node, WorkerLostError, WorkerProcess
from rlm_mcp.service.executor.messages import (
    Answer,
    Ask,
    Crowded,
    Demand,
    Place,
    Question,
    Refused,
    WorkerStatus,
    given,
)
from rlm_mcp.service.executor.remote_text import RecentTexts
from rlm_mcp.service.executor.shares import CallShares

PING_SECONDS = 1.0
PINGS_MISSED = 5  # after so many a worker is given up
_NODES_SECONDS = 2.0
_START_SECONDS = 120.0
RESTART_SECONDS = 1.0
_KILL_SECONDS = 30.0
_HOLD_SECONDS = 10.0
_LOCAL_BIAS = 8  # runs that a worker which read the text may have more than the idlest one

log = logging.getLogger(__name__)


class Asked(Protocol):
    """What a worker works on, as the server stands for it: a run, or a REPL for cells."""

    @property
    def caller(self) -> str:
        """Whose it is."""
        ...

    async def answer(self, question: Question) -> Any:
        """Do what the worker asks for it.

        Raises:
            RLMError: it cannot be done.
        """
        ...

    def lose(self) -> None:
        """Take note that the worker is lost."""
        ...


class RemoteRun(Asked, Protocol):
    """A run at work on a worker."""

    @property
    def attempt(self) -> int:
        """Whose questions are answered."""
        ...


class AskedRepl(Asked, Protocol):
    """A REPL that a worker holds for cells of callers."""

    is_busy: bool


@dataclass(eq=False)
class CrewWorker:
    """One worker: its process, the runs that it works on, the REPLs that it holds for cells of
    callers, and the texts that it has read of late."""

    node: Node
    process: WorkerProcess
    status: WorkerStatus
    runs: dict[str, RemoteRun] = field(default_factory=dict[str, RemoteRun])
    repls: dict[Place, AskedRepl] = field(default_factory=dict[Place, AskedRepl])
    texts: RecentTexts = field(default_factory=RecentTexts)
    answered_at: float = field(default_factory=anyio.current_time)

    async def answer(self, ask: Ask) -> Answer:
        """Have the run or REPL that is asked for answer, unless it is elsewhere by now."""
        if isinstance(ask.question, Crowded):  # of no run
            return Answer(ask.number)
        run = self.runs.get(ask.run_id)
        asked: Asked | None = self.repls.get((ask.run_id, ask.attempt))
        if run is not None and run.attempt == ask.attempt:
            asked = run
        if asked is None:
            lost = RunLostError(
                f"Attempt {ask.attempt} at the run {ask.run_id!r} was given up.",
                fix="rlm_run_wait can follow it from here.",
            )
            return Answer(ask.number, Refused.of(lost))
        try:
            return Answer(ask.number, await asked.answer(ask.question))
        except RLMError as error:
            return Answer(ask.number, Refused.of(error))


class Crew:
    """The workers of a cluster, while the server is open.

    Args:
        cluster: where they run.
        sent: what they are told of the server's settings.
        calls: how many model calls may be under way at once, in all of them together.
    """

    def __init__(self, cluster: Cluster, sent: Mapping[str, Any], calls: int) -> None:
        self._cluster = cluster
        self._sent = sent
        self._shares = CallShares(calls)
        self._nodes: dict[str, Node] = {}
        self._refusals: dict[str, RLMError] = {}
        self._workers: list[CrewWorker] = []
        self._changed = anyio.Event()
        self.watched: Callable[[], Sequence[str]] = tuple
        """Names the runs whose root model's words somebody reads as they come."""
        self.on_places: Callable[[int], None] = _ignore
        """Told how many runs the workers can host, when that changes."""
        self.on_crowded: Callable[[Crowded], None] = _ignore
        """Told when a provider refused a worker a call: this server asks models too."""

    @property
    def workers(self) -> Sequence[CrewWorker]:
        """The workers that are up."""
        return tuple(self._workers)

    @property
    def refusals(self) -> Mapping[str, RLMError]:
        """Why workers cannot work, by the address of their node."""
        return dict(self._refusals)

    async def require_nodes(self) -> None:
        """See that there is a node that offers a worker.

        Raises:
            ConfigurationError: there is none.
        """
        if not await self._cluster.nodes():
            raise ConfigurationError(
                "RLM_MCP_RAY_ADDRESS is set, and no node of the Ray cluster offers a worker.",
                fix="Start nodes with ray start --address HOST:PORT "
                """--resources '{"rlm_worker": 1}', and then this server.""",
            )

    async def settled(self, seconds: float) -> Sequence[str]:
        """Wait until each node has a worker, or a reason to have none.

        Returns:
            The addresses of nodes with neither after `seconds`.
        """
        with anyio.move_on_after(seconds):
            while not self._nodes or self.pending():
                await self._changed.wait()
        return self.pending()

    def pending(self) -> Sequence[str]:
        """Return the addresses of nodes whose worker is not up yet."""
        known = {worker.node.address for worker in self._workers} | self._refusals.keys()
        return sorted({node.address for node in self._nodes.values()} - known)

    async def pick(self, key: str, before: CrewWorker | None = None) -> CrewWorker:
        """Return the idlest worker, or one that has read the text and is not much busier.

        Waits for one to be up.

        Args:
            key: of the text.
            before: has worked on what comes before; no others are near where it is up.

        Raises:
            RLMError: none can be, as every node says.
        """
        while (best := self.likely(key, before)) is None:
            addresses = {node.address for node in self._nodes.values()}
            if addresses and addresses <= self._refusals.keys():
                raise self._refusals[min(addresses)]
            await self._changed.wait()
        return best

    def likely(self, key: str, before: CrewWorker | None = None) -> CrewWorker | None:
        """Return the worker that `pick` would return now; None where none is up."""
        if not self._workers:
            return None
        idlest = min(self._workers, key=_load)
        near = [worker for worker in self._workers if key in worker.texts]
        near = [before] if before in self._workers else near
        best = min(near, key=_load, default=idlest)
        return best if _load(best) <= _load(idlest) + _LOCAL_BIAS else idlest

    async def run_forever(self) -> None:
        """Have a worker on each node that offers one, as nodes come and go."""
        async with anyio.create_task_group() as tasks:
            while True:
                try:
                    await self._look(tasks)
                except RLMError as error:
                    log.warning("%s", error)
                await anyio.sleep(_NODES_SECONDS)

    async def _look(self, tasks: TaskGroup) -> None:
        nodes = {node.node_id: node for node in await self._cluster.nodes()}
        new = [node for node_id, node in nodes.items() if node_id not in self._nodes]
        self._nodes = nodes
        for node in new:
            tasks.start_soon(self._keep, node)

    async def _keep(self, node: Node) -> None:
        """Have a worker on a node, and another one when it is lost, until the node is gone."""
        while node.node_id in self._nodes:
            try:
                await self._employ(node)
            except WorkerLostError as error:
                log.warning("the worker on %s is lost: %s", node.address, error)
            except RLMError as error:
                log.warning("the worker on %s cannot work: %s", node.address, error)
                self._refusals[node.address] = error
                self._tell()
            await anyio.sleep(RESTART_SECONDS)
        self._refusals.pop(node.address, None)

    async def _employ(self, node: Node) -> None:
        """Start a worker, and serve it until it is lost.

        Raises:
            WorkerLostError: it is lost.
            RLMError: it cannot work, as it says.
        """
        process = await self._cluster.start(node, self._sent)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(process.call, "serve")  # it fails when the process ends
                worker = CrewWorker(node, process, await _started(node, process))
                with self._employed(worker):
                    tasks.start_soon(self._watch, worker)
                    await serve_worker(worker, tasks, self.hold)
        except BaseExceptionGroup as group:  # the first error without the wrapping
            raise first_of(group) from None
        finally:
            with anyio.move_on_after(_KILL_SECONDS, shield=True):
                await process.kill()

    @contextmanager
    def _employed(self, worker: CrewWorker) -> Generator[None]:
        self._workers.append(worker)
        self._shares.add(worker)
        self._refusals.pop(worker.node.address, None)
        self._tell()
        try:
            yield
        finally:
            self._workers.remove(worker)
            self._shares.remove(worker)
            self._tell()
            for one in (*worker.runs.values(), *worker.repls.values()):
                one.lose()

    async def hold(self, heard_by: CrewWorker | None, crowded: Crowded) -> None:
        """Have all others leave a provider alone that refused a worker, or this server, a call."""
        if heard_by is not None:
            self.on_crowded(crowded)

        async def hold(other: CrewWorker) -> None:
            # One that is lost, or hangs, is seen to by whoever watches it.
            with anyio.move_on_after(_HOLD_SECONDS), suppress(WorkerLostError):
                await other.process.call("hold", crowded)

        async with anyio.create_task_group() as tasks:
            for other in self.workers:
                if other is not heard_by:
                    tasks.start_soon(hold, other)

    async def _watch(self, worker: CrewWorker) -> None:
        """Ask a worker at once, and then every second, whether it is there.

        Raises:
            WorkerLostError: it does not answer.
        """
        while True:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._ping, worker, answered := anyio.Event())
                # Counted one by one: if this server stood still, only one of them was missed.
                for _ in range(PINGS_MISSED):
                    with anyio.move_on_after(PING_SECONDS):
                        await answered.wait()
                        break
                else:
                    raise WorkerLostError(f"it did not answer for {PINGS_MISSED} seconds")
            await anyio.sleep(PING_SECONDS)

    async def _ping(self, worker: CrewWorker, answered: anyio.Event) -> None:
        share = self._shares.grant(worker)
        demand: Demand = await worker.process.call("ping", share, tuple(self.watched()))
        self._shares.learn(worker, share, demand)
        worker.answered_at = anyio.current_time()
        answered.set()

    def tell_places(self) -> None:
        """Say how many runs the workers can host; while there is none, one may wait for it."""
        self.on_places(max(1, sum(worker.status.places for worker in self._workers)))

    def _tell(self) -> None:
        self.tell_places()
        changed, self._changed = self._changed, anyio.Event()
        changed.set()


def _ignore(_told: object) -> None:
    """Nobody is to be told."""


def _load(worker: CrewWorker) -> int:
    return len(worker.runs) + sum(one.is_busy for one in worker.repls.values())


async def _started(node: Node, process: WorkerProcess) -> WorkerStatus:
    """Wait until a worker is up.

    Raises:
        WorkerLostError: it did not come up.
        RLMError: it cannot work here.
    """
    with anyio.move_on_after(_START_SECONDS):
        status = given(await process.call("status"))
        if status.version != __version__:
            raise ConfigurationError(
                f"The node {node.address!r} has rlm-mcp {status.version}, and this server "
                f"{__version__}.",
                fix="Install the same version on all nodes.",
            )
        return status
    raise WorkerLostError(f"it was not up after {_START_SECONDS:.0f} seconds")
