"""The log's format: each event is read and written by its class alone, and old logs are read."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_args

import anyio
import anyio.to_thread
import pytest

from rlm_mcp.events import (
    DETAILS,
    FORMAT_VERSION,
    Change,
    CodeExecuted,
    CodeGenerated,
    EventDetail,
    EventType,
    RunStarted,
    Splice,
    SubCall,
    SubCallsFinished,
    inner_path,
    read_detail,
    within_inner_run,
)
from rlm_mcp.events.drawn import DRAWN, DRAWN_OF_CALL
from rlm_mcp.store.database import DATABASE_NAME
from tests.histories.logs import find_logs, read_rows
from tests.serving import cell, open_served, turns


@dataclass(frozen=True)
class Line:
    """One line of a log."""

    type: str
    detail: dict[str, Any] = field(default_factory=dict[str, Any])
    iteration: int = 0
    depth: int = 0


def recorded(log: Path) -> Iterator[Line]:
    for table, row in read_rows(log):
        if table == "events":
            yield Line(row["type"], json.loads(row["detail"]))


@pytest.mark.parametrize("log", find_logs(), ids=lambda log: f"{log.parent.name}-{log.stem}")
def test_what_was_recorded_is_read_and_written_with_nothing_lost(log: Path) -> None:
    lines = list(recorded(log))
    assert lines
    for line in lines:
        written = read_detail(line).to_detail()
        assert {key: written[key] for key in line.detail} == line.detail
        assert json.loads(json.dumps(written)) == written


def test_every_type_of_event_has_a_class() -> None:
    assert set(DETAILS) == set(get_args(EventType)) - {"root_delta"}


@pytest.mark.parametrize("type_", DETAILS)
def test_an_event_whose_text_was_deleted_is_read_as_one_that_says_nothing(type_: str) -> None:
    detail = read_detail(Line(type_))
    assert isinstance(detail, DETAILS[type_])
    assert detail == DETAILS[type_]()


def test_what_a_newer_version_adds_is_skipped() -> None:
    newer = {"code": "x = 1", "sparkle": [1], "inner": "a/b"}
    assert read_detail(Line("code_generated", newer)) == CodeGenerated("x = 1", inner="a/b")
    assert read_detail(Line("comet_seen", newer)) == EventDetail(inner="a/b")


def test_a_log_of_the_first_version_names_no_format() -> None:
    assert read_detail(Line("run_started", {"question": "What?"})) == RunStarted(question="What?")
    assert RunStarted().version == 0


def test_optional_keys_are_left_out_and_others_are_written_as_null() -> None:
    assert CodeGenerated("x").to_detail() == {"code": "x"}
    written = CodeExecuted(code="x").to_detail()
    assert (written["error"], written["raised"]) == (None, None)
    assert "by" not in written
    finished = SubCallsFinished(items=(SubCall("a"), SubCall("b"))).to_detail()
    assert [item["prompt"] for item in finished["items"]] == ["a", "b"]


CHANGES: list[tuple[Change, dict[str, Any]]] = [
    (Change(), {}),
    (Change(is_head_omitted=True), {"head": None}),
    (Change(Splice(0, 1, ()), summary=""), {"head": [0, 1, []], "summary": ""}),
]


@pytest.mark.parametrize(("change", "written"), CHANGES)
def test_of_a_conversation_only_what_changed_is_written(
    change: Change, written: dict[str, Any]
) -> None:
    assert change.to_detail() == written
    assert Change.from_detail(written) == change


def test_an_event_of_an_inner_run_names_the_runs_around_it() -> None:
    detail = within_inner_run("outer", within_inner_run("inner", {"code": "x"}))
    assert detail == {"code": "x", "inner": "outer/inner"}
    assert inner_path(detail) == ("outer", "inner")
    assert inner_path({}) == ()


def as_of_the_future(database: Path) -> None:
    with closing(sqlite3.connect(database)) as db, db:
        sql = "UPDATE events SET detail = json_set(detail, '$.version', ?) WHERE type = ?"
        db.execute(sql, [FORMAT_VERSION + 1, "run_started"])
        db.execute("UPDATE runs SET status = 'interrupted'")


async def test_new_logs_name_their_format_and_how_each_run_ended(tmp_path: Path) -> None:
    async with open_served(tmp_path, turns(cell("FINAL(1)"))) as served:
        asked = await served.call("rlm_query", question="?", text="text")
        handle = (await served.call("rlm_context_list"))["contexts"][0]["handle"]
        ran = await served.call("rlm_exec", code="x = 1", contexts=[handle])
        logs = [
            (await served.call("rlm_run_trace", run_id=run["run_id"]))["events"]
            for run in (asked, ran)
        ]
    assert [log[0]["detail"]["version"] for log in logs] == [FORMAT_VERSION] * 2
    ends = [(log[-1]["detail"]["status"], log[-1]["detail"]["error"]) for log in logs]
    assert ends == [("completed", None)] * 2


async def test_a_log_of_a_newer_format_is_shown_and_not_resumed(tmp_path: Path) -> None:
    async with open_served(tmp_path, turns(cell("FINAL(1)"))) as served:
        run = await served.call("rlm_query", question="?", text="text")
        database = served.settings.data_dir / DATABASE_NAME
        await anyio.to_thread.run_sync(as_of_the_future, database)
        refused = await served.error("rlm_run_resume", run_id=run["run_id"])
        log = (await served.call("rlm_run_trace", run_id=run["run_id"]))["events"]
    assert f"format {FORMAT_VERSION + 1}" in refused["message"]
    assert refused["fix"] == "Upgrade rlm-mcp."
    assert log[-1]["type"] == "run_finished"


def test_what_a_page_draws_of_an_event_are_fields_of_its_class() -> None:
    assert {type_ for type_ in DRAWN if type_ not in DETAILS} == set()
    for type_, keys in DRAWN.items():
        assert keys <= {field.name for field in fields(DETAILS[type_])}, type_
    assert {*DRAWN_OF_CALL, "prompt", "error"} <= {field.name for field in fields(SubCall)}
