"""Ends runs whose request was cancelled, unless somebody asks for them again in time.

A client that cancels a request says that nobody wants the answer, or only that it took too long:
the protocol does not say which. So the run continues for a while. It ends only if nobody waits for
it, looks at it, or asks the same question, in this server or in another one on the same database.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import anyio
from anyio.abc import TaskGroup

from rlm_mcp.errors import StoreError
from rlm_mcp.service.runs.live import LiveRuns
from rlm_mcp.store.runs.abandoned import AbandonedMarks
from rlm_mcp.values import stored_error

log = logging.getLogger(__name__)


class AbandonedRuns:
    """The abandoned runs that this process works on.

    Args:
        tasks: outlives every request.
        grace_seconds: how long somebody may ask for an abandoned run; 0: for ever.
    """

    def __init__(
        self, marks: AbandonedMarks, live: LiveRuns, tasks: TaskGroup, grace_seconds: float
    ) -> None:
        self._marks = marks
        self._live = live
        self._tasks = tasks
        self._grace_seconds = grace_seconds

    def add(self, run_id: str) -> None:
        """Take note that the request which waits for a run was cancelled."""
        if self._grace_seconds and self._live.get(run_id) is not None:
            self._tasks.start_soon(self._end_unless_wanted, run_id)

    async def seen(self, run_id: str) -> None:
        """Take note that somebody looks at a marked run, whoever works on it."""
        try:
            await self._marks.remove(run_id)
        except StoreError as error:  # a run can be looked at also while nothing can be written
            log.warning("storing that run %s is wanted failed: %s", run_id, error)

    async def _end_unless_wanted(self, run_id: str) -> None:
        try:
            mark = await self._marks.set(run_id)
            self._live.notify(run_id)  # whoever waits for it reads it again, and so wants it
            await anyio.sleep(self._grace_seconds)
            run = self._live.get(run_id)
            if run is not None and await self._marks.use(run_id, mark):
                run.end("cancelled", _why(self._grace_seconds))
        except StoreError as error:
            log.warning(
                "cancelling the abandoned run %s failed, so it continues: %s", run_id, error
            )


def _why(seconds: float) -> Mapping[str, Any]:
    return stored_error(
        "cancelled",
        "The client cancelled the request that waited for this run, and nobody asked for it in "
        f"the {seconds:g} s after that.",
        retryable=True,
        fix="rlm_run_resume continues it where it stopped; recorded work is not paid twice.",
    )
