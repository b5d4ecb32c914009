"""Connections to the file: how it is made, opened and written to, and what its errors mean."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from rlm_mcp.errors import StoreBusyError, StoreError, StoreFullError
from rlm_mcp.store.schema_steps import STEPS, applied_steps

_WRITABLE = "Make the directory and its files writable, or set RLM_MCP_DATA_DIR to another one."
_NOT_OURS = "Move the file away, or set RLM_MCP_DATA_DIR to another directory."

# Primary result codes: https://www.sqlite.org/rescode.html
_BY_CODE = {
    sqlite3.SQLITE_READONLY: ("The database {path!r} cannot be written.", _WRITABLE),
    sqlite3.SQLITE_CANTOPEN: ("The database {path!r} cannot be opened.", _WRITABLE),
    sqlite3.SQLITE_NOTADB: ("The file {path!r} is not a database; it was not changed.", _NOT_OURS),
    sqlite3.SQLITE_CORRUPT: (
        "The database {path!r} is damaged: {error}.",
        "Restore it from a backup, or move it away to start with an empty one.",
    ),
}
_FULL = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def translated(path: Path, *, names_path: bool = True) -> Generator[None]:
    """Turn errors of SQLite and of the file system into `StoreError`, which names `path`.

    Args:
        names_path: otherwise the error names the file alone: its reader may be elsewhere, and
            learns nothing of this machine's directories.
    """
    try:
        try:
            yield
        except sqlite3.Error as error:
            raise _from_sqlite(error, path) from error
        except OSError as error:
            raise _from_system(error, path) from error
    except StoreError as error:
        if not names_path:
            without_directory(error, path)
        raise


def without_directory(error: StoreError, path: Path) -> None:
    """Leave the directory of a file out of what an error says."""
    error.message = error.message.replace(f"{path.parent}{os.sep}", "")
    error.args = (error.message,)


def busy(path: Path) -> StoreBusyError:
    """Return the error for a write that waited too long."""
    return StoreBusyError(
        f"The database {str(path)!r} was busy with other writes for too long; nothing was changed.",
        fix="Try again; if it persists, look for a hanging process that has the file open.",
    )


def identity_of(path: Path) -> tuple[int, int]:
    """Return what tells a file from another of the same name: its device and its inode; blocking.

    Raises:
        OSError: there is no such file.
    """
    found = path.stat()
    return found.st_dev, found.st_ino


def require_same_file(path: Path, identity: tuple[int, int]) -> None:
    """Refuse to continue when a file was deleted, moved, replaced or emptied while it was open.

    SQLite keeps writing into a file that no restart finds.

    Raises:
        StoreError: with what to do.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        found = None
    if found is None or (found.st_dev, found.st_ino) != identity or not found.st_size:
        what = "is gone" if found is None else "was emptied or replaced"
        raise StoreError(
            f"The database {str(path)!r} {what} while the server was using it; nothing was stored.",
            fix="Stop the server, put the file back (or a backup of it), and start it again.",
        )


def _from_sqlite(error: sqlite3.Error, path: Path) -> StoreError:
    # Errors of the Python module itself, such as a closed connection, carry no code.
    code: int = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_BUSY:
        return busy(path)
    if code == sqlite3.SQLITE_FULL:
        return disk_full(path)
    if code == sqlite3.SQLITE_CANTOPEN and not _has_descriptors():
        return StoreError(
            "The database cannot be read: the server has too many files open.",
            fix="Try again in a moment; the operator can raise the limit (`ulimit -n`).",
        )
    unknown = ("The database {path!r} failed: {error}.", "")
    message, fix = _BY_CODE.get(code, unknown)
    return StoreError(message.format(path=str(path), error=error), fix=fix)


