"""Files of a batch as people and programs write them, and what none of them may overwrite."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from rlm_mcp import open_batch
from rlm_mcp.errors import InvalidInputError, NotFoundError
from rlm_mcp.service.batch.batch import BatchOptions
from rlm_mcp.store.database import DATABASE_NAME
from rlm_mcp.testing.scripted_model import ScriptedModel, open_scripted_model
from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView, Fault, Reply
from tests.commands import command, environment, process, started
from tests.serving import settings_in


class Script:
    """Answers with what the question says in brackets, or not while `fails` or `gate` say so."""

    def __init__(self) -> None:
        self.fails = False
        self.gate: anyio.Event | None = None

    def __call__(self, request: ChatRequestView) -> Answer:
        if self.fails:
            return Fault(400, {"error": {"message": "Not today."}})
        said = re.findall(r"say <(.*?)>", str(request.messages[-1]["content"]))
        return Reply(f"FINAL({said[0] if said else 'nothing'})", gate=self.gate)


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
async def model(script: Script) -> AsyncGenerator[ScriptedModel]:
    async with open_scripted_model(script) as model:
        yield model


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with a text; questions and results lie beside it."""
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "a.txt").write_text("a text of some words\n")
    return tmp_path / "work"


def given(place: Path, *more: str, texts: str = "a.txt") -> list[str]:
    questions, out = str(place / "q.jsonl"), str(place / "r.jsonl")
    return ["batch", questions, "--texts", str(place / texts), "--out", out, *more]


def forget_log(directory: Path, run_id: str) -> None:
    with closing(sqlite3.connect(directory / DATABASE_NAME)) as db, db:
        db.execute(
            "DELETE FROM events WHERE run = (SELECT id FROM runs WHERE run_id = ?)", [run_id]
        )


async def write(place: Path, *lines: Mapping[str, Any]) -> None:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    await anyio.Path(place / "q.jsonl").write_text(text)


async def results(place: Path) -> dict[str, dict[str, Any]]:
    text = await anyio.Path(place / "r.jsonl").read_text()
    return {one["id"]: one for one in map(json.loads, text.splitlines())}


def asked(id_: str, said: str = "", **more: Any) -> dict[str, Any]:
    return {"id": id_, "question": f"Please say <{said or id_}>", **more}


async def test_lines_of_every_kind_are_asked_or_refused_each_for_itself(
    place: Path, model: ScriptedModel
) -> None:
    lines = [
        asked("a", contexts=["a.txt"], expected="A"),
        asked("n", "about -1,200", expected=-1200, score="number"),
        asked("e", '{"b": 1, "a": [2]}', expected={"a": [2], "b": 1}, score="exact")
        | {"answer_schema": {"type": "object"}},
        asked("lone \ud800", "\ud800"),
        asked("glob", contexts=["*.txt"]),
        asked("outside", contexts=["../secret.txt"]),
        asked("long name", contexts=["x" * 5000]),
        asked("number", budget={"max_tokens": float("nan")}),
        asked("schema", answer_schema={"type": "nonsense"}),
        asked("long", "q" * 30_000),
    ]
    texts = ("\r\n\r\n".join(map(json.dumps, lines))).encode()
    await anyio.Path(place / "q.jsonl").write_bytes(b"\xef\xbb\xbf" + texts + b"\r\n\xff\xff")
    await anyio.Path(place.parent / "secret.txt").write_text("secret")
    env = environment(place.parent, model.base_url)
    done = await command(env, *given(place, texts="."))
    found = await results(place)

    assert done.exit_code == 1
    assert f"line {2 * len(lines)}: not UTF-8: byte 0xff at position 0" in done.stderr
    assert f"4 of {len(lines)} questions answered" in done.stderr
    refused = {id_: one["error"]["message"] for id_, one in found.items() if one["error"]}
    assert {id_: one["score"] for id_, one in found.items() if id_ not in refused} == {
        "a": 1.0,
        "n": 1.0,
        "e": 1.0,
        "lone ?": None,
    }
    assert "no text '*.txt'" in refused["glob"]
    assert "no text '../secret.txt'" in refused["outside"]
    assert set(refused) == {"glob", "outside", "long name", "number", "schema", "long"}


