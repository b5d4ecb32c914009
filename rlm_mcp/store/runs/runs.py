"""Runs and their logs, which waiting callers, the page and resumed runs read."""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Connection
from typing import get_args

from rlm_mcp.cursors import encode_cursor
from rlm_mcp.errors import InvalidInputError, NotFoundError, RunLostError
from rlm_mcp.sandbox.types import Variable, VariableText
from rlm_mcp.store.connection import LOG_LEAVES_BYTES
from rlm_mcp.store.contexts.records import Page
from rlm_mcp.store.database import CALLER_PATIENCE_SECONDS, Database
from rlm_mcp.store.paging import check_limit, check_offset, row_before
from rlm_mcp.store.runs import rows
from rlm_mcp.store.runs.attempts import resume_run
from rlm_mcp.store.runs.past import PastRun, past_runs
from rlm_mcp.store.runs.records import (
    LEASE_SECONDS,
    Event,
    NewEvent,
    NewRun,
    Outcome,
    ResumedRun,
    RunRecord,
    RunSummary,
    SavedVariable,
    WorkClock,
)
from rlm_mcp.store.runs.variables import (
    find_variable,
    list_variables,
    read_variables,
    replace_variables,
)
from rlm_mcp.text import NAME_CHARS, names_in_line, without_surrogates
from rlm_mcp.values import RunStatus


