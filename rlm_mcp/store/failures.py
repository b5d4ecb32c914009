"""What SQLite and the file system complain of, told in this package's errors."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from rlm_mcp.errors import StoreBusyError, StoreError
from rlm_mcp.store.room import disk_full

_WRITABLE = "Make the directory and its files writable, or set RLM_MCP_DATA_DIR to another one."
_NOT_OURS = "Move the file away, or set RLM_MCP_DATA_DIR to another directory."

# Primary result codes: https://www.sqlite.org/rescode.html
_BY_CODE = {
    sqlite3.SQLITE_READONLY: ("The database {path!r} cannot be written.", _WRITABLE),
    sqlite3.SQLITE_CANTOPEN: ("The database {path!r} cannot be opened.", _WRITABLE),
    sqlite3.SQLITE_NOTADB: ("The file {path!r} is not a database; it was left alone.", _NOT_OURS),
    sqlite3.SQLITE_CORRUPT: (
        "The database {path!r} is damaged: {error}.",
        "Restore it from a backup, or move it away to begin with an empty one.",
    ),
}
_FULL = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def translated(path: Path) -> Generator[None]:
    """Turn errors of SQLite and of the file system into `StoreError`, which names `path`."""
    try:
        yield
    except sqlite3.Error as error:
        raise _from_sqlite(error, path) from error
    except OSError as error:
        raise _from_system(error, path) from error


def busy(path: Path) -> StoreBusyError:
    """Make the error for a write whose turn did not come in time."""
    return StoreBusyError(
        f"The database {str(path)!r} stayed busy with other work; nothing was changed.",
        fix="Try again; if it lasts, look for a process that hangs with the file open.",
    )


def _from_sqlite(error: sqlite3.Error, path: Path) -> StoreError:
    # Errors of the Python module itself, such as a closed connection, carry no code.
    code: int = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_BUSY:
        return busy(path)
    if code == sqlite3.SQLITE_FULL:
        return disk_full(path)
    unknown = ("The database {path!r} could not do its work: {error}.", "")
    message, fix = _BY_CODE.get(code, unknown)
    return StoreError(message.format(path=str(path), error=error), fix=fix)


def _from_system(error: OSError, path: Path) -> StoreError:
    if error.errno in _FULL:
        return disk_full(path)
    return StoreError(f"The database {str(path)!r} cannot be opened: {error}.", fix=_WRITABLE)
