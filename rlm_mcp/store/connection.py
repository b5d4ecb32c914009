"""Connections to the file: how it is made, brought up to date, opened and written to."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from rlm_mcp.errors import StoreError
from rlm_mcp.store.failures import translated
from rlm_mcp.store.schema_steps import STEPS, applied_steps

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
