"""A run at work, shown on the terminal."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Literal

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.syntax import Syntax

from rlm_mcp.cli.text_display import open_text_display
from rlm_mcp.events import (
    CodeExecuted,
    CodeGenerated,
    IterationStart,
    RunWarning,
    SubCallsFinished,
    SubCallsStarted,
    read_detail,
)
from rlm_mcp.service.runs.questions import calls_of_allowed, progress_line
from rlm_mcp.service.runs.runs import Report, RunService, RunState
from rlm_mcp.store.runs.records import Event
from rlm_mcp.text import counted, dollars, duration
from rlm_mcp.values import ModelUsage

Verbosity = Literal["nothing", "progress", "everything"]

_QUIET_SECONDS = 5.0
_LINE_SECONDS = 10.0
_SHOWN_CHARS = 1500
_EVENTS_AT_ONCE = 100
_COST_IS = {
    "told": "as the provider says",
    "computed": "from prices",
    "estimated": "estimated",
}


@asynccontextmanager
async def open_run_display(
    runs: RunService, console: Console, verbosity: Verbosity
) -> AsyncGenerator[Report]:
    """Yield a function that shows a run's state each time it is called."""
    if verbosity == "nothing":
        yield _nothing
    elif verbosity == "everything":
        printer = EventPrinter(runs, console)
        if not console.is_terminal:
            yield printer.report
            return
        async with open_text_display(runs, console) as watch:

            async def watched(state: RunState) -> None:
                watch(state.run_id)
                await printer.report(state)

            yield watched
    elif not console.is_terminal:
        yield _ProgressLines(console).report
    else:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("starting", total=None)

            async def report(state: RunState) -> None:
                progress.update(task, description=escape(_without_seconds(state)))

            yield report


async def _nothing(state: RunState) -> None:
    del state


class _ProgressLines:
    """Prints a line when a figure has changed, or after ten seconds without a change."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown = ""
        self._shown_at = 0.0

    async def report(self, state: RunState) -> None:
        figures = _without_seconds(state)
        if figures == self._shown and state.elapsed_seconds - self._shown_at < _LINE_SECONDS:
            return
        if not self._shown:
            if state.status != "running":
                return  # it had ended before: its outcome is printed next
            self._console.print(f"{state.run_id} is running", markup=False)
        self._shown, self._shown_at = figures, state.elapsed_seconds
        self._console.print(progress_line(state), markup=False)


class EventPrinter:
    """Prints each event once, and a line of progress where nothing is new."""

    def __init__(self, runs: RunService, console: Console, after: int = 0) -> None:
        self._runs = runs
        self._console = console
        self._seen = after
        self._last_shown = 0.0

    async def report(self, state: RunState) -> None:
        """Print what is new."""
        is_news = False
        while events := await self._runs.events(state.run_id, self._seen, _EVENTS_AT_ONCE):
            is_news = True
            for event in events:
                self._seen = event.seq
                self._show(event, state)
        if is_news or state.elapsed_seconds - self._last_shown < _QUIET_SECONDS:
            return
        self._last_shown = state.elapsed_seconds
        self._console.print(f"[dim]{progress_line(state)}[/dim]")

    def _show(self, event: Event, state: RunState) -> None:
        match read_detail(event):
            case IterationStart():
                turn, so_far = escape(event.preview), _so_far(event, state)
                self._console.print(f"\n[bold]{turn}[/bold]  [dim]{so_far}[/dim]")
            case CodeGenerated(code=code):
                self._show_code(code)
            case CodeExecuted(output=output, output_chars=chars, error=error) if chars or error:
                self._console.print(escape(output[:_SHOWN_CHARS]), style="cyan")
            case SubCallsStarted() | SubCallsFinished() | RunWarning():
                self._console.print(f"[dim]{escape(event.preview)}[/dim]")
            case _:
                pass  # the question is on the screen already, and the answer is printed later

    def _show_code(self, code: str) -> None:
        if self._console.is_terminal:
            self._console.print(Syntax(code, "python", background_color="default", word_wrap=True))
        else:
            self._console.print(code, markup=False)  # its lines stay as they are, to be copied


def show_outcome(console: Console, state: RunState) -> None:
    """Print a run's status and figures in one line."""
    figures = state.figures
    parts = [
        f"{state.status}: {counted(figures.iterations, 'turn')}",
        counted(figures.sub_calls, "sub-call")
        + (f" ({figures.cached_sub_calls:,} more from the cache)" * bool(figures.cached_sub_calls)),
        f"{figures.input_tokens:,} tokens in",
        f"{figures.output_tokens:,} out",
    ]
    if figures.cost_usd is not None:
        parts.append(dollars(figures.cost_usd))
    parts.append(duration(state.elapsed_seconds))
    lines = [f"{', '.join(parts)}.", *map(_of_model, figures.by_model), state.run_id]
    if len(figures.by_model) < 2:
        del lines[1:-1]
    console.print("\n".join(lines), style="dim", markup=False)


def _of_model(used: ModelUsage) -> str:
    how = _COST_IS[used.cost_is or "estimated"]
    cost = "" if used.cost_usd is None else f", {dollars(used.cost_usd)} ({how})"
    tokens = f"{used.input_tokens:,} tokens in, {used.output_tokens:,} out"
    return f"  {used.model or 'the model'}: {counted(used.calls, 'call')}, {tokens}{cost}"


def _so_far(event: Event, state: RunState) -> str:
    calls = calls_of_allowed(event.figures.sub_calls, state.config)
    since = datetime.fromisoformat(event.at) - datetime.fromisoformat(state.created_at)
    return f"{calls} · {duration(since.total_seconds())}"


def _without_seconds(state: RunState) -> str:
    return progress_line(state).rpartition(" · ")[0]
