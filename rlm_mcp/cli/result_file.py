"""The file of a batch's results: one batch at a time writes to it, and only once it has results."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

import anyio
import anyio.to_thread

from rlm_mcp.errors import InvalidInputError

if sys.platform != "win32":
    import fcntl


@asynccontextmanager
async def open_result_file(path: Path) -> AsyncGenerator[Callable[[str], Awaitable[None]]]:
    """Open a file, and yield what appends a line to it.

    What it held is there until the first line comes: who stops before that loses nothing.

    Raises:
        InvalidInputError: it cannot be written, or another batch writes to it.
    """
    try:
        file = await anyio.open_file(path, "ab", buffering=0)
    except OSError as error:
        raise InvalidInputError(
            f"The file {str(path)!r} cannot be written: {error.strerror}.",
            fix="Name another file with --out.",
        ) from error
    async with file:
        if not await anyio.to_thread.run_sync(_is_ours, file.wrapped):
            raise InvalidInputError(
                f"Another batch writes its results to {str(path)!r}.",
                fix="Wait for its end, or name another file with --out.",
            )
        yield _Results(file, path).write


class _Results:
    def __init__(self, file: anyio.AsyncFile[bytes], path: Path) -> None:
        self._file = file
        self._path = path
        self._is_begun = False

    async def write(self, line: str) -> None:
        try:
            if not self._is_begun:
                await anyio.to_thread.run_sync(_empty, self._file.wrapped)
                self._is_begun = True
            data = line.encode()
            while data:
                data = data[await self._file.write(data) :]
        except OSError as error:
            raise InvalidInputError(
                f"The results cannot be written to {str(self._path)!r}: {error.strerror}.",
                fix="Make room there, or name another file with --out, and give the command again: "
                "nothing on record is paid twice.",
            ) from error


def _is_regular(file: IO[bytes]) -> bool:
    return stat.S_ISREG(os.fstat(file.fileno()).st_mode)


def _empty(file: IO[bytes]) -> None:
    if _is_regular(file):
        file.truncate(0)


def _is_ours(file: IO[bytes]) -> bool:
    """Lock a file for as long as it is open; return False where somebody else has."""
    if sys.platform == "win32" or not _is_regular(file):
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system that has no locks
        return True
    return True
