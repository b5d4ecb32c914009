"""The host lays a text out in a file, and passes the descriptor to a REPL's process.

The file is an anonymous one in memory, or one that the text's source keeps.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from functools import partial

import anyio
from anyio import from_thread, to_thread

from rlm_mcp.errors import SandboxError, first_of
from rlm_mcp.sandbox.layout import TEXT_START, Layout, table
from rlm_mcp.sandbox.types import ContextSource, Divisible, LaidOutText
from rlm_mcp.sandbox.wire import utf8

if sys.platform != "win32":  # the host imports this everywhere
    import fcntl

DIVIDED_BYTES = 16 << 20  # smaller texts are written in a few milliseconds
_SEALS = ("F_SEAL_SHRINK", "F_SEAL_GROW", "F_SEAL_WRITE", "F_SEAL_SEAL")


async def write_text(source: ContextSource) -> tuple[int, Layout]:
    """Lay a source out in a file, or find it in one; the caller closes the descriptor.

    Raises:
        SandboxError: the source gave another number of bytes than announced, or memory is full.
    """
    if isinstance(source, LaidOutText):
        kept = await source.lay_out(partial(_write_kept, source))
        if kept is not None:
            return kept
    descriptor, layout, tail = await to_thread.run_sync(_begin, source)
    try:
        return descriptor, await _write(descriptor, source, layout, tail)
    except OSError as error:
        os.close(descriptor)
        raise SandboxError(
            f"no room for a context of {layout.text_bytes:,} bytes: {error.strerror!r}",
            fix="Free memory, or ask over fewer contexts.",
        ) from error
    except BaseException:  # cancelled between two chunks
        os.close(descriptor)
        raise


def _begin(source: ContextSource) -> tuple[int, Layout, bytes]:
    """Create the file; return its descriptor, its layout, and the part after the text."""
    layout, tail = measured(source)
    return _anonymous_file(), layout, tail


async def _write_kept(source: ContextSource, descriptor: int) -> Layout:
    """Write a source into a file of its own; return the layout of what was written.

    Raises:
        OSError: there is no room.
        SandboxError: the source gave another number of bytes than announced.
    """
    layout, tail = await to_thread.run_sync(measured, source)
    return await _write(descriptor, source, layout, tail)


async def _write(descriptor: int, source: ContextSource, layout: Layout, tail: bytes) -> Layout:
    is_ascii = await _write_parts(descriptor, source, layout.text_bytes)
    await to_thread.run_sync(_finish, descriptor, tail, TEXT_START + layout.text_bytes)
    return replace(layout, is_ascii=is_ascii)


def measured(source: ContextSource) -> tuple[Layout, bytes]:
    """Return the layout of the file, and the part after the text. Blocking."""
    lengths = source.byte_lengths
    names = [utf8(name) for name in source.names]
    names += [b""] * (len(lengths) - len(names))
    layout = Layout(sum(lengths), sum(map(len, names)), len(lengths), source.is_list)
    tail = (b"\0", *names, table(lengths), table(map(len, names)), bytes(8))
    return layout, b"".join(tail)


async def _write_parts(descriptor: int, source: ContextSource, expected: int) -> bool:
    """Write the text, in two threads if it is large; return whether it is ASCII."""
    parts = [_placed(source.chunks())]
    if isinstance(source, Divisible) and expected >= DIVIDED_BYTES:
        # Most of the time goes into allocating the file's pages. A reader and a writer thread were
        # not faster, nor was allocating ahead.
        middle = expected // 2
        parts = [source.chunks_between(0, middle), source.chunks_between(middle, expected)]
    found: list[tuple[int, bool]] = []

    async def write(part: Iterator[tuple[int, bytes]]) -> None:
        found.append(await to_thread.run_sync(_write_part, descriptor, part))

    try:
        async with anyio.create_task_group() as tasks:
            for part in parts:
                tasks.start_soon(write, part)
    except ExceptionGroup as group:  # the first error without the wrapping
        raise first_of(group) from None
    written = sum(size for size, _ in found)
    if written != expected:
        raise SandboxError(f"context {source.key!r} gave {written:,} bytes of {expected:,}")
    return all(is_ascii for _, is_ascii in found)


def _placed(chunks: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    place = 0
    try:
        for chunk in chunks:
            yield place, chunk
            place += len(chunk)
    finally:
        _close(chunks)


def _write_part(descriptor: int, part: Iterator[tuple[int, bytes]]) -> tuple[int, bool]:
    """Write chunks at their offsets; return the bytes written, and whether all is ASCII."""
    written = 0
    is_ascii = True
    try:
        for place, chunk in part:
            from_thread.check_cancelled()
            _write_at(descriptor, chunk, TEXT_START + place)
            written += len(chunk)
            is_ascii = is_ascii and chunk.isascii()
    finally:
        _close(part)
    return written, is_ascii


def _close(part: Iterator[object]) -> None:
    """Close a generator that was not exhausted in this thread, else it closes on the event loop."""
    if isinstance(part, Generator):
        part.close()


def _finish(descriptor: int, tail: bytes, place: int) -> None:
    _write_at(descriptor, tail, place)
    _seal(descriptor)


def _write_at(descriptor: int, data: bytes, place: int) -> None:
    assert sys.platform != "win32"  # noqa: S101  # texts go through a socket there
    view = memoryview(data)
    while view:
        size = os.pwrite(descriptor, view, place)
        view, place = view[size:], place + size


def _anonymous_file() -> int:
    if sys.platform == "linux":
        return os.memfd_create("context", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    descriptor, path = tempfile.mkstemp(prefix="rlm-mcp-")
    os.unlink(path)  # noqa: PTH108  # in a worker thread, a file just created
    return descriptor


def _seal(descriptor: int) -> None:
    """Seal the file against changes, where the system can."""
    assert sys.platform != "win32"  # noqa: S101  # texts go through a socket there
    seals: Sequence[int] = [getattr(fcntl, name, 0) for name in _SEALS]
    with contextlib.suppress(OSError):  # only a file in memory has seals
        fcntl.fcntl(descriptor, getattr(fcntl, "F_ADD_SEALS", 0), sum(seals))
