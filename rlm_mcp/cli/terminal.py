"""Output: results to stdout, everything else to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment
from rich.table import Table

from rlm_mcp.cli.output import say, visible
from rlm_mcp.server.sendable import structured

if TYPE_CHECKING:
    from pydantic import BaseModel


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
    """Print rows: fitted to a terminal, the last column cut; else as tab-separated lines."""
    if not sys.stdout.isatty():
        for row in rows:
            say("\t".join(" ".join(cell.split()) for cell in row))
        return
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for column in columns[:-1]:
        table.add_column(column, no_wrap=True)
    table.add_column(columns[-1], no_wrap=True, overflow="ellipsis", ratio=1)
    for row in rows:
        table.add_row(*(escape(" ".join(cell.split())) for cell in row))
    results().print(table)
