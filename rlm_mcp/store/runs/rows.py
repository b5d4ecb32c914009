"""Rows of the tables of runs, read and written inside the caller's transaction."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from operator import attrgetter
from sqlite3 import Connection
from typing import Any, cast

from rlm_mcp.errors import NotFoundError, RunLostError, StoreError
from rlm_mcp.events import FinalAnswer, RunFinished
from rlm_mcp.store.paging import COMPARED, not_found
from rlm_mcp.store.runs.records import (
    CANCELLED,
    Claim,
    Event,
    NewEvent,
    NewRun,
    Outcome,
    RunRecord,
    RunSummary,
    WorkClock,
    models_of_json,
    models_to_json,
    to_json,
)
from rlm_mcp.text import without_surrogates
from rlm_mcp.values import Usage

_FIGURES = (
    *("iterations", "sub_calls", "cached_sub_calls", "input_tokens", "output_tokens", "cost_usd"),
)
_COLUMNS = (
    *("run_id", "status", "question", "contexts", "config", "created_at", "finished_at"),
    *("answer", "data", "error", "last_event", "elapsed_seconds", "started"),
    *("owner", "lease_until", "caller", "idempotency_key", "continues", "abandoned_at"),
    *("usage_by_model", "attempt"),
    *_FIGURES,
)
_PLAIN = (
    *("run_id", "status", "question", "created_at", "finished_at", "answer", "last_event"),
    *("owner", "lease_until", "caller", "idempotency_key", "continues", "abandoned_at"),
    "attempt",
)
# While a run waits for a free place it has not started: `started` is infinite.
NOT_YET = math.inf
_POSITION = (
    "CASE WHEN started = 9e999 THEN (SELECT count(*) FROM runs AS earlier "
    "WHERE earlier.owner = runs.owner AND earlier.started = 9e999 AND earlier.id <= runs.id) END"
)
_SELECT = f"SELECT {', '.join(_COLUMNS)}, {_POSITION} FROM runs"  # noqa: S608  # our own constants


def iso(seconds: float) -> str:
    """Return a time given in seconds since the epoch as ISO 8601 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def find_run(db: Connection, caller: str, run_id: str, clock: WorkClock) -> RunRecord:
    """Return the record of a caller's run.

    Raises:
        NotFoundError: there is none; the error names similar ones.
    """
    sql = f"{_SELECT} WHERE run_id = ? AND caller = ?"
    row = db.execute(sql, [without_surrogates(run_id), caller]).fetchone()
    if row is None:
        raise missing_run(db, caller, run_id)
    *columns, position = row
    record = _record(dict(zip(_COLUMNS, columns, strict=True)), position, clock)
    return record if record.answer is None else replace(record, final=_last_final(db, run_id))


def _last_final(db: Connection, run_id: str) -> FinalAnswer | None:
    """Return the last answer of a run itself; None where its log was deleted with its text."""
    row = db.execute(
        "SELECT detail FROM events WHERE run = (SELECT id FROM runs WHERE run_id = ?) "
        "AND type = ? AND depth = 0 ORDER BY seq DESC LIMIT 1",
        [without_surrogates(run_id), FinalAnswer.type],
    ).fetchone()
    return FinalAnswer.from_detail(json.loads(row[0])) if row else None


def missing_run(db: Connection, caller: str, run_id: str) -> NotFoundError:
    """Return the error for a run that the caller does not have."""
    sql = "SELECT run_id FROM runs WHERE caller = ? ORDER BY id DESC LIMIT ?"
    rows = db.execute(sql, [caller, COMPARED])
    return not_found("run", run_id, [row[0] for row in rows], "rlm_run_list")


def row_of(db: Connection, caller: str, run_id: str) -> int:
    """Return the row number of a caller's run.

    Raises:
        NotFoundError: there is no such run.
    """
    sql = "SELECT id FROM runs WHERE run_id = ? AND caller = ?"
    row = db.execute(sql, [without_surrogates(run_id), caller]).fetchone()
    if row is None:
        raise missing_run(db, caller, run_id)
    return row[0]


def owned_row(db: Connection, caller: str, run_id: str, owner: str) -> tuple[int, int]:
    """Return the row number of a caller's run that the process `owner` may write to.

    Returns also which attempt works on it.

    Raises:
        NotFoundError: there is no such run.
        RunLostError: it has ended, or another process works on it.
    """
    sql = "SELECT id, status, owner, attempt FROM runs WHERE run_id = ? AND caller = ?"
    found = db.execute(sql, [without_surrogates(run_id), caller]).fetchone()
    if found is None:
        raise missing_run(db, caller, run_id)
    row, status, actual, attempt = found
    if status != "running":
        raise RunLostError(
            f"The run {run_id!r} is {status!r} and accepts no more events.",
            fix="rlm_run_resume continues a run that did not complete.",
        )
    if actual != owner:
        raise RunLostError(
            f"The run {run_id!r} belongs to another process, {actual!r}.",
            fix="rlm_run_wait can follow it from here.",
        )
    return row, attempt


