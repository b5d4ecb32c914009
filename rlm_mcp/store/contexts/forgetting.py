"""Deletes what runs derived from a text once the text is deleted.

A run over a deleted text keeps its question, its answer and its figures. Everything else that could
contain a part of the text is deleted: its variables, the replies of its sub-calls, and in its log
all but the type and the place of each event. Events keep their numbers, so the log has no gap.
"""

from __future__ import annotations

from sqlite3 import Connection

from rlm_mcp.store.database import Database

FORGOTTEN = "deleted with its text"
# A step must be short, since other writers wait for it.
_EVENTS_A_STEP = 200
_NOT_YET = f"run = ? AND (preview != '{FORGOTTEN}' OR detail != '{{}}')"


def mark_runs(db: Connection, caller: str, handle: str) -> None:
    """Mark a caller's runs over a context to be forgotten; a running run is so at its end."""
    db.execute(
        "UPDATE runs SET to_forget = 1 WHERE caller = ? AND instr(contexts, ?) > 0",
        [caller, f'"{handle}"'],
    )


def runs_over(db: Connection, caller: str, handle: str) -> list[str]:
    """Return the ids of a caller's runs over a context."""
    sql = "SELECT run_id FROM runs WHERE caller = ? AND instr(contexts, ?) > 0"
    return [row[0] for row in db.execute(sql, [caller, f'"{handle}"'])]


async def forget_ended(database: Database) -> int:
    """Forget the marked runs that have ended, in steps; return how many.

    Raises:
        StoreError: the database could not be written; the rest is forgotten the next time.
    """
    rows = await database.read(_marked)
    for row in rows:
        while not await database.write(lambda db: _forget_some(db, row)):  # noqa: B023  # awaited
            pass
    return len(rows)


def _marked(db: Connection) -> list[int]:
    sql = "SELECT id FROM runs WHERE to_forget = 1 AND status != 'running'"
    return [row[0] for row in db.execute(sql)]


def _forget_some(db: Connection, row: int) -> bool:
    """Take one step; return whether it was the last."""
    events = db.execute(
        f"UPDATE events SET preview = '{FORGOTTEN}', detail = '{{}}' "  # noqa: S608  # our constant
        f"WHERE id IN (SELECT id FROM events WHERE {_NOT_YET} LIMIT {_EVENTS_A_STEP})",
        [row],
    ).rowcount
    if events == _EVENTS_A_STEP:
        return False
    db.execute("DELETE FROM variables WHERE run = ?", [row])
    db.execute("DELETE FROM replies WHERE run = (SELECT run_id FROM runs WHERE id = ?)", [row])
    db.execute("UPDATE runs SET to_forget = 0 WHERE id = ? AND status != 'running'", [row])
    return True
