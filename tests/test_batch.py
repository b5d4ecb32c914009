"""`rlm-mcp batch`: many questions, their results and scores, and a batch that is started again."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from rlm_mcp import open_batch
from rlm_mcp.errors import InvalidInputError
from rlm_mcp.service.batch.batch import Batch, BatchOptions
from rlm_mcp.service.batch.lines import BatchLine, read_lines
from rlm_mcp.service.batch.report import report, wilson_interval
from rlm_mcp.service.batch.scores import SCORES
from rlm_mcp.service.contexts.requests import NewText
from rlm_mcp.service.contexts.writing import no_report
from rlm_mcp.service.opening import open_service
from rlm_mcp.testing.scripted_model import (
    Answer,
    ChatRequestView,
    Fault,
    Reply,
    ScriptedModel,
    open_scripted_model,
)
from tests.commands import command, environment, started
from tests.serving import SHARED_SANDBOX, cell, settings_in

COUNT = 24


def answer(request: ChatRequestView) -> Answer:
    """Answers with the number in the question, after a turn of code."""
    turn = sum(message["role"] == "assistant" for message in request.messages)
    number = re.findall(r"number (\d+)", str(request.messages))[0]
    text = cell(f"n = {number}\nprint(n, len(context))") if turn == 0 else f"FINAL({number})"
    return Reply(text, latency_seconds=0.02)


def write_batch(directory: Path, count: int = COUNT) -> Path:
    texts = directory / "texts"
    texts.mkdir()
    for number in range(3):
        (texts / f"{number}.txt").write_text(f"text {number}\n" * 20)
    lines = [
        {"id": f"q{n}", "question": f"Which number {n}?", "contexts": [f"{n % 3}.txt"]}
        | {"expected": str(n)}
        for n in range(count)
    ]
    path = directory / "questions.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def read_results(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def arguments(directory: Path, *more: str) -> list[str]:
    names = ("questions.jsonl", "--texts", "texts", "--out", "results.jsonl")
    paths = [name if name.startswith("--") else str(directory / name) for name in names]
    return ["batch", *paths, *more]


async def test_a_batch_answers_each_question_and_costs_nothing_the_second_time(
    tmp_path: Path,
) -> None:
    await anyio.to_thread.run_sync(write_batch, tmp_path)
    async with open_scripted_model(answer) as model:
        env = environment(tmp_path, model.base_url)
        done = await command(env, *arguments(tmp_path, "--report"))
        asked = model.received
        again = await command(env, *arguments(tmp_path, "--report", "--at-once", "2"))
        results = await anyio.to_thread.run_sync(read_results, tmp_path / "results.jsonl")
        told = (asked, model.received)

    assert (done.exit_code, again.exit_code) == (0, 0), done.stderr
    assert told == (COUNT * 2, COUNT * 2)
    summary = json.loads(done.stdout)
    assert (summary["questions"], summary["score"]) == (COUNT, 1.0)
    assert summary["by_status"] == {"completed": COUNT}
    assert {one["id"]: one["answer"] for one in results} == {f"q{n}": str(n) for n in range(COUNT)}


async def kill_in_the_middle(directory: Path, model: ScriptedModel, least: int) -> None:
    env = environment(directory, model.base_url)
    process = await anyio.open_process(started(*arguments(directory, "--at-once", "4")), env=env)
    with anyio.fail_after(60):
        await model.until(lambda: model.received >= least)
    process.kill()
    await process.wait()


async def test_a_batch_that_is_killed_goes_on_and_pays_again_for_what_was_in_flight_alone(
    tmp_path: Path,
) -> None:
    await anyio.to_thread.run_sync(write_batch, tmp_path)
    async with open_scripted_model(answer) as model:
        await kill_in_the_middle(tmp_path, model, 11)
        await kill_in_the_middle(tmp_path, model, 29)
        done = await command(environment(tmp_path, model.base_url), *arguments(tmp_path))
        results = await anyio.to_thread.run_sync(read_results, tmp_path / "results.jsonl")
        received = model.received

    assert done.exit_code == 0, done.stderr
    assert sorted(one["id"] for one in results) == sorted(f"q{n}" for n in range(COUNT))
    assert {one["score"] for one in results} == {1.0}
    assert COUNT * 2 <= received <= COUNT * 2 + 2 * 4


async def test_bad_lines_and_unknown_texts_are_named_and_money_ends_a_batch(
    tmp_path: Path,
) -> None:
    path = await anyio.to_thread.run_sync(write_batch, tmp_path, 2)
    bad = '{"id": "q0", "question": "twice"}\nnonsense\n{"id": "x"}\n'
    lost = '{"id": "lost", "question": "number 9?", "contexts": ["nowhere.txt"]}\n'
    text = await anyio.Path(path).read_text()
    await anyio.Path(path).write_text(text + bad + lost)
    async with open_scripted_model(answer) as model:
        env = environment(tmp_path, model.base_url)
        strict = await command(env, *arguments(tmp_path, "--strict"))
        none = await command(env, *arguments(tmp_path, "--max-usd", "0", "--report"))
        done = await command(env, *arguments(tmp_path))
    assert strict.exit_code == 2
    assert "line 3: id 'q0' was used before" in done.stderr
    assert "line 4: not JSON" in done.stderr
    assert "line 5: question is missing" in done.stderr
    assert (done.exit_code, "2 of 3 questions answered" in done.stderr) == (1, True)
    assert (json.loads(none.stdout)["unasked"], none.exit_code) == (2, 1)


@pytest.mark.parametrize(
    ("score", "given", "expected", "value"),
    [
        ("exact", "The Keeper.", "the keeper", 1.0),
        ("contains", "It is Ottilie, of course", "ottilie", 1.0),
        ("contains", "12", "2", 0.0),
        ("number", "about 1,200 ships", "1200", 1.0),
        ("number", "none", "0", 0.0),
        ("number", "5", "none", 0.0),
        ("number", "10-20", "20", 1.0),
        ("number", "it fell by −3.5", "-3.5", 1.0),
        ("number", "[1,2,3]", "2", 1.0),
        ("number", "1e-07", "0.0000001", 1.0),
        ("exact", "-5", "5", 0.0),
        ("contains", "2020-11-27", "2020-11", 1.0),
        ("f1", "red and green", "green", 0.5),
        ("f1", "red", "green", 0.0),
    ],
)
def test_an_answer_is_compared_with_the_expected_one(
    score: str, given: str, expected: str, value: float
) -> None:
    assert SCORES[score](given, expected) == value


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("[1]", "not a JSON object: [1]"),
        ("[" * 100_000, "not JSON: "),
        (b'{"id": 1, "question": "\xff"}', "not UTF-8: byte 0xff at position 23"),
        ('{"question": "?"}', "id is missing; give text or a whole number"),
        ('{"id": true, "question": "?"}', "id is True; give text or a whole number"),
        ('{"id": 1, "question": 5}', "question is 5; give text"),
        ('{"id": 1, "question": "?", "contexts": "a.txt"}', "contexts is 'a.txt'; give a list"),
        ('{"id": 1, "question": "?", "contexts": ""}', "contexts is ''; give a list"),
        ('{"id": 1, "question": "?", "contexts": [1]}', "contexts is [1]; give a list"),
        ('{"id": 1, "question": "?", "budget": []}', "budget is []; give an object"),
        ('{"id": 1, "question": "?", "answer_schema": "x"}', "answer_schema is 'x'; give an obj"),
        ('{"id": 1, "question": "?", "score": "best"}', "unknown score 'best'; there are contains"),
        ('{"id": 1, "question": "?", "score": ["f1"]}', "unknown score ['f1']; there are"),
        ('{"id": 1, "question": "?", "k": 1}', "unknown key 'k'; there are id, question,"),
        ('{"id": 1, "question": "?", "expected": "("}', "expected '(' is not a pattern: missing )"),
    ],
)
def test_a_bad_line_has_its_number_and_a_reason_that_says_what_to_write(
    line: str | bytes, reason: str
) -> None:
    good, bad = read_lines(["", line, '{"id": 1, "question": "?", "expected": 3}'], "regex")
    assert [(one.id, one.expected) for one in good] == [("1", "3")]
    assert [one.number for one in bad] == [2]
    assert bad[0].reason.startswith(reason)


def test_lines_are_read_whatever_kind_of_value_they_hold() -> None:
    asked = '"question": "?", "expected":'
    good, bad = read_lines(
        [
            '{"id": "a", ' + asked + ' {"n": 1, "ok": true, "x": null}}\r',
            '{"id": "b", ' + asked + " false}",
            '{"id": "c", ' + asked + ' ["ä", 2.5]}',
            '{"id": 1.5, ' + asked + " 1}",
            "[" * 100_000,
        ]
    )

    assert [line.expected for line in good] == [
        '{"n": 1, "ok": true, "x": null}',
        "false",
        '["ä", 2.5]',
    ]
    assert [(line.number, line.reason.split(":")[0]) for line in bad] == [
        (4, "id is 1.5; give text or a whole number"),
        (5, "not JSON"),
    ]


def test_a_report_of_nothing_is_whole() -> None:
    assert report([])["score"] is None
    assert wilson_interval(1.0, 10)[0] == pytest.approx(0.7225, abs=1e-4)


async def test_a_run_of_a_batch_that_is_cancelled_at_work_is_resumed_by_the_next_one_alone(
    tmp_path: Path,
) -> None:
    gate = anyio.Event()
    lines = [BatchLine("a", "Which?")]
    async with (
        open_scripted_model(lambda _: Reply("FINAL(done)", gate=gate)) as model,
        open_service(
            settings_in(tmp_path, base_url=model.base_url), shared=SHARED_SANDBOX.get()
        ) as service,
    ):
        handle = (await service.contexts.add(NewText(text="a text"), no_report)).handle

        async def find(names: Sequence[str]) -> tuple[str, ...]:
            del names
            return (str(handle),)

        async def results() -> list[dict[str, Any]]:
            return [one async for one in Batch(service.runs, find, BatchOptions("b")).run(lines)]

        first: list[dict[str, Any]] = []

        async def ask() -> None:
            first.extend(await results())

        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                group.start_soon(ask)
                await model.until(lambda: model.in_flight == 1)
                [run] = (await service.runs.list(None, 10, "")).items
                await service.runs.cancel(run.run_id)
            gate.set()
            second = await results()

    assert [one["status"] for one in first] == ["cancelled"]
    assert [(one["status"], one["answer"]) for one in second] == [("completed", "done")]
    assert first[0]["run_id"] == second[0]["run_id"]


async def test_a_limit_in_usd_without_prices_is_refused_before_anything_is_asked(
    tmp_path: Path,
) -> None:
    await anyio.to_thread.run_sync(write_batch, tmp_path, 2)
    async with open_scripted_model(answer) as model:
        env = environment(tmp_path, model.base_url)
        done = await command(env, *arguments(tmp_path, "--max-usd", "1"))
        received = model.received
    assert (done.exit_code, received) == (2, 0)
    assert "--max-usd 1.0 cannot be kept" in done.stderr


async def test_a_batch_whose_results_cannot_be_written_ends(tmp_path: Path) -> None:
    await anyio.to_thread.run_sync(write_batch, tmp_path, 12)
    full = Path("/dev/full")
    (tmp_path / "results.jsonl").symlink_to(full)
    async with open_scripted_model(answer) as model:
        env = environment(tmp_path, model.base_url)
        done = await command(env, *arguments(tmp_path, "--at-once", "1"))
        received = model.received
    assert done.exit_code == 2
    assert received < 12 * 2
    assert "results.jsonl': No space left on device. Make room there" in done.stderr


async def test_files_of_a_batch_that_cannot_be_used_are_told_before_anything_is_asked(
    tmp_path: Path,
) -> None:
    await anyio.to_thread.run_sync(write_batch, tmp_path, 1)
    env = environment(tmp_path, "http://127.0.0.1:9/v1")
    out = tmp_path / "missing" / "results.jsonl"
    unwritten = await command(env, *arguments(tmp_path)[:-1], str(out))
    (tmp_path / "questions.jsonl").write_text("{}", encoding="utf-16")
    unread = await command(env, *arguments(tmp_path))

    assert (unwritten.exit_code, unread.exit_code) == (2, 2)
    assert f"The file {str(out)!r} cannot be written: No such file" in unwritten.stderr
    assert "questions.jsonl' is in UTF-16. Save it in UTF-8" in unread.stderr
    assert "Traceback" not in unwritten.stderr + unread.stderr


def judged(request: ChatRequestView) -> Answer:
    """Answers questions, and as a judge finds only the answer to the first one right."""
    said = str(request.messages)
    if "Score an answer" not in said:
        return answer(request)
    is_right = "the expected answer\\n0\\n" in said
    return Reply(f"FINAL({{'score': {int(is_right)}}})")


async def test_a_program_asks_a_batch_whose_answers_a_model_judges_and_pays_once(
    tmp_path: Path,
) -> None:
    await anyio.to_thread.run_sync(write_batch, tmp_path, 3)
    lines = [{"id": n, "question": f"Which number {n}?", "expected": f"{n}"} for n in range(2)]
    options = BatchOptions(score="judge", judge_model="arbiter")
    found: list[list[dict[str, Any]]] = []
    reports: list[dict[str, Any]] = []
    async with open_scripted_model(judged) as model:
        settings = settings_in(tmp_path, base_url=model.base_url)
        for _ in range(2):
            async with open_batch(
                [tmp_path / "texts"], settings=settings, options=options
            ) as batch:
                found.append([one async for one in batch.run(lines)])
                reports.append(batch.report())
        asked = [request.model for request in model.requests]

    first, second = (sorted(results, key=lambda one: one["id"]) for results in found)
    assert first == second
    assert [(one["id"], one["answer"], one["score"]) for one in first] == [
        ("0", "0", 1.0),
        ("1", "1", 0.0),
    ]
    assert [(one["score"], one["scored"]) for one in reports] == [(0.5, 2)] * 2
    assert sorted(asked) == ["arbiter"] * 2 + ["root"] * 4


async def test_a_batch_over_stored_handles_refuses_lines_that_cannot_be_asked(
    tmp_path: Path,
) -> None:
    async with open_scripted_model(answer) as model:
        settings = settings_in(tmp_path, base_url=model.base_url)
        async with open_service(settings) as service:
            handle = (await service.contexts.add(NewText(text="a text"), no_report)).handle
        async with open_batch([str(handle)], settings=settings) as batch:
            for bad in ([{"id": "a"}], [BatchLine("a", "?"), {"id": "a", "question": "?"}]):
                with pytest.raises(InvalidInputError, match=r"question is missing|stands for two"):
                    await anext(batch.run(bad))
            results = [one async for one in batch.run([BatchLine("a", "Which number 7?")])]
            received = model.received

    assert [(one["status"], one["answer"]) for one in results] == [("completed", "7")]
    assert received == 2


def without_judge(request: ChatRequestView) -> Answer:
    """Answers questions; the judge's model is refused."""
    if request.model == "arbiter":
        return Fault(400, {"error": {"message": "There is no such model."}})
    return answer(request)


async def test_an_answer_stays_where_its_judge_fails_and_the_result_says_why(
    tmp_path: Path,
) -> None:
    await anyio.to_thread.run_sync(write_batch, tmp_path, 1)
    options = BatchOptions(score="judge", judge_model="arbiter")
    async with open_scripted_model(without_judge) as model:
        settings = settings_in(tmp_path, base_url=model.base_url)
        async with open_batch([tmp_path / "texts"], settings=settings, options=options) as batch:
            line = {"id": "a", "question": "Which number 7?", "expected": "7"}
            [result] = [one async for one in batch.run([line])]
            summary = batch.report()

    assert (result["status"], result["answer"], result["score"]) == ("completed", "7", None)
    assert "no such model" in result["score_error"]["message"]
    assert (summary["score"], summary["scored"]) == (None, 0)
