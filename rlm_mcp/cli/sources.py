"""Stores the texts that a command names, and shows a progress bar."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager, nullcontext, suppress

import anyio
import anyio.to_thread
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from rlm_mcp.cli.commands.options import STANDARD_INPUT
from rlm_mcp.cli.output import in_line
from rlm_mcp.cli.terminal import messages
from rlm_mcp.errors import NotTextError
from rlm_mcp.service.contexts.added import Added
from rlm_mcp.service.contexts.contexts import ReportBytes
from rlm_mcp.service.contexts.requests import NewText
from rlm_mcp.service.contexts.transfers import Body
from rlm_mcp.service.contexts.writing import no_report
from rlm_mcp.service.service import Service
from rlm_mcp.text import byte_size

_STREAM = "standard input"
_READ_BYTES = 1 << 16
_PART_BYTES = 4 << 20
_LINE_SECONDS = 5.0


async def add_source(service: Service, source: NewText, *, is_shown: bool = True) -> Added:
    """Store what a path names; the path `-` is standard input, and so is `/dev/stdin`.

    Args:
        is_shown: whether progress is.

    Raises:
        InvalidInputError: it cannot be read, or is not text.
        StoreError: the database could not store it.
    """
    is_stream = source.path in STANDARD_INPUT
    shown = _STREAM if is_stream else source.path
    with _open_progress(shown) if is_shown else nullcontext(no_report) as report:
        if is_stream:
            body = Body(_reported(read_standard_input(), report), is_bounded=False)
            return await service.transfers.receive(source.name or _STREAM, body)
        return await service.contexts.add(source, report)


async def _reported(pieces: AsyncIterator[bytes], report: ReportBytes) -> AsyncIterator[bytes]:
    done = 0
    async for piece in pieces:
        yield piece
        done += len(piece)
        await report(done, 0)


async def read_standard_input() -> AsyncIterator[bytes]:
    """Yield what arrives, some megabytes at a time."""
    descriptor = sys.stdin.fileno()
    part, is_empty = bytearray(), True
    while True:
        # A blocking read could not be interrupted. A regular file cannot be waited for: it raises.
        with suppress(OSError):
            await anyio.wait_readable(descriptor)
        data = await anyio.to_thread.run_sync(os.read, descriptor, _READ_BYTES)
        part += data
        if part and (not data or len(part) >= _PART_BYTES):
            is_empty = False
            yield bytes(part)
            part.clear()
        if not data and is_empty:
            raise NotTextError("Standard input is empty.", fix="Pipe a text into the command.")
        if not data:
            return


@contextmanager
def _open_progress(source: str) -> Generator[ReportBytes]:
    """Show a progress bar on a terminal, else a line every five seconds."""
    console = messages()
    if not console.is_terminal:
        yield _ProgressLines(source).report
        return
    label = f"storing {_STREAM}" if source == _STREAM else "storing"
    columns = (TextColumn(label), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(label, total=None)

        async def report(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total or None)

        yield report


class _ProgressLines:
    def __init__(self, source: str) -> None:
        self._source = source
        self._next = anyio.current_time() + _LINE_SECONDS

    async def report(self, done: int, total: int) -> None:
        if anyio.current_time() < self._next:
            return
        self._next = anyio.current_time() + _LINE_SECONDS
        of = f" of {byte_size(total)}" if total else ""
        shown = f"storing {in_line(self._source)}: {byte_size(done)}{of}"
        messages().print(shown, markup=False)
