"""Attempts at a run: each has a number, and only the latest may write to the log.

A run that has ended is resumed as its next attempt. One at work can be taken over as its next
attempt and stays `running`: so the run of a lost worker of a cluster goes to another worker, and
the runs of a lost server to the next one over the same cluster. Without a cluster, a run that is
lost with its process ends as `interrupted`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from sqlite3 import Connection

from rlm_mcp.store.runs.records import Claim, NewEvent, Outcome, ResumedRun, to_json
from rlm_mcp.store.runs.rows import NOT_YET, append_rows, interrupt_run
from rlm_mcp.values import Usage, stored_error

# A text that kills whoever works on it must not go on from worker to worker for ever.
MAX_ATTEMPTS = 5
_WORN_OUT = Outcome(
    "interrupted",
    error=stored_error(
        "interrupted",
        f"{MAX_ATTEMPTS} workers were lost while they worked on this run.",
        retryable=True,
        fix="Look at what its code did with rlm_run_trace; rlm_run_resume continues it.",
    ),
)


def resume_run(db: Connection, row: int, change: ResumedRun, mine: Claim) -> bool:
    """Resume a run that has ended, unless it changed meanwhile."""
    status, last_event, *figures = db.execute(
        "SELECT status, last_event, iterations, sub_calls, cached_sub_calls, input_tokens, "
        "output_tokens, cost_usd FROM runs WHERE id = ?",
        [row],
    ).fetchone()
    if status == "running" or last_event != change.last_event:
        return False
    db.execute(
        "UPDATE runs SET status = 'running', config = ?, owner = ?, started = ?, lease_until = ?, "
        "finished_at = NULL, answer = NULL, data = NULL, error = NULL, attempt = attempt + 1, "
        "takeovers = 0 WHERE id = ?",
        [
            *(to_json(change.config), mine.owner),
            *(NOT_YET if change.is_queued else mine.now, mine.lease_until, row),
        ],
    )
    append_rows(db, row, [replace(change.event, figures=Usage(*figures))], mine.now)
    return True


def take_over_run(
    db: Connection, run_id: str, attempt: int, event: NewEvent, mine: Claim
) -> int | None:
    """Make a run at work the next attempt, in one step; return its number.

    None where there is nothing to take over: it has ended, somebody else was faster, it ends here
    as it was to be cancelled, or it ends here as too many attempts were lost.

    Args:
        attempt: the one that is given up.
        event: the next line of its log; its figures stay those of the run.
    """
    found = db.execute(
        "SELECT id, takeovers, cancel_requested, iterations, sub_calls, cached_sub_calls, "
        "input_tokens, output_tokens, cost_usd FROM runs "
        "WHERE run_id = ? AND status = 'running' AND attempt = ?",
        [run_id, attempt],
    ).fetchone()
    if found is None:
        return None
    row, takeovers, is_to_cancel, *figures = found
    if is_to_cancel or takeovers + 1 >= MAX_ATTEMPTS:
        db.execute("UPDATE runs SET attempt = attempt + 1 WHERE id = ?", [row])
        interrupt_run(db, row, _WORN_OUT, mine.now)
        return None
    db.execute(
        "UPDATE runs SET attempt = attempt + 1, takeovers = takeovers + 1, owner = ?, "
        "lease_until = ? WHERE id = ?",
        [mine.owner, mine.lease_until, row],
    )
    append_rows(db, row, [replace(event, figures=Usage(*figures))], mine.now)
    return attempt + 1


@dataclass(frozen=True)
class LostRun:
    """A running run whose process is gone, as it was found.

    `worked_seconds` are those of earlier stretches, and of this one until its last event.
    """

    run_id: str
    caller: str
    owner: str
    attempt: int
    last_event: int
    is_question: bool
    worked_seconds: float


def lost_runs(db: Connection, mine: str, is_lost: Callable[[str, float], bool]) -> list[LostRun]:
    """Find the running runs of other processes that are gone, oldest first.

    Args:
        mine: this process.
        is_lost: says of a process and the end of its lease whether its runs are lost.
    """
    found = db.execute(
        "SELECT run_id, caller, owner, attempt, last_event, question != '', elapsed_seconds, "
        "started, (SELECT at FROM events WHERE run = runs.id ORDER BY seq DESC LIMIT 1), "
        "lease_until FROM runs WHERE status = 'running' AND owner != ? ORDER BY id",
        [mine],
    )
    return [
        LostRun(run_id, caller, owner, attempt, last, bool(asks), past + _worked(started, heard))
        for run_id, caller, owner, attempt, last, asks, past, started, heard, lease_until in found
        if is_lost(owner, lease_until)
    ]


def _worked(started: float, heard: str | None) -> float:
    """Return how long a run worked: until its last event at least, and nothing after it counts."""
    return max(0.0, datetime.fromisoformat(heard).timestamp() - started) if heard else 0.0


def move_run(db: Connection, lost: LostRun, event: NewEvent, mine: Claim) -> int | None:
    """Take over a lost run, which waits for a place here; return the number of its attempt.

    None where it is no longer as it was found, or ends here; see `take_over_run`.
    """
    moved = db.execute(
        "UPDATE runs SET elapsed_seconds = ?, started = ? WHERE run_id = ? AND caller = ? "
        "AND status = 'running' AND owner = ? AND attempt = ? AND last_event = ?",
        [
            *(lost.worked_seconds, NOT_YET, lost.run_id, lost.caller),
            *(lost.owner, lost.attempt, lost.last_event),
        ],
    )
    if not moved.rowcount:
        return None
    return take_over_run(db, lost.run_id, lost.attempt, event, mine)
