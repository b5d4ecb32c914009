"""Cells that run over their time, on machines of any speed.

On a busy machine a short time may pass before a cell has come to the statement that it is to be
stopped in. So it is run again with more time, until it was stopped there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

Got = TypeVar("Got")
SECONDS = (0.3, 2, 10, 40)


async def with_enough_time(
    run: Callable[[float], Awaitable[Got]],
    has_come_far: Callable[[Got], bool],
    seconds: Sequence[float] = SECONDS,
) -> Got:
    """Return what `run` gives once it had time to come as far as it must; the last, if never.

    Args:
        run: does it within the seconds that it is given; it can be done again.
        has_come_far: whether what came shows that the time was enough.
        seconds: the times, one after another.
    """
    for given in seconds[:-1]:
        got = await run(given)
        if has_come_far(got):
            return got
    return await run(seconds[-1])
