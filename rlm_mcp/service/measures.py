"""What the server does, in numbers, for those who watch over it; no text is among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rlm_mcp.service.repls import Repls
from rlm_mcp.service.runs.live import LiveRuns, RunQueue, Tally


@dataclass(frozen=True)
class QueueMeasures:
    """How many have a place to work, how many wait for one, and how many places there are."""

    working: int
    waiting: int
    places: int


@dataclass(frozen=True)
class Measures:
    """The numbers of one caller, or of all callers.

    Args:
        runs: how many runs are stored, by status.
        done: what this process did since it started.
        queues: of `runs`, `cells` and `searches`.
        working_repls: those in which a run works.
        kept_repls: those of runs that have ended.
        is_whole: these are of the whole server.
    """

    runs: Mapping[str, int]
    done: Tally
    queues: Mapping[str, QueueMeasures]
    working_repls: int
    kept_repls: int
    is_whole: bool


def measure(
    runs: Mapping[str, int],
    live: LiveRuns,
    repls: Repls,
    queues: Mapping[str, RunQueue],
    caller: str,
) -> Measures:
    """Take the numbers of a caller; the empty name stands for all of them."""
    of_caller = [run for run in live if caller in ("", run.ticket.caller)]
    return Measures(
        runs=runs,
        done=live.total(caller),
        queues={
            name: QueueMeasures(*queue.counts(caller), places=queue.places)
            for name, queue in queues.items()
        },
        working_repls=sum(run.repl is not None for run in of_caller),
        kept_repls=repls.count_kept(caller),
        is_whole=not caller,
    )
