"""Output: results to stdout, everything else to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment
from rich.table import Table

from rlm_mcp.cli.output import say, visible
from rlm_mcp.server.sendable import structured

if TYPE_CHECKING:
    from pydantic import BaseModel

_GAP = 2
_LEAST_CHARS = 20  # of the last column


class VisibleConsole(Console):
    """A console that shows the controls of what it is given, and sends none but its own."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """Render something, its controls written out."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


def results() -> Console:
    """A console for results, on the current stdout."""
    return VisibleConsole(highlight=False)


def messages() -> Console:
    """A console for messages, on the current stderr."""
    console = VisibleConsole(stderr=True, highlight=False)
    console.soft_wrap = not console.is_terminal
    return console


def print_json(value: BaseModel) -> None:
    """Print a structured result as JSON."""
    say(json.dumps(structured(value), ensure_ascii=False, indent=2))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows: fitted to a terminal, the last column cut; else as tab-separated lines.

    Every other column is shown whole, since ids are copied; a terminal too narrow for that wraps.
    """
    given = [[" ".join(cell.split()) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in given:
            say("\t".join(row))
        return
    cells = [list(map(visible, row)) for row in given]
    console = results()
    whole = [max(map(cell_len, column)) for column in zip(columns, *cells, strict=True)][:-1]
    used = sum(whole) + _GAP * len(whole)
    console.width = max(console.width, used + _LEAST_CHARS)
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, _GAP, 0, 0))
    for column in columns[:-1]:
        table.add_column(column, no_wrap=True)
    room = console.width - used
    table.add_column(columns[-1], no_wrap=True, overflow="ellipsis", max_width=room)
    for row in cells:
        table.add_row(*map(escape, row))
    console.print(table)
