"""Stores the texts that a command names, and shows a progress bar."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager, suppress

import anyio
import anyio.to_thread
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from rlm_mcp.cli.terminal import messages
from rlm_mcp.errors import NotTextError
from rlm_mcp.service.contexts.contexts import Added, ContextService, ReportBytes
from rlm_mcp.service.contexts.requests import NewText

STANDARD_INPUT = "-"
_READ_BYTES = 1 << 16
_PART_BYTES = 4 << 20
_LINE_SECONDS = 5.0


async def add_source(contexts: ContextService, source: str, name: str = "") -> Added:
    """Store what a path names; `-` is standard input.

    Raises:
        InvalidInputError: it cannot be read, or is not text.
        StoreError: the database could not take it.
    """
    with _open_progress(source) as report:
        if source == STANDARD_INPUT:
            return await _add_standard_input(contexts, name or "standard input", report)
        return await contexts.add(NewText(path=source, name=name), report)


async def _add_standard_input(contexts: ContextService, name: str, report: ReportBytes) -> Added:
    """Store standard input as it arrives, whatever its size."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    upload_id, done = "", 0
    async for data in _standard_input():
        if b"\0" in data:
            raise NotTextError("Standard input is binary, not text.")
        text = decoder.decode(data)
        given = NewText(text, name="" if upload_id else name, upload_id=upload_id, is_final=False)
        upload_id = str((await contexts.add(given, report)).upload_id)
        done += len(data)
        await report(done, 0)
    if not upload_id:
        raise NotTextError("Standard input is empty.", fix="Pipe a text into the command.")
    last = NewText(decoder.decode(b"", final=True), upload_id=upload_id)
    return await contexts.add(last, report)


async def _standard_input() -> AsyncIterator[bytes]:
    """Yield what arrives, some megabytes at a time."""
    descriptor = sys.stdin.fileno()
    part = bytearray()
    while True:
        # A blocking read could not be interrupted. A regular file cannot be waited for: it raises.
        with suppress(OSError):
            await anyio.wait_readable(descriptor)
        data = await anyio.to_thread.run_sync(os.read, descriptor, _READ_BYTES)
        part += data
        if part and (not data or len(part) >= _PART_BYTES):
            yield bytes(part)
            part.clear()
        if not data:
            return


@contextmanager
def _open_progress(source: str) -> Generator[ReportBytes]:
    """Show a progress bar on a terminal, else a line every five seconds."""
    console = messages()
    if not console.is_terminal:
        yield _ProgressLines(source).report
        return
    label = "storing standard input" if source == STANDARD_INPUT else "storing"
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
        of = f" of {total / 1e6:.0f}" if total else ""
        messages().print(f"storing {self._source}: {done / 1e6:.0f}{of} MB", markup=False)
