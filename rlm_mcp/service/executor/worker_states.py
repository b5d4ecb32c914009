"""The workers of a crew as `rlm_status` shows them."""

from __future__ import annotations

from dataclasses import replace

import anyio

from rlm_mcp.service.executor import crew
from rlm_mcp.service.executor.cluster import ClusterState, WorkerState
from rlm_mcp.service.executor.crew import Crew, CrewWorker

_LATE_PINGS = 2


def cluster_state(workers_of: Crew, caller: str, *, is_remote: bool) -> ClusterState:
    """Describe the worker of each node.

    Args:
        caller: whose runs and REPLs are counted; all for the empty name.
        is_remote: the caller may be on another machine, and learns no address.
    """
    states = [_of(worker, caller) for worker in workers_of.workers]
    for address, error in workers_of.refusals.items():
        states.append(WorkerState("failed", address, error=error.message))
    states += [WorkerState("starting", address) for address in workers_of.pending()]
    if is_remote:
        states = [_without_address(state) for state in states]
    return ClusterState(states)


def _without_address(state: WorkerState) -> WorkerState:
    error = None if state.error is None else "The server's log says why."
    return replace(state, node=None, error=error)


def _of(worker: CrewWorker, caller: str) -> WorkerState:
    status, seconds = worker.status, anyio.current_time() - worker.answered_at
    is_late = seconds > _LATE_PINGS * crew.PING_SECONDS
    return WorkerState(
        state="late" if is_late else "up",
        node=worker.node.address,
        version=status.version,
        python=status.python,
        isolation=status.isolation.level,
        layers=status.isolation.layers,
        missing=status.isolation.missing,
        places=status.places,
        runs=sum(caller in ("", run.caller) for run in worker.runs.values()),
        repls=sum(caller in ("", repl.caller) for repl in worker.repls.values()),
        answered_seconds_ago=round(seconds, 1),
    )
