"""The host writes a text into an anonymous file, whose descriptor a REPL's process gets."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace

from anyio import from_thread, to_thread

from rlm_mcp.errors import SandboxError
from rlm_mcp.sandbox.documents import Layout, table
from rlm_mcp.sandbox.mapped import TEXT_START
from rlm_mcp.sandbox.types import ContextSource
from rlm_mcp.sandbox.wire import utf8

if sys.platform != "win32":  # the host imports this everywhere
    import fcntl

_SEALS = ("F_SEAL_SHRINK", "F_SEAL_GROW", "F_SEAL_WRITE", "F_SEAL_SEAL")


async def write_text(source: ContextSource) -> tuple[int, Layout]:
    """Write a source into an anonymous file; the caller closes the descriptor.

    Raises:
        SandboxError: the source gave another number of bytes than it announced, or there is no
            room for it.
    """
    return await to_thread.run_sync(_write_text, source)


def _write_text(source: ContextSource) -> tuple[int, Layout]:
    lengths = source.byte_lengths
    names = [utf8(name) for name in source.names]
    names += [b""] * (len(lengths) - len(names))
    layout = Layout(sum(lengths), sum(map(len, names)), len(lengths), source.is_list)
    descriptor = _anonymous_file()
    try:
        _write_all(descriptor, bytes(TEXT_START))
        layout = replace(layout, is_ascii=_write_chunks(descriptor, source, layout.text_bytes))
        tail = (b"\0", *names, table(lengths), table(map(len, names)), bytes(8))
        _write_all(descriptor, b"".join(tail))
        _seal(descriptor)
    except OSError as error:
        os.close(descriptor)
        raise SandboxError(
            f"no room for a context of {layout.text_bytes:,} bytes: {error.strerror!r}",
            fix="Free memory, or ask over fewer contexts.",
        ) from error
    except BaseException:  # cancelled between two chunks
        os.close(descriptor)
        raise
    return descriptor, layout


def _write_chunks(descriptor: int, source: ContextSource, expected: int) -> bool:
    """Write the text; tell whether it is ASCII."""
    written = 0
    is_ascii = True
    for chunk in source.chunks():  # one after the other: a thread that writes beside gains nothing
        from_thread.check_cancelled()
        _write_all(descriptor, chunk)
        written += len(chunk)
        is_ascii = is_ascii and chunk.isascii()
    if written != expected:
        raise SandboxError(f"context {source.key!r} gave {written:,} bytes of {expected:,}")
    return is_ascii


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("context", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    descriptor, path = tempfile.mkstemp(prefix="rlm-mcp-")
    os.unlink(path)  # noqa: PTH108  # in a worker thread, a name that was just made
    return descriptor


def _seal(descriptor: int) -> None:
    """Make the file unchangeable for everybody, where the system can."""
    seals: Sequence[int] = [getattr(fcntl, name, 0) for name in _SEALS]
    with contextlib.suppress(OSError):  # a temporary file has no seals
        fcntl.fcntl(descriptor, getattr(fcntl, "F_ADD_SEALS", 0), sum(seals))
