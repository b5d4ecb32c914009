"""How long the runs of this process have worked, whatever is done to the clock on the wall."""

from __future__ import annotations

import time
from collections.abc import Callable


class WorkClock:
    """Tells the time, and when a run would have begun if the clock had never been set.

    The store keeps when a run began, in seconds since the epoch. A clock that is set, or a machine
    that sleeps, makes that wrong; the process that works on the run knows better.

    Args:
        wall: seconds since the epoch.
        steady: seconds, only ever forward, and none while the machine sleeps.
    """

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self.now = wall
        self._steady = steady
        self._began: dict[str, float] = {}

    def begin(self, run_id: str) -> None:
        """Count the seconds of a run from now."""
        self._began[run_id] = self._steady()

    def end(self, run_id: str) -> None:
        """Forget a run, which works no more, or elsewhere."""
        self._began.pop(run_id, None)

    def started(self, run_id: str) -> float | None:
        """Return when a run of this process began, by the wall's clock as it is now."""
        began = self._began.get(run_id)
        return None if began is None else self.now() - (self._steady() - began)
