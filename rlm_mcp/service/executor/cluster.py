"""A cluster as the server sees it: nodes that offer a worker, and workers that can be called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class WorkerLostError(Exception):
    """A worker is gone, or does not answer; it never leaves this folder."""


@dataclass(frozen=True)
class Node:
    """A machine that offers a worker."""

    node_id: str
    address: str


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
