"""`rlm-mcp demo`: the whole way of a question, shown on the terminal."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
import anyio.to_thread
from rich.console import Console
from rich.markup import escape
from rich.syntax import Syntax
from rich.table import Table

from rlm_mcp.cli.demo_text import QUESTION, demo_lines, scripted_reply
from rlm_mcp.scripted_model import open_scripted_model
from rlm_mcp.service import Service, open_service
from rlm_mcp.service.contexts import NewText
from rlm_mcp.service.progress import progress_line
from rlm_mcp.service.questions import Question
from rlm_mcp.service.runs import RunState
from rlm_mcp.settings import Settings
from rlm_mcp.store.run_records import Event

# Where a model server listens when nobody said otherwise.
LOCAL_SERVERS = (
    ("Ollama", 11434),
    ("LM Studio", 1234),
    ("llama.cpp", 8080),
    ("vLLM", 8000),
)
DEMO_SECONDS = 900.0
_PROBE_SECONDS = 1.0
_QUIET_SECONDS = 5.0
_SHOWN_CHARS = 1500


@dataclass(frozen=True)
class _Chosen:
    settings: Settings
    how: str


async def run_demo(settings: Settings, servers: Sequence[tuple[str, int]] = LOCAL_SERVERS) -> bool:
    """Store a text, ask a question over it, and show progress, answer, figures and variables.

    Args:
        settings: a model named there is used.
        servers: else the first of these that answers, by name and port on this machine.

    Returns whether there was an answer.
    """
    console = Console(highlight=False)
    async with _model(settings, servers) as chosen, open_service(chosen.settings) as service:
        console.print(escape(chosen.how), style="bold")
        handle = await _store_text(service, console)
        console.print(f"\nQuestion: {escape(QUESTION)}\n", style="bold")
        run_id = await service.runs.start(Question(QUESTION, contexts=(handle,)))
        shown = _Display(service, console)
        state = await service.runs.wait(run_id, DEMO_SECONDS, shown.report)
        await _show_outcome(service, console, state)
    return state.answer is not None


@asynccontextmanager
async def _model(settings: Settings, servers: Sequence[tuple[str, int]]) -> AsyncGenerator[_Chosen]:
    """Choose the configured model, else a local one, else a scripted one."""
    if settings.root_model:
        yield _Chosen(settings, f"Model: {settings.root_model}, as configured.")
        return
    found = await anyio.to_thread.run_sync(_local_model, servers)
    if found is not None:
        name, base_url, model = found
        update = {"base_url": base_url, "root_model": model, "api_key": None}
        yield _Chosen(settings.model_copy(update=update), f"Model: {model}, served by {name}.")
        return
    async with open_scripted_model(scripted_reply) as scripted:
        update = {"base_url": scripted.base_url, "root_model": "scripted", "api_key": None}
        yield _Chosen(
            settings.model_copy(update=update),
            "Model: SCRIPTED. No model is configured and none runs at a usual local address, so "
            "the replies below were written beforehand; all else is real. To use a real model, "
            "set RLM_MCP_ROOT_MODEL and RLM_MCP_API_KEY (or RLM_MCP_BASE_URL), or start Ollama.",
        )


def _local_model(servers: Sequence[tuple[str, int]]) -> tuple[str, str, str] | None:
    """Find a server at a usual address that names a model: its name, base URL, first model."""
    for name, port in servers:
        base_url = f"http://127.0.0.1:{port}/v1"
        try:
            with urllib.request.urlopen(f"{base_url}/models", timeout=_PROBE_SECONDS) as reply:  # noqa: S310  # http on loopback
                models = json.load(reply)["data"]
            return name, base_url, str(models[0]["id"])
        except (urllib.error.URLError, OSError, ValueError, LookupError, TypeError):
            continue  # something else listens there, or nothing
    return None


async def _store_text(service: Service, console: Console) -> str:
    text = await anyio.to_thread.run_sync(lambda: "".join(demo_lines()))
    added = await service.contexts.add(NewText(text=text, name="harbour log"), _silent)
    console.print(
        f"Stored as {added.handle}: {added.chars:,} characters, about "
        f"{added.estimated_tokens:,} tokens."
    )
    return str(added.handle)


async def _silent(done: int, total: int) -> None:
    """The text is stored in a moment."""


class _Display:
    """Prints each event once, and where the run stands when a turn begins or nothing is new."""

    def __init__(self, service: Service, console: Console) -> None:
        self._service = service
        self._console = console
        self._seen = 0
        self._last_shown = 0.0

    async def report(self, state: RunState) -> None:
        events = await self._service.runs.events(state.run_id, self._seen, 100)
        for event in events:
            self._seen = event.seq
            self._show(event, state)
        if not events and state.elapsed_seconds - self._last_shown < _QUIET_SECONDS:
            return
        self._last_shown = state.elapsed_seconds
        if not events:
            self._console.print(f"[dim]{progress_line(state)}[/dim]")

    def _show(self, event: Event, state: RunState) -> None:
        match event.type:
            case "iteration_start":
                self._console.print(f"\n[bold]{event.preview}[/bold]  [dim]{_so_far(state)}[/dim]")
            case "code_generated":
                code = str(event.detail.get("code", ""))
                self._console.print(
                    Syntax(code, "python", background_color="default", word_wrap=True)
                )
            case "code_executed" if event.detail.get("output_chars") or event.detail.get("error"):
                output = str(event.detail.get("output", ""))[:_SHOWN_CHARS]
                self._console.print(escape(output), style="cyan")
            case "sub_calls_started" | "sub_calls_finished" | "warning":
                self._console.print(f"[dim]{escape(event.preview)}[/dim]")
            case _:
                pass  # the question is on the screen, and the answer will be


def _so_far(state: RunState) -> str:
    return progress_line(state).partition(" · ")[2]


async def _show_outcome(service: Service, console: Console, state: RunState) -> None:
    if state.error:
        console.print(escape(f"{state.error['message']} {state.error['fix']}"), style="red")
    console.print(f"\nAnswer: {escape(str(state.answer))}\n", style="bold green")
    figures = state.figures
    console.print(
        f"{state.status}: {figures.iterations} turns, {figures.sub_calls} sub-calls "
        f"({figures.cached_sub_calls} more from the cache), {figures.input_tokens:,} tokens in, "
        f"{figures.output_tokens:,} out, {state.elapsed_seconds:.1f} s."
    )
    table = Table("variable", "type", "size", "preview", title="The REPL's variables")
    for variable in await service.runs.variables(state.run_id):
        table.add_row(
            *(escape(text) for text in (variable.name, variable.type, str(variable.size))),
            escape(variable.preview[:60]),
        )
    console.print(table)
    console.print(f"Kept: context and run {state.run_id}, readable from any assistant.")