def given_up(run_id: str, attempt: int, latest: int) -> RunLostError:
    """Return the error for a write to a run by an attempt that was given up."""
    return RunLostError(
        f"The run {run_id!r} is worked on by attempt {latest}; attempt {attempt} was given up.",
        fix="rlm_run_wait can follow it from here.",
    )


def ended_row(db: Connection, caller: str, run_id: str) -> int:
    """Return the row number of a caller's run that has ended.

    Raises:
        NotFoundError: there is no such run.
        StoreError: it is running.
    """
    row = row_of(db, caller, run_id)
    status = db.execute("SELECT status FROM runs WHERE id = ?", [row]).fetchone()[0]
    if status == "running":
        raise StoreError(f"The run {run_id!r} is running.", fix="rlm_run_wait waits for its end.")
    return row


def same_run(db: Connection, caller: str, run: NewRun, now: float) -> str | None:
    """Return the id of the caller's run to be used instead of a new one, if there is one."""
    if run.idempotency_key is not None:
        sql = "SELECT run_id FROM runs WHERE caller = ? AND idempotency_key = ?"
        found = db.execute(sql, [caller, without_surrogates(run.idempotency_key)]).fetchone()
        return found[0] if found else None
    if not run.is_shared:
        return None
    # If its lease is over, its process may be dead.
    found = db.execute(
        "SELECT run_id FROM runs WHERE status = 'running' AND caller = ? AND question = ? "
        "AND contexts = ? AND config = ? AND continues IS ? AND lease_until > ? ORDER BY id",
        [
            *(caller, without_surrogates(run.question), to_json(run.contexts), to_json(run.config)),
            *(run.continues, now),
        ],
    ).fetchone()
    return found[0] if found else None


def insert_run(db: Connection, caller: str, run: NewRun, mine: Claim) -> int:
    """Insert a caller's run, which starts now or waits for a free place; return its row number."""
    written = db.execute(
        "INSERT INTO runs(run_id, status, question, contexts, config, caller, idempotency_key, "
        "continues, created_at, started, owner, lease_until) "
        "VALUES (?, 'running', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            *(
                run.run_id,
                without_surrogates(run.question),
                to_json(run.contexts),
                to_json(run.config),
            ),
            caller,
            None if run.idempotency_key is None else without_surrogates(run.idempotency_key),
            *(run.continues, iso(mine.now), NOT_YET if run.is_queued else mine.now),
            *(mine.owner, mine.lease_until),
        ],
    )
    return cast("int", written.lastrowid)


def summaries(
    db: Connection, caller: str, status: str | None, before: int, limit: int, clock: WorkClock
) -> list[tuple[int, RunSummary]]:
    """Return a caller's runs older than a row, newest first, each with its row number."""
    rows = db.execute(
        "SELECT id, run_id, status, question, created_at, elapsed_seconds, started, cost_usd "
        "FROM runs WHERE caller = ? AND id < ? AND (? IS NULL OR status = ?) "
        "ORDER BY id DESC LIMIT ?",
        [caller, before, status, status, limit],
    )
    return [
        (row, RunSummary(run_id, state, question, at, elapsed(run_id, state, work, clock), cost))
        for row, run_id, state, question, at, *work, cost in rows
    ]


def begin_work(db: Connection, row: int, now: float) -> None:
    """Start counting the time of a queued run."""
    db.execute("UPDATE runs SET started = ? WHERE id = ?", [now, row])


def interrupt_run(db: Connection, row: int, outcome: Outcome, now: float) -> str:
    """End a run that lost its owner, with a last event; return its id.

    A run with a cancel request ends as `cancelled`, whatever the outcome.
    """
    run_id: str
    run_id, is_cancelled, *figures = db.execute(
        "SELECT run_id, cancel_requested, iterations, sub_calls, cached_sub_calls, "
        "input_tokens, output_tokens, cost_usd FROM runs WHERE id = ?",
        [row],
    ).fetchone()
    heard = db.execute(
        "SELECT at FROM events WHERE run = ? ORDER BY seq DESC LIMIT 1", [row]
    ).fetchone()
    # It worked at least until its last event; the time after that does not count.
    worked_until = datetime.fromisoformat(heard[0]).timestamp() if heard else 0.0
    outcome = CANCELLED if is_cancelled else outcome
    used = Usage(*figures)
    finished = RunFinished(outcome.status, outcome.error)
    event = NewEvent(
        finished.type,
        outcome.status,
        used.iterations,
        detail=finished.to_detail(),
        figures=used,
    )
    append_rows(db, row, [event], now)
    end_run(db, row, outcome, now, worked_until=worked_until)
    return run_id


