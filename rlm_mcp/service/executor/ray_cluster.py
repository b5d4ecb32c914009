"""The only module that knows Ray: it connects to a cluster, and runs workers as its actors.

Ray places a worker's process on a node and reports its death. Runs and their logs are not Ray's:
it repeats no call and restarts no worker, since only the log says where a run continues.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import anyio.to_thread

from rlm_mcp.errors import ConfigurationError
from rlm_mcp.service.executor.cluster import Node, WorkerLostError, WorkerProcess
from rlm_mcp.settings import is_ray_token_required

RESOURCE = "rlm_worker"
# Many servers share the nodes, each with a worker of its own there.
_SHARE = 0.001
_CALLS_AT_ONCE = 100_000


@asynccontextmanager
async def open_cluster(address: str, worker: type[Any]) -> AsyncGenerator[RayCluster]:
    """Connect to a cluster of which this machine is a node, and disconnect at the end.

    Args:
        address: HOST:PORT of the cluster.
        worker: the class of workers, `worker.Worker`.

    Raises:
        ConfigurationError: Ray is not installed, the cluster cannot be reached, or it would obey
            whoever reaches its ports.
    """
    _refuse_open_ports(address)
    connect = partial(_connect, address)
    is_ours = await anyio.to_thread.run_sync(connect)
    try:
        yield RayCluster(address, worker)
    finally:
        if is_ours:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(_ray().shutdown)


def _ray() -> Any:
    # Else Ray sends the working directory of a server that `uv run` started to every node.
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    try:
        import ray  # noqa: PLC0415  # pyright: ignore[reportMissingImports]  # an extra; half a second
    except ImportError as error:
        raise ConfigurationError(
            "RLM_MCP_RAY_ADDRESS is set, and Ray is not installed here.",
            fix="Install it (pip install 'rlm-mcp[ray]'), or remove the setting.",
        ) from error
    return ray


def _refuse_open_ports(address: str) -> None:
    if not _is_loopback(address) and not is_ray_token_required():
        raise ConfigurationError(
            f"The Ray cluster at {address!r} is beyond this machine, and RAY_AUTH_MODE is not "
            "'token': Ray runs what anybody sends to its ports.",
            fix="Start all nodes and this server with RAY_AUTH_MODE=token and one token; Ray's "
            "documentation on token authentication says how.",
        )


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _connect(address: str) -> bool:
    """Connect this process; return False where it was connected before. Blocks."""
    ray = _ray()
    if ray.is_initialized():
        return False
    # Ray takes a loopback address for that of another machine unless it is told.
    own = {"_node_ip_address": address.rpartition(":")[0]} if _is_loopback(address) else {}
    try:
        ray.init(
            address=address,
            namespace="rlm-mcp",
            log_to_driver=False,
            configure_logging=False,
            include_dashboard=None,
            **own,
        )
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise ConfigurationError(
            f"The Ray cluster at {address!r} cannot be reached: {_first_line(error)}",
            fix="Start a node of it on this machine, such as ray start --head --port 6379 or "
            f"ray start --address {address}, and correct RLM_MCP_RAY_ADDRESS.",
        ) from error
    return True


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [repr(error)])[0]


class RayCluster:
    """A `Cluster` of Ray's nodes; those with the resource `rlm_worker` offer a worker."""

    def __init__(self, address: str, worker: type[Any]) -> None:
        self._address = address
        self._worker = worker

    async def nodes(self) -> Sequence[Node]:
        """Return the nodes that offer a worker now.

        Raises:
            ConfigurationError: the cluster does not answer.
        """
        return await anyio.to_thread.run_sync(self._nodes, abandon_on_cancel=True)

    def _nodes(self) -> Sequence[Node]:
        ray = _ray()
        try:
            found: list[dict[str, Any]] = ray.nodes()
        except ray.exceptions.RayError as error:
            raise ConfigurationError(
                f"The Ray cluster at {self._address!r} does not answer: {_first_line(error)}",
                fix="Start it again, and then this server.",
            ) from error
        return [
            Node(one["NodeID"], one["NodeManagerAddress"])
            for one in found
            if one["Alive"] and one["Resources"].get(RESOURCE, 0) > 0
        ]

    async def start(self, node: Node, sent: Mapping[str, Any]) -> WorkerProcess:
        """Start a worker on a node."""
        return await anyio.to_thread.run_sync(self._start, node, sent)

    def _start(self, node: Node, sent: Mapping[str, Any]) -> WorkerProcess:
        ray = _ray()
        strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        kind = ray.remote(self._worker).options(
            num_cpus=0,
            resources={RESOURCE: _SHARE},
            scheduling_strategy=strategy(node.node_id, soft=False),
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=_CALLS_AT_ONCE,
        )
        return _Actor(kind.remote(sent))


class _Actor:
    """A worker as an actor of Ray's."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def call(self, method: str, *arguments: Any) -> Any:
        """Call a method, and return what it returns.

        Raises:
            WorkerLostError: the actor is gone.
        """
        try:
            return await getattr(self._handle, method).remote(*arguments)
        except _ray().exceptions.RayError as error:
            raise WorkerLostError(_first_line(error)) from error

    async def kill(self) -> None:
        """End the actor's process, if it is still there."""
        await anyio.to_thread.run_sync(self._kill)

    def _kill(self) -> None:
        _ray().kill(self._handle, no_restart=True)
