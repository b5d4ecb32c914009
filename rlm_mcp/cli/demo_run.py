"""The work of `rlm-mcp demo`: a question from text to answer, shown on the terminal."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

from rlm_mcp.cli.demo_script import (
    PASSPHRASE,
    QUESTION,
    demo_lines,
    is_right,
    scripted_reply,
)
from rlm_mcp.cli.display import EventPrinter, show_outcome
from rlm_mcp.cli.terminal import results
from rlm_mcp.cli.wording import error_line
from rlm_mcp.service.contexts.requests import NewText
from rlm_mcp.service.local_models import LOCAL_SERVERS, find_local_model
from rlm_mcp.service.opening import open_service
from rlm_mcp.service.runs.questions import Question
from rlm_mcp.service.runs.runs import RunState
from rlm_mcp.service.service import Service
from rlm_mcp.settings import Settings
from rlm_mcp.testing.scripted_model import open_scripted_model

DEMO_SECONDS = 900.0


# How a command is started here: in a clone it is on no PATH.
_IS_CLONE = (Path(__file__).parents[2] / "pyproject.toml").is_file()
_COMMAND = "uv run rlm-mcp" if _IS_CLONE else "rlm-mcp"


@dataclass(frozen=True)
class _ChosenModel:
    settings: Settings
    how: str


async def run_demo(settings: Settings, servers: Sequence[tuple[str, int]] = LOCAL_SERVERS) -> bool:
    """Store a text, ask a question over it, and show progress, answer, figures and variables.

    Args:
        settings: a model named there is used.
        servers: else the first of these that answers, by name and port on this machine.

    Returns whether there was an answer.
    """
    console = results()
    console.soft_wrap = not console.is_terminal
    async with _model(settings, servers) as chosen, open_service(chosen.settings) as service:
        console.print(escape(chosen.how), style="bold")
        handle = await _store_text(service, console)
        console.print(f"\nQuestion: {escape(QUESTION)}", style="bold")
        run_id = (await service.runs.begin(Question(QUESTION, contexts=(handle,)))).run_id
        state = await service.runs.wait(
            run_id, DEMO_SECONDS, EventPrinter(service.runs, console).report
        )
        await _show_outcome(service, console, state)
        console.print(
            f"Kept: the text {handle} and the run {run_id}, readable from any assistant. To look "
            f"at the run in a browser: {_COMMAND} ui {run_id}"
        )
    return state.answer is not None


@asynccontextmanager
async def _model(
    settings: Settings, servers: Sequence[tuple[str, int]]
) -> AsyncGenerator[_ChosenModel]:
    """Choose the configured model, else a local one, else a scripted one."""
    if settings.root_model:
        yield _ChosenModel(settings, f"Model: {settings.root_model}, as configured.")
        return
    found = await anyio.to_thread.run_sync(find_local_model, servers)
    if found is not None:
        update = {"base_url": found.base_url, "root_model": found.name, "api_key": None}
        how = f"Model: {found.name}, served by {found.server}."
        yield _ChosenModel(settings.model_copy(update=update), how)
        return
    async with open_scripted_model(scripted_reply) as scripted:
        update = {"base_url": scripted.base_url, "root_model": "scripted", "api_key": None}
        yield _ChosenModel(
            settings.model_copy(update=update),
            "Model: SCRIPTED. No model is configured and none runs at a usual local address, so "
            "the replies below were written beforehand; everything else is real. To use a real "
            "model, set RLM_MCP_ROOT_MODEL and RLM_MCP_API_KEY (or RLM_MCP_BASE_URL), or start "
            "Ollama.",
        )


async def _store_text(service: Service, console: Console) -> str:
    text = await anyio.to_thread.run_sync(lambda: "".join(demo_lines()))
    added = await service.contexts.add(NewText(text=text, name="harbour log"), _silent)
    console.print(
        f"Stored as {added.handle}: {added.chars:,} characters, about "
        f"{added.estimated_tokens:,} tokens."
    )
    return str(added.handle)


async def _silent(done: int, total: int) -> None:
    """No progress is shown: the text is stored in a moment."""


async def _show_outcome(service: Service, console: Console, state: RunState) -> None:
    if state.error:
        console.print(error_line(state.error), style="red", markup=False)
    console.print(f"\nAnswer: {escape(str(state.answer))}\n", style="bold green")
    if state.answer is not None and not is_right(state.answer):
        console.print(f"This is not right: the words are {' '.join(PASSPHRASE)}.\n", style="red")
    show_outcome(console, state)
    columns = [Column(name, no_wrap=True) for name in ("variable", "type", "size")]
    table = Table(*columns, "preview", title="The REPL's variables")
    for variable in await service.runs.variables(state.run_id):
        table.add_row(
            *(escape(text) for text in (variable.name, variable.type, f"{variable.size:,}")),
            Text(variable.preview[:60], no_wrap=True, overflow="ellipsis"),
        )
    console.print(table)