class Runs:
    """One caller's runs in a database, as one server process sees them.

    Args:
        owner: this process, from `owner_id()`; only it writes to the runs it makes.
        clock: what the time is, and how long runs have worked.
        caller: the owner of these runs; empty for everyone who shares the machine.
        attempt: who writes to a run; None is whoever works on it now.
    """

    def __init__(
        self,
        database: Database,
        *,
        owner: str,
        clock: WorkClock | None = None,
        caller: str = "",
        attempt: int | None = None,
    ) -> None:
        self._attempt = attempt
        self._database = database
        self._owner = owner
        self._clock = clock or WorkClock()
        self._caller = caller

    @property
    def caller(self) -> str:
        """Whose runs these are; empty for everyone who shares the machine."""
        return self._caller

    def as_caller(self, caller: str) -> Runs:
        """Return the runs of another caller."""
        return Runs(self._database, owner=self._owner, clock=self._clock, caller=caller)

    def as_attempt(self, attempt: int) -> Runs:
        """Return these runs, written to by one attempt: a later one shuts it out."""
        named = {"owner": self._owner, "caller": self._caller}
        return Runs(self._database, **named, clock=self._clock, attempt=attempt)

    async def create(
        self,
        run: NewRun,
        started: NewEvent | None = None,
        *,
        lease_seconds: float = LEASE_SECONDS,
    ) -> RunRecord:
        """Start a run, or return an existing run of the caller instead.

        That is the one with the same idempotency key or, where equal questions may be shared, a
        running run with the same question.

        Args:
            started: its first event, written in the same transaction.

        Raises:
            StoreBusyError: another process is writing and does not end.
            StoreError: the database could not store it.
        """
        events = [] if started is None else [started]
        record = await self._database.write_grouped(
            lambda db: self._create(db, run, events, lease_seconds),
            leave_bytes=LOG_LEAVES_BYTES,
            is_patient=False,
        )
        if record.run_id == run.run_id and not run.is_queued:
            self._clock.begin(run.run_id)
        return record

    async def find_same(self, run: NewRun) -> str | None:
        """Return the id of the run that `create` would return in place of a new one, if any."""
        return await self._database.read(
            lambda db: rows.same_run(db, self._caller, run, self._clock.now())
        )

    async def begin_work(self, run_id: str) -> None:
        """Start counting the time of a queued run of this process.

        Raises:
            NotFoundError: there is no such run.
            RunLostError: it has ended, or belongs to another process.
        """

        def begin(db: Connection) -> None:
            row = self._own_row(db, run_id)
            rows.begin_work(db, row, self._clock.now())

        await self._database.write_grouped(begin)
        self._clock.begin(run_id)

    async def append_event(self, run_id: str, event: NewEvent) -> Event:
        """Append one event; see `append_events`."""
        return (await self.append_events(run_id, [event]))[0]

    async def append_events(self, run_id: str, events: Sequence[NewEvent]) -> list[Event]:
        """Append events to a run of this process, all or none; they last once returned.

        Raises:
            NotFoundError: there is no such run.
            RunLostError: the run has ended or belongs to another process; the error says which.
        """

        def append(db: Connection) -> list[Event]:
            row = self._own_row(db, run_id)
            now, started = self._clock.now(), self._clock.started(run_id)
            return rows.append_rows(db, row, events, now, started=started)

        return await self._database.write_grouped(append, leave_bytes=LOG_LEAVES_BYTES)

    async def append_afterwards(self, run_id: str, event: NewEvent) -> Event:
        """Append an event to a run that has ended, whose REPL was used; its status stays.

        Raises:
            NotFoundError: there is no such run.
            StoreError: it has not ended.
        """

        def append(db: Connection) -> list[Event]:
            row = rows.ended_row(db, self._caller, run_id)
            return rows.append_rows(db, row, [event], self._clock.now())

        return (await self._database.write(append))[0]

    async def finish(
        self,
        run_id: str,
        outcome: Outcome,
        event: NewEvent,
        variables: Sequence[SavedVariable] | None = None,
    ) -> RunRecord:
        """End a run of this process: last event, status, answer and variables, all or nothing.

        Args:
            variables: None keeps those that were saved before.

        Raises:
            NotFoundError: there is no such run.
            RunLostError: it has already ended, or belongs to another process.
        """

        def end(db: Connection) -> RunRecord:
            row = self._own_row(db, run_id)
            now, started = self._clock.now(), self._clock.started(run_id)
            rows.append_rows(db, row, [event], now, started=started)
            rows.end_run(db, row, outcome, now)
            if variables is not None:
                replace_variables(db, row, variables)
            return rows.find_run(db, self._caller, run_id, self._clock)

        record = await self._database.write_grouped(end)
        self._clock.end(run_id)
        return record

    async def resume(
        self,
        run_id: str,
        change: ResumedRun,
        *,
        lease_seconds: float = LEASE_SECONDS,
    ) -> bool:
        """Resume a run that has ended, in this process; of several attempts, one succeeds.

        Returns:
            False: another was faster.

        Raises:
            NotFoundError: there is no such run.
            StoreError: the database failed.
        """

        def take(db: Connection) -> bool:
            now = self._clock.now()
            mine = rows.Claim(self._owner, now, now + lease_seconds)
            return resume_run(db, self._row(db, run_id), change, mine)

        is_ours = await self._database.write(take, patience_seconds=CALLER_PATIENCE_SECONDS)
        if is_ours and not change.is_queued:
            self._clock.begin(run_id)
        return is_ours

    async def get(self, run_id: str) -> RunRecord:
        """Return a run's record.

        Raises:
            NotFoundError: there is none; the error names similar ids and how to list them.
        """
        return await self._database.read_grouped(
            lambda db: rows.find_run(db, self._caller, run_id, self._clock)
        )

    async def list(
        self, *, status: RunStatus | None = None, limit: int = 20, cursor: str | None = None
    ) -> Page[RunSummary]:
        """Return runs, newest first; pages do not shift when others start.

        Raises:
            InvalidInputError: an unknown status, a limit below 1, or the cursor of another list.
        """
        _check_status(status)
        before, limit = row_before("runs", cursor), check_limit(limit)
        return await self._database.read(lambda db: self._list(db, status, before, limit))

    async def starting_with(self, prefix: str, limit: int) -> Sequence[str]:
        """Return ids that start with `prefix`, newest first."""
        sql = (
            "SELECT run_id FROM runs WHERE caller = ? AND substr(run_id, 1, ?) = ? "
            "ORDER BY id DESC LIMIT ?"
        )
        values = [self._caller, len(prefix), without_surrogates(prefix), limit]
        return await self._database.read(lambda db: [row[0] for row in db.execute(sql, values)])

    async def used_since(self, at: str) -> tuple[int, int, float]:
        """Return how many runs the caller began since a time, their tokens, and their USD."""
        sql = (
            "SELECT count(*), total(input_tokens + output_tokens), total(cost_usd) FROM runs "
            "WHERE caller = ? AND created_at >= ?"
        )
        values = [self._caller, at]
        return await self._database.read(lambda db: tuple(db.execute(sql, values).fetchone()))

    async def past(self, chars: int, models: tuple[str, str]) -> Sequence[PastRun]:
        """Return what completed runs of a root and sub model took, over texts of about a size."""
        return await self._database.read(lambda db: past_runs(db, self._caller, chars, models))

    async def count(self) -> int:
        """Return how many runs the caller has."""
        sql = "SELECT count(*) FROM runs WHERE caller = ?"
        return await self._database.read(lambda db: db.execute(sql, [self._caller]).fetchone()[0])

    async def events(self, run_id: str, *, after: int = 0, limit: int = 20) -> Sequence[Event]:
        """Return a run's events with numbers above `after`, in order.

        Raises:
            NotFoundError: there is no such run.
            InvalidInputError: `after` is negative or the limit below 1.
        """
        after, limit = check_offset("after", after), check_limit(limit)
        return await self._database.read(
            lambda db: rows.read_events(db, self._row(db, run_id), after, limit)
        )

    async def save_variables(self, run_id: str, variables: Sequence[SavedVariable]) -> None:
        """Save a run's variables, replacing earlier ones, whatever its status.

        Raises:
            NotFoundError: there is no such run.
        """
        await self._database.write(
            lambda db: replace_variables(db, self._row(db, run_id), variables)
        )

    async def variables(self, run_id: str) -> Sequence[Variable]:
        """Return the variables that were saved, in order.

        Raises:
            NotFoundError: there is no such run.
        """
        return await self._database.read(lambda db: list_variables(db, self._row(db, run_id)))

    async def saved_variables(self, run_id: str) -> Sequence[SavedVariable]:
        """Return the variables as they were saved, with the values that were kept, in order.

        Raises:
            NotFoundError: there is no such run.
        """
        return await self._database.read(lambda db: read_variables(db, self._row(db, run_id)))

    async def variable(
        self, run_id: str, name: str, *, start: int = 0, limit: int = 4000
    ) -> VariableText:
        """Read a slice of a saved variable, or of its preview if its value was not kept.

        Raises:
            NotFoundError: there is no such run or variable; the error names those that exist.
            InvalidInputError: an offset is negative.
        """
        start, limit = check_offset("start", start), check_offset("limit", limit)
        return await self._database.read(
            lambda db: self._variable(db, run_id, name, (start, limit))
        )

    def _create(
        self, db: Connection, run: NewRun, events: Sequence[NewEvent], lease_seconds: float
    ) -> RunRecord:
        now = self._clock.now()
        same = rows.same_run(db, self._caller, run, now)
        if same is None:
            mine = rows.Claim(self._owner, now, now + lease_seconds)
            row = rows.insert_run(db, self._caller, run, mine)
            rows.append_rows(db, row, events, now)
        return rows.find_run(db, self._caller, same or run.run_id, self._clock)

    def _own_row(self, db: Connection, run_id: str) -> int:
        try:
            row, latest = rows.owned_row(db, self._caller, run_id, self._owner)
        except RunLostError:
            self._clock.end(run_id)
            raise
        if self._attempt is not None and self._attempt != latest:
            raise rows.given_up(run_id, self._attempt, latest)
        return row

    def _row(self, db: Connection, run_id: str) -> int:
        return rows.row_of(db, self._caller, run_id)

    def _variable(
        self, db: Connection, run_id: str, name: str, part: tuple[int, int]
    ) -> VariableText:
        row = self._row(db, run_id)
        found = find_variable(db, row, name, part)
        if found is not None:
            return found
        known = [one.name for one in list_variables(db, row)]
        raise NotFoundError(
            f"The run {run_id!r} has no variable {name[:NAME_CHARS]!r}.",
            fix=f"It has {names_in_line(known)}." if known else "It has none.",
        )

    def _list(
        self, db: Connection, status: RunStatus | None, before: int, limit: int
    ) -> Page[RunSummary]:
        found = rows.summaries(db, self._caller, status, before, limit + 1, self._clock)
        cursor = encode_cursor("runs", found[limit - 1][0]) if len(found) > limit else None
        return Page([summary for _, summary in found[:limit]], cursor)


def _check_status(status: str | None) -> None:
    if status is not None and status not in get_args(RunStatus):
        raise InvalidInputError(
            f"There is no status {status!r}.", fix=f"Use one of {', '.join(get_args(RunStatus))}."
        )