async def test_a_pattern_that_takes_too_long_costs_its_score_and_holds_nobody(
    place: Path, model: ScriptedModel
) -> None:
    endless, plain = "a" * 60 + "!", "ship 12"
    lines = [asked("endless", endless, expected="(a+)+$"), asked("found", plain, expected=r"\d$")]
    settings = settings_in(place, base_url=model.base_url)
    options = BatchOptions(score="regex")
    async with open_batch([place / "a.txt"], settings=settings, options=options) as batch:
        found = {one["id"]: one async for one in batch.run(lines)}
        with pytest.raises(InvalidInputError, match=r"'\(' is not a pattern"):
            await anext(batch.run([asked("bad", expected="(")]))

    assert (found["endless"]["answer"], found["endless"]["score"]) == (endless, None)
    assert "'(a+)+$' took over 5 s" in found["endless"]["score_error"]["message"]
    assert found["found"]["score"] == 1.0


async def test_a_batchs_own_files_among_its_texts_are_left_out_of_them(
    place: Path, model: ScriptedModel
) -> None:
    await write(place, asked("a", expected="a"))
    env = environment(place.parent, model.base_url)
    first = await command(env, *given(place, texts="."))
    again = await command(env, *given(place, texts="*"))
    handles = await command(env, "contexts", "list", "--json")

    assert (first.exit_code, again.exit_code) == (0, 0), first.stderr + again.stderr
    assert model.received == 1  # the text is the same one
    [text] = json.loads(handles.stdout)["contexts"]
    assert text["documents"] == 1


@pytest.mark.parametrize(
    ("out", "told"),
    [
        ("q.jsonl", "--out would overwrite"),
        ("a.txt", "--out would overwrite"),
        ("-", "--out '-' is not a file"),
        (".", "is a directory"),
    ],
)
async def test_results_go_over_no_file_that_is_read_and_to_none_that_is_none(
    place: Path, out: str, told: str
) -> None:
    await write(place, asked("a"))
    env = environment(place.parent, "http://127.0.0.1:9/v1")
    path = out if out == "-" else str(place / out)
    done = await command(env, *given(place)[:-1], path)

    assert (done.exit_code, told in done.stderr) == (2, True), done.stderr
    assert "say <a>" in await anyio.Path(place / "q.jsonl").read_text()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--max-usd", "1"], "--max-usd 1.0 cannot be kept"),
        (["--max-usd", "nan"], "--max-usd nan"),
        (["--max-usd", "-1"], "--max-usd -1"),
        (["--at-once", "0"], "0 is not in the range 1<=x<=10000"),
        (["--texts", "ctx_0"], "There is no context 'ctx_0'"),
        (["--texts", "nosuch"], "The path 'nosuch' does not exist"),
    ],
)
async def test_results_that_are_there_stay_where_a_batch_cannot_begin(
    place: Path, more: list[str], told: str
) -> None:
    await anyio.Path(place / "r.jsonl").write_text("earlier\n")
    await write(place, asked("a"))
    env = environment(place.parent, "http://127.0.0.1:9/v1")
    done = await command(env, *given(place, *more))

    assert (done.exit_code, told in done.stderr) == (2, True), done.stderr
    assert await anyio.Path(place / "r.jsonl").read_text() == "earlier\n"


@pytest.mark.parametrize(
    ("line", "name", "told"),
    [
        ("\n{}\n", "root", "has no line that can be asked. Write one JSON object per line"),
        (json.dumps(asked("a")), "", "RLM_MCP_ROOT_MODEL is not set"),
    ],
)
async def test_results_that_are_there_stay_where_nothing_can_be_asked(
    place: Path, line: str, name: str, told: str
) -> None:
    await anyio.Path(place / "r.jsonl").write_text("earlier\n")
    await anyio.Path(place / "q.jsonl").write_text(line)
    env = environment(place.parent, "http://127.0.0.1:9/v1", RLM_MCP_ROOT_MODEL=name)
    done = await command(env, *given(place))

    assert (done.exit_code, told in done.stderr) == (2, True), done.stderr
    assert await anyio.Path(place / "r.jsonl").read_text() == "earlier\n"


async def test_once_the_money_is_spent_what_is_on_record_has_its_results_still(
    place: Path, model: ScriptedModel
) -> None:
    await write(place, asked("a"), asked("b"))
    env = environment(place.parent, model.base_url)
    await command(env, *given(place))
    await write(place, asked("a"), asked("new"), asked("b"))
    spent = await command(env, *given(place, "--max-usd", "0", "--report"))
    found = await results(place)

    assert (spent.exit_code, model.received) == (1, 2)
    assert "1 not asked: --max-usd 0 is spent." in spent.stderr
    assert {id_: one["answer"] for id_, one in found.items()} == {"a": "a", "b": "b"}
    assert json.loads(spent.stdout)["unasked"] == 1


