"""The work of `rlm-mcp runs`: list, show, cancel and save recorded runs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio

from rlm_mcp.cli.commands.options import Launch
from rlm_mcp.cli.display import EventPrinter, show_outcome
from rlm_mcp.cli.output import say
from rlm_mcp.cli.terminal import messages, print_json, print_table, results
from rlm_mcp.errors import InvalidInputError
from rlm_mcp.server.view.run_file import run_file
from rlm_mcp.server.views import (
    asked_of,
    run_page,
    run_view,
    trace_view,
    variable_view,
    variables_view,
)
from rlm_mcp.service.opening import open_service

_TRACE_LIMIT = 100
_READ_CHARS = 50_000


async def list_runs(launch: Launch, asked: Mapping[str, Any], as_json: bool) -> None:
    """Print runs, newest first.

    Raises:
        InvalidInputError: the cursor is not one that this list printed.
    """
    async with open_service(launch.settings, purpose=launch.to_look) as service:
        page = run_page(await service.runs.list(**asked))
    if as_json:
        print_json(page)
        return
    now = datetime.now(UTC)
    print_table(
        ("run", "status", "began", "question"),
        ((one.run_id, one.status, _ago(one.created_at, now), asked_of(one)) for one in page.runs),
    )
    if not page.runs:
        say('No runs yet. Ask with: rlm-mcp query "..." --file PATH', err=True)
    elif page.next_cursor:
        say(f"More with: --cursor {page.next_cursor}", err=True)


def _ago(at: str, now: datetime) -> str:
    seconds = (now - datetime.fromisoformat(at)).total_seconds()
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit} ago"
    return "now"


async def show_trace(launch: Launch, run_id: str, after: int, as_json: bool) -> None:
    """Print a run's log.

    Raises:
        NotFoundError: there is no such run.
    """
    async with open_service(launch.settings, purpose=launch.to_look) as service:
        if as_json:
            print_json(
                trace_view(await service.runs.events(run_id, after, _TRACE_LIMIT + 1), _TRACE_LIMIT)
            )
            return
        state = await service.runs.state(run_id)
        await EventPrinter(service.runs, results(), after).report(state)
    show_outcome(messages(), state)


async def show_variables(launch: Launch, run_id: str, as_json: bool) -> None:
    """List a run's variables.

    Raises:
        NotFoundError: there is no such run.
    """
    async with open_service(launch.settings, purpose=launch.to_look) as service:
        found = await service.runs.variables(run_id)
    if as_json:
        print_json(variables_view(found))
        return
    print_table(
        ("variable", "type", "size", "preview"),
        ((one.name, one.type, f"{one.size:,}", one.preview) for one in found),
    )


async def show_variable(launch: Launch, run_id: str, name: str, as_json: bool) -> None:
    """Print the whole text of a variable; as JSON, its beginning.

    Raises:
        NotFoundError: there is no such run or variable.
    """
    async with open_service(launch.settings, purpose=launch.to_look) as service:
        piece = await service.runs.variable(run_id, name, 0, _READ_CHARS)
        if as_json:
            print_json(variable_view(name, piece))
            return
        say(piece.text, nl=False)
        while piece.end < piece.total:
            piece = await service.runs.variable(run_id, name, piece.end, _READ_CHARS)
            say(piece.text, nl=False)
    say()


async def cancel_run(launch: Launch, run_id: str, as_json: bool) -> None:
    """Stop a run.

    Raises:
        NotFoundError: there is no such run.
        StoreBusyError: another process is writing and does not end.
    """
    async with open_service(launch.settings, purpose=launch.to_look) as service:
        state = await service.runs.cancel(run_id)
    if as_json:
        print_json(run_view(state))
    else:
        show_outcome(messages(), state)


async def export_run(launch: Launch, run_id: str, wanted: str, file: str, has_texts: bool) -> None:
    """Write a run as one file.

    Args:
        wanted: one of `FORMATS`.
        file: where; `-` for standard output, empty for a name of the run's own.

    Raises:
        NotFoundError: there is no such run.
        InvalidInputError: the file cannot be written.
    """
    async with open_service(launch.settings, purpose=launch.to_look) as service:
        made = await run_file(service, run_id, wanted, has_texts=has_texts)
        if file == "-":
            async for piece in made.pieces:
                say(piece, nl=False)
            return
        path = Path(file or made.name)
        try:
            async with await anyio.open_file(path, "w", encoding="utf-8") as opened:
                async for piece in made.pieces:
                    await opened.write(piece)
        except OSError as error:
            raise InvalidInputError(
                f"The file {str(path)!r} cannot be written: {error.strerror}.",
                fix="Name another file.",
            ) from error
    say(path)