def _has_descriptors() -> bool:
    """Whether another file may be opened; SQLite does not say why it could not open one."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno not in (errno.EMFILE, errno.ENFILE)
    return True


def _from_system(error: OSError, path: Path) -> StoreError:
    if error.errno in _FULL:
        return disk_full(path)
    return StoreError(f"The database {str(path)!r} cannot be opened: {error}.", fix=_WRITABLE)


TEXT_LEAVES_BYTES = 64_000_000
LOG_LEAVES_BYTES = 16_000_000
# Bytes that a text takes in the file, by byte of its own.
SPREAD = 1.01


def require_room(path: Path, need_bytes: int, leave_bytes: int) -> None:
    """Check that enough room is left for a write; blocks.

    Args:
        path: the database.
        need_bytes: what is about to be written.
        leave_bytes: what must be free afterwards.

    Raises:
        StoreFullError: with what is free, and what is needed.
    """
    free = free_bytes(path)
    if free < need_bytes + leave_bytes:
        raise StoreFullError(
            f"The disk that holds {str(path)!r} has {_megabytes(free)} free; "
            f"{_megabytes(need_bytes)} are to be written, and {_megabytes(leave_bytes)} are kept "
            "so that runs can end and texts be deleted. Nothing was lost.",
            fix=f"Free {_megabytes(need_bytes + leave_bytes - free)} there, for instance with "
            "rlm_context_delete, or set RLM_MCP_DATA_DIR to a directory on a larger disk.",
        )


def disk_full(path: Path) -> StoreFullError:
    """Return the error for a full disk."""
    return StoreFullError(
        f"The disk that holds {str(path)!r} is full: {_megabytes(free_bytes(path))} are free. "
        "Nothing was lost.",
        fix=f"Free {_megabytes(TEXT_LEAVES_BYTES)} there, or set RLM_MCP_DATA_DIR to a directory "
        "on a disk with room.",
    )


def free_bytes(path: Path) -> int:
    """Bytes that may still be written to the disk of a file, or of its nearest directory."""
    place = next((one for one in (path, *path.parents) if one.exists()), path)
    return shutil.disk_usage(place).free


def _megabytes(size: int) -> str:
    return f"{-(-size // 100_000) / 10:g} MB"


# Chunks of 1 MiB are read twice as fast in pages of 8 KiB as in the default ones of 4 KiB;
# 16 KiB adds little, and makes the many small commits of a run's log more expensive.
PAGE_BYTES = 8192
_PAGES_BEFORE_CHECKPOINT = (16 << 20) // PAGE_BYTES


def open_writer(path: Path, busy_seconds: float) -> sqlite3.Connection:
    """Open the file to write, made with its directory where missing, its schema up to date.

    Raises:
        StoreError: the place cannot be written, or the file is not a database of rlm-mcp.
    """
    with translated(path):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with suppress(FileExistsError):
            path.touch(mode=0o600, exist_ok=False)
        connection = connect(path, busy_seconds)
        try:
            _migrate(connection, path, time.monotonic() + busy_seconds)
        except BaseException:
            connection.close()
            raise
        return connection


def _migrate(connection: sqlite3.Connection, path: Path, deadline: float) -> None:
    if applied_steps(connection) == STEPS:
        _prepare(connection, deadline)
        return
    from rlm_mcp.store.migrations import bring_up_to_date  # noqa: PLC0415  # see its docstring

    _refuse_others(connection, path)
    _prepare(connection, deadline)
    with transaction(connection, "BEGIN IMMEDIATE"):
        # Another process may have migrated the file meanwhile, and may be newer.
        _refuse_others(connection, path)
        bring_up_to_date(connection)


def _refuse_others(connection: sqlite3.Connection, path: Path) -> None:
    from rlm_mcp.store.migrations import is_foreign, unknown_steps  # noqa: PLC0415  # likewise

    newer = unknown_steps(connection)
    if newer:
        raise StoreError(
            f"The database {str(path)!r} was made by a newer version of rlm-mcp ({newer[-1]!r}).",
            fix="Upgrade rlm-mcp, or set RLM_MCP_DATA_DIR to another directory.",
        )
    if is_foreign(connection):
        raise StoreError(
            f"The database {str(path)!r} belongs to another program; it was not changed.",
            fix="Set RLM_MCP_DATA_DIR to another directory.",
        )


def _prepare(connection: sqlite3.Connection, deadline: float) -> None:
    """Set the options stored in the file; the first two take effect only while it is empty."""
    connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
    # Lets free pages be returned to the disk in steps; only a full VACUUM can switch it on later.
    connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            # The busy timeout does not cover two processes that switch to WAL at the same time.
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def connect(path: Path, busy_seconds: float, *, read_only: bool = False) -> sqlite3.Connection:
    """Open an existing file; raises SQLite's own errors."""
    # `rw`, not `rwc`: a file that was removed must not be recreated empty.
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=busy_seconds,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        for pragma in _pragmas(read_only=read_only):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def _pragmas(*, read_only: bool) -> tuple[str, ...]:
    if read_only:
        return ("query_only=ON",)
    return (
        "foreign_keys=ON",
        "synchronous=NORMAL",
        f"wal_autocheckpoint={_PAGES_BEFORE_CHECKPOINT}",
        f"journal_size_limit={64 << 20}",
        # Some builds overwrite every deleted page with zeros, which makes a delete as expensive
        # as a write; FAST overwrites only where it costs nothing extra.
        "secure_delete=FAST",
    )


@contextmanager
def transaction(connection: sqlite3.Connection, begin: str) -> Generator[None]:
    """Commit what the block does, or roll it back if it raises."""
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # Some errors, such as a full disk, have already ended the transaction.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