def append_rows(
    db: Connection,
    row: int,
    events: Sequence[NewEvent],
    now: float,
    *,
    started: float | None = None,
) -> list[Event]:
    """Append to a run's log, and set the run's figures to those of the last event.

    Args:
        started: when the run began, by the clock as it is now; None leaves what is stored.
    """
    seq: int = db.execute("SELECT last_event FROM runs WHERE id = ?", [row]).fetchone()[0]
    at = iso(now)
    stored = [_event(seq + index, at, event) for index, event in enumerate(events, start=1)]
    if not stored:
        return stored
    db.executemany(
        "INSERT INTO events(run, seq, at, type, iteration, depth, preview, figures, detail) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (_event_row(row, event) for event in stored),
    )
    used = stored[-1].figures
    db.execute(
        "UPDATE runs SET last_event = ?, iterations = ?, sub_calls = ?, cached_sub_calls = ?, "
        "input_tokens = ?, output_tokens = ?, cost_usd = ?, started = coalesce(?, started), "
        "usage_by_model = coalesce(?, usage_by_model) WHERE id = ?",
        [stored[-1].seq, *_figures(used), started, models_to_json(used), row],
    )
    return stored


def read_events(db: Connection, row: int, after: int, limit: int) -> list[Event]:
    """Return events with numbers above `after`, in order."""
    rows = db.execute(
        "SELECT seq, at, type, iteration, depth, preview, detail, figures FROM events "
        "WHERE run = ? AND seq > ? ORDER BY seq LIMIT ?",
        [row, after, limit],
    )
    return [
        Event(*plain, detail=json.loads(detail), figures=Usage(*json.loads(figures)))
        for *plain, detail, figures in rows
    ]


def end_run(
    db: Connection, row: int, outcome: Outcome, now: float, *, worked_until: float | None = None
) -> None:
    """Set the end of a running run; its working time, until now by default, is added up."""
    until = now if worked_until is None else worked_until
    db.execute(
        "UPDATE runs SET status = ?, answer = ?, data = ?, error = ?, finished_at = ?, "
        "elapsed_seconds = elapsed_seconds + max(0, ? - started), "
        "started = min(started, ?), cancel_requested = 0, abandoned_at = NULL WHERE id = ?",
        [
            outcome.status,
            None if outcome.answer is None else without_surrogates(outcome.answer),
            None if outcome.data is None else to_json(outcome.data),
            None if outcome.error is None else to_json(outcome.error),
            *(iso(now), until, now, row),
        ],
    )


_figures: Callable[[Usage], tuple[float | None, ...]] = attrgetter(*_FIGURES)
"""Return figures in the order of their columns."""


def elapsed(run_id: str, status: str, work: Sequence[float], clock: WorkClock) -> float:
    """Return how long a run has worked; a running run counts until now.

    Args:
        work: the seconds of its earlier stretches, and when it began this one.
    """
    past, started = work
    if status != "running":
        return past
    own = clock.started(run_id)
    return past + max(0.0, clock.now() - (started if own is None else own))


def _record(row: dict[str, Any], position: int | None, clock: WorkClock) -> RunRecord:
    work = (row["elapsed_seconds"], row["started"])
    return RunRecord(
        **{name: row[name] for name in _PLAIN},
        contexts=tuple(json.loads(row["contexts"])),
        config=json.loads(row["config"]),
        data=None if row["data"] is None else json.loads(row["data"]),
        error=None if row["error"] is None else json.loads(row["error"]),
        figures=_usage(row),
        elapsed_seconds=elapsed(row["run_id"], row["status"], work, clock),
        queue_position=position,
    )


def _usage(row: Mapping[str, Any]) -> Usage:
    by_model = models_of_json(row["usage_by_model"])
    return Usage(*(row[name] for name in _FIGURES), by_model=by_model)


def _event(seq: int, at: str, new: NewEvent) -> Event:
    return Event(
        *(seq, at, new.type, new.iteration, new.depth),
        preview=without_surrogates(new.preview),
        detail=new.detail,
        figures=new.figures,
    )


def _event_row(row: int, event: Event) -> tuple[Any, ...]:
    return (
        *(row, event.seq, event.at, event.type, event.iteration, event.depth, event.preview),
        *(to_json(_figures(event.figures)), to_json(event.detail)),
    )
