"""What a root model writes, shown on the terminal while it writes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import anyio
from rich.console import Console
from rich.live import Live
from rich.text import Text

from rlm_mcp.service.runs.root_text import RootTextWatch
from rlm_mcp.service.runs.runs import RunService

_SHOWN_LINES = 8


@asynccontextmanager
async def open_text_display(
    runs: RunService, console: Console
) -> AsyncGenerator[Callable[[str], None]]:
    """Yield a function that is told which run to watch; the end of its text stands below all else.

    It goes when the reply is whole, which is printed then.
    """
    with Live(console=console, transient=True, auto_refresh=False) as live:
        async with anyio.create_task_group() as tasks:
            watched: set[str] = set()

            async def follow(run_id: str) -> None:
                with runs.watch_text(run_id) as watch:
                    await _show(watch, live)

            def begin(run_id: str) -> None:
                live.update("", refresh=True)  # what stood there is in the log by now, or goes on
                if run_id not in watched:
                    watched.add(run_id)
                    tasks.start_soon(follow, run_id)

            yield begin
            tasks.cancel_scope.cancel()


async def _show(watch: RootTextWatch, live: Live) -> None:
    text = ""
    while True:
        await watch.wait()
        if piece := watch.take():
            text = text[: piece.at] + piece.text
            end = "\n".join(text.splitlines()[-_SHOWN_LINES:])
            live.update(Text(end, style="dim", overflow="ellipsis", no_wrap=True), refresh=True)
