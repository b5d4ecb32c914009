"""A cluster as the server sees it: nodes that offer a worker, and workers that can be called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol


class WorkerLostError(Exception):
    """A worker is gone, or does not answer; it never leaves this folder."""


@dataclass(frozen=True)
class Node:
    """A machine that offers a worker."""

    node_id: str
    address: str


@dataclass(frozen=True)
class WorkerState:
    """A worker at this moment, or why a node has none.

    `state`: `late` is one that has not answered the last ping yet; of one that is `starting` or
    has `failed` nothing else is known. `runs` are those at work there, `repls` those that are kept
    for cells, both of the caller who asks. `answered_seconds_ago`: when it answered a ping last.
    """

    state: Literal["up", "late", "starting", "failed"]
    node: str | None
    version: str | None = None
    python: str | None = None
    isolation: str | None = None
    layers: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    places: int = 0
    runs: int = 0
    repls: int = 0
    answered_seconds_ago: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class ClusterState:
    """The cluster at this moment: the worker of each node."""

    workers: Sequence[WorkerState]


class WorkerProcess(Protocol):
    """A worker's process; its methods are those of `worker.Worker`."""

    async def call(self, method: str, *arguments: Any) -> Any:
        """Call a method, and return what it returns.

        Raises:
            WorkerLostError: the process is gone.
        """
        ...

    async def kill(self) -> None:
        """End the process, if it is still there."""
        ...


class Cluster(Protocol):
    """Where workers run."""

    async def nodes(self) -> Sequence[Node]:
        """Return the nodes that offer a worker now.

        Raises:
            ConfigurationError: the cluster does not answer.
        """
        ...

    async def start(self, node: Node, sent: Mapping[str, Any]) -> WorkerProcess:
        """Start a worker on a node; whether that worked shows when it is called.

        Args:
            sent: what it is told of the server's settings.
        """
        ...
