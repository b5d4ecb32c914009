"""To wait for what tells nobody that it has happened."""

from __future__ import annotations

from collections.abc import Callable

import anyio


async def until(is_so: Callable[[], bool], seconds: float = 60) -> None:
    """Look every 20 ms whether something is so.

    Raises:
        TimeoutError: it is not so after `seconds`.
    """
    with anyio.fail_after(seconds):
        while not is_so():  # noqa: ASYNC110  # such as the end of another process's children
            await anyio.sleep(0.02)
