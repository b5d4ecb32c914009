"""Rows of saved variables; each function takes a run's row number."""

from __future__ import annotations

from collections.abc import Iterable
from sqlite3 import Connection

from rlm_mcp.sandbox.types import Variable, VariableText
from rlm_mcp.store.runs.records import SavedVariable
from rlm_mcp.text import without_surrogates


def replace_variables(db: Connection, row: int, variables: Iterable[SavedVariable]) -> None:
    """Save these variables of a run, replacing earlier ones."""
    db.execute("DELETE FROM variables WHERE run = ?", [row])
    db.executemany(
        "INSERT INTO variables(run, position, name, type, size, preview, json, value, payload, "
        "reason, is_code) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            (
                *(
                    row,
                    position,
                    without_surrogates(one.name),
                    without_surrogates(one.type),
                    one.size,
                ),
                *(without_surrogates(one.preview), one.json),
                None if one.value is None else without_surrogates(one.value),
                *(one.payload, without_surrogates(one.reason), one.is_code),
            )
            for position, one in enumerate(variables)
        ),
    )


def read_variables(db: Connection, row: int) -> list[SavedVariable]:
    """Return a run's saved variables, values included, in order."""
    rows = db.execute(
        "SELECT name, type, size, preview, value, json, payload, reason, is_code FROM variables "
        "WHERE run = ? ORDER BY position",
        [row],
    )
    return [
        SavedVariable(
            *plain, json=bool(is_json), payload=payload, reason=reason, is_code=bool(is_code)
        )
        for *plain, is_json, payload, reason, is_code in rows
    ]


def list_variables(db: Connection, row: int) -> list[Variable]:
    """Return a run's variables without their values, in order."""
    sql = "SELECT name, type, size, preview FROM variables "
    sql += "WHERE run = ? AND is_code = 0 ORDER BY position"
    return [Variable(*found) for found in db.execute(sql, [row])]


def find_variable(
    db: Connection, row: int, name: str, part: tuple[int, int]
) -> VariableText | None:
    """Return a slice of a variable, by first character and length; None if there is none."""
    found = db.execute(
        "SELECT type, size, coalesce(value, preview), json FROM variables "
        "WHERE run = ? AND name = ? AND is_code = 0",
        [row, without_surrogates(name)],
    ).fetchone()
    if found is None:
        return None
    kind, size, text, is_json = found
    # Cut here and not by SQL's substr, which stops at the first NUL character.
    start = min(part[0], len(text))
    end = min(start + part[1], len(text))
    return VariableText(
        *(name, kind, size),
        text=text[start:end],
        start=start,
        end=end,
        total=len(text),
        json=bool(is_json),
    )
