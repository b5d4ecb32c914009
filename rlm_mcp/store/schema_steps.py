"""Which migrations exist, and which a file has."""

from __future__ import annotations

from sqlite3 import Connection

MIGRATION_SET = "rlm_mcp"
STEPS = (
    "m001_texts_contexts_and_runs",
    "m002_contexts_by_caller",
    "m003_queue_and_cancels",
    "m004_housekeeping",
    "m005_pages",
    "m006_abandoned_runs",
    "m007_usage_by_model",
    "m008_lasting_variables",
    "m009_attempts",
)


def applied_steps(connection: Connection) -> tuple[str, ...]:
    """Return the migrations applied to a file, in order; none for another program's file."""
    tables = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = '_sqlite_migrations'"
    if connection.execute(tables).fetchone() is None:
        return ()
    sql = "SELECT name FROM _sqlite_migrations WHERE migration_set = ? ORDER BY rowid"
    return tuple(row[0] for row in connection.execute(sql, [MIGRATION_SET]))
