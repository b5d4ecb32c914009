"""Runs whose process died: copies of a run's log, cut off after any of its events."""

from __future__ import annotations

import json
import secrets
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

COLUMNS = (
    "iterations",
    "sub_calls",
    "cached_sub_calls",
    "input_tokens",
    "output_tokens",
    "cost_usd",
)
INTERRUPTED = {"status": "interrupted", "error": None}


def cut_off(database: Path, run_id: str, after: int) -> str:
    """Copy a run as its process would have left it, had it died after an event; gives its id.

    The copy has the same first digits, so that its REPL is seeded as the run's was.
    """
    copy = run_id[:12] + secrets.token_hex(12)
    with closing(sqlite3.connect(database, timeout=30)) as db, db:
        db.row_factory = sqlite3.Row
        row = dict(db.execute("SELECT * FROM runs WHERE run_id = ?", [run_id]).fetchone())
        original = row.pop("id")
        sql = "SELECT * FROM events WHERE run = ? AND seq <= ? ORDER BY seq"
        events = [dict(event) for event in db.execute(sql, [original, after])]
        figures = json.loads(events[-1]["figures"])
        end = events[-1] | {"seq": after + 1, "type": "run_finished", "depth": 0}
        events.append(end | {"detail": json.dumps(INTERRUPTED)})
        row |= {"run_id": copy, "status": "interrupted", "last_event": after + 1, "answer": None}
        row |= {"data": None, "error": None, "idempotency_key": None}
        row.update(zip(COLUMNS, figures, strict=True))
        new = _insert(db, "runs", row)
        for event in events:
            _insert(db, "events", event | {"id": None, "run": new})
    return copy


def forget_replies(database: Path, keep: int) -> None:
    """Let the store keep but the first so many replies of sub-calls."""
    with closing(sqlite3.connect(database, timeout=30)) as db, db:
        db.execute("DELETE FROM replies WHERE id > ?", [keep])


def _insert(db: sqlite3.Connection, table: str, row: dict[str, Any]) -> int:
    names, marks = ", ".join(row), ", ".join("?" * len(row))
    sql = f"INSERT INTO {table}({names}) VALUES ({marks})"  # our own words
    return db.execute(sql, list(row.values())).lastrowid or 0