async def test_runs_that_failed_are_retried_each_time_that_is_asked_for(
    place: Path, model: ScriptedModel, script: Script
) -> None:
    await write(place, asked("a"))
    env = environment(place.parent, model.base_url)
    script.fails = True
    counts: list[int] = []
    for more in ([], [], ["--retry", "failed"], ["--retry", "failed"]):
        done = await command(env, *given(place, *more))
        counts.append(model.received)
        assert (done.exit_code, (await results(place))["a"]["status"]) == (1, "failed")
    script.fails = False
    done = await command(env, *given(place, "--retry", "failed"))

    assert counts[0] == counts[1] < counts[2] < counts[3]
    assert (done.exit_code, (await results(place))["a"]["answer"]) == (0, "a")


async def test_a_run_that_cannot_be_resumed_keeps_its_figures_and_says_why(
    place: Path, model: ScriptedModel, script: Script
) -> None:
    settings = settings_in(place, base_url=model.base_url)
    options = BatchOptions(retries_failed=True)
    script.fails = True
    async with open_batch([place / "a.txt"], settings=settings) as batch:
        [failed] = [one async for one in batch.run([asked("a")])]
    await anyio.to_thread.run_sync(forget_log, settings.data_dir, failed["run_id"])
    async with open_batch([place / "a.txt"], settings=settings, options=options) as batch:
        [found] = [one async for one in batch.run([asked("a")])]

    assert (found["status"], found["run_id"]) == ("failed", failed["run_id"])
    assert "was deleted with its text" in found["error"]["message"]


async def test_questions_come_from_standard_input_too(place: Path, model: ScriptedModel) -> None:
    env = environment(place.parent, model.base_url)
    line = json.dumps(asked("a")).encode()
    read = ["batch", "-", "--texts", str(place / "a.txt"), "--out", str(place / "r.jsonl")]
    done = await process(env, *read, given=line)
    nothing = await process(env, *read, given=b"")

    assert done[0] == 0, done[2]
    assert (await results(place))["a"]["answer"] == "a"
    assert (nothing[0], "Standard input is empty" in nothing[2]) == (2, True)


@pytest.mark.skipif(sys.platform == "win32", reason="files are not locked there")
@pytest.mark.usefixtures("interruptible")
async def test_two_batches_never_write_to_one_file_and_ctrl_c_says_how_to_go_on(
    place: Path, model: ScriptedModel, script: Script
) -> None:
    await write(place, asked("a"))
    env = environment(place.parent, model.base_url)
    script.gate = anyio.Event()
    with anyio.fail_after(120):
        async with await anyio.open_process(started(*given(place)), env=env) as working:
            assert working.stderr is not None
            await model.until(lambda: model.in_flight == 1)
            second = await command(env, *given(place))
            working.send_signal(signal.SIGINT)
            said = "".join([part.decode() async for part in working.stderr])
            code = await working.wait()
    script.gate.set()
    done = await command(env, *given(place))

    assert (second.exit_code, "Another batch writes its results to" in second.stderr) == (2, True)
    assert (code, "Run the same command again to continue" in said) == (130, True), said
    assert (done.exit_code, (await results(place))["a"]["answer"]) == (0, "a")
    assert model.received == 2  # the one that was in flight


async def test_whoever_stops_early_gets_no_group_of_exceptions(
    place: Path, model: ScriptedModel
) -> None:
    settings = settings_in(place, base_url=model.base_url)
    async with open_batch([place / "a.txt"], settings=settings) as batch:
        async with aclosing(batch.run([asked(str(number)) for number in range(12)])) as answered:
            first = await anext(answered)

        assert first["status"] == "completed"
        assert batch.report()["questions"] == 1


async def test_a_handle_that_is_not_stored_is_refused_before_anything_is_asked(
    place: Path, model: ScriptedModel
) -> None:
    with pytest.raises(NotFoundError, match="no context 'ctx_0'"):
        async with open_batch(["ctx_0"], settings=settings_in(place, base_url=model.base_url)):
            raise AssertionError


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (BatchOptions(at_once=0), "at_once is 0"),
        (BatchOptions(score="best"), "no score 'best'"),
    ],
)
async def test_options_with_which_nothing_could_be_asked_or_scored_are_refused(
    place: Path, options: BatchOptions, told: str
) -> None:
    with pytest.raises(InvalidInputError, match=told):
        async with open_batch([place / "a.txt"], options=options):
            raise AssertionError
