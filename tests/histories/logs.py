"""The recorded histories: found, and written into a database of today."""

from __future__ import annotations

import gzip
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
DATABASE_FILE = "store.sqlite.gz"
# Where the rows of one run lie, by table.
_OF_RUN = "run = (SELECT id FROM runs WHERE run_id = :run_id)"
TABLES: Mapping[str, str] = {
    "runs": "run_id = :run_id",
    "events": _OF_RUN,
    "variables": _OF_RUN,
    "replies": "run = :run_id",
}


def find_logs() -> list[Path]:
    """Every recorded log, of every version."""
    return sorted(HERE.glob("*/*.jsonl"))


def find_databases() -> list[Path]:
    """Every recorded database, one a version."""
    return sorted(HERE.glob(f"*/{DATABASE_FILE}"))


def unpack(recorded: Path, database: Path) -> None:
    """Write a recorded database to a file. Blocks."""
    database.parent.mkdir(parents=True, exist_ok=True)
    database.write_bytes(gzip.decompress(recorded.read_bytes()))


def insert(log: Path, database: Path) -> None:
    """Write a recorded log into a database, whose tables are there. Blocks."""
    with closing(sqlite3.connect(database)) as db, db:
        for table, row in read_rows(log):
            names, marks = ", ".join(row), ", ".join("?" * len(row))
            sql = f"INSERT INTO {table}({names}) VALUES ({marks})"
            db.execute(sql, list(row.values()))


def read_rows(log: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give the rows of a log, each with the name of its table."""
    for line in log.read_text().splitlines():
        found = json.loads(line)
        yield found["table"], found["row"]
