"""Several attempts at one question: what they agree on, their one budget, cancel and resume."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from rlm_mcp import RLMConfig, RLMEvent, RLMResponse, RLMWrapper
from rlm_mcp.engine.loop.agreement import Agreement, equal_groups, majority, read_verdict
from rlm_mcp.errors import InvalidInputError
from rlm_mcp.sandbox.host.sandbox import ProcessSandbox
from rlm_mcp.testing.scripted_model import ScriptedModel, open_scripted_model
from rlm_mcp.testing.scripted_replies import (
    Answer,
    ChatRequestView,
    Reply,
    Script,
    rejected,
    unauthorized,
)
from tests.commands import command, environment
from tests.crashing import cut_off
from tests.killing import Known, open_to_be_killed
from tests.serving import Served, cell, open_served
from tests.test_resume import database, turn_of, whole_trace
from tests.test_stdio import open_process

TEXT = "The harbour light is green.\n" * 60
THREE: dict[str, Any] = {"attempts": 3}
Moves = Callable[[int, int], Answer]


def attempt_of(request: ChatRequestView) -> int:
    """Which attempt asks, by its temperature; 0 for the judge."""
    return {0.6: 1, 0.75: 2, 0.9: 3}.get(request.params["temperature"], 0)


def played(moves: Moves, verdict: Answer = "no verdict", sub: Answer = "seen") -> Script:
    """A script: `moves` gives the reply of an attempt in its turn, both from 1."""

    def answer(request: ChatRequestView) -> Answer:
        if request.model == "sub":
            return sub
        number = attempt_of(request)
        return moves(number, turn_of(request) + 1) if number else verdict

    return answer


def saying(*answers: str) -> Moves:
    """Each attempt looks, and says its own answer."""
    return lambda attempt, turn: (
        cell(f"print({answers[attempt - 1]!r})") if turn == 1 else f"FINAL({answers[attempt - 1]})"
    )


async def ask(model: ScriptedModel, **config: Any) -> tuple[RLMResponse, list[RLMEvent]]:
    from openai import AsyncOpenAI  # noqa: PLC0415  # slow to load

    events: list[RLMEvent] = []
    async with AsyncOpenAI(base_url=model.base_url, api_key="k", max_retries=0) as client:
        wrapper = RLMWrapper(
            client,
            "root",
            "sub",
            config=RLMConfig(**THREE | config),
            sandbox=ProcessSandbox(min_isolation="process"),
        )
        return await wrapper.agenerate("What?", TEXT, on_event=events.append), events


def agreement(response: RLMResponse) -> str | None:
    assert response.support is not None
    return response.support.agreement


def judged(model: ScriptedModel) -> int:
    return sum(attempt_of(one) == 0 for one in model.requests if one.model == "root")


async def test_what_most_attempts_answer_is_taken_however_it_is_spelled() -> None:
    async with open_scripted_model(played(saying("1,042", "41", "'1042.'"))) as model:
        response, events = await ask(model)

    assert (response.answer, response.status) == ("1,042", "completed")
    assert agreement(response) == "2 of 3"
    assert judged(model) == 0
    finals = [event.detail["answer"] for event in events if event.type == "final_answer"]
    assert sorted(finals) == sorted(["1,042", "41", "1042.", "1,042"])
    assert response.iterations == 2


async def test_answers_in_other_words_are_judged_by_one_call() -> None:
    verdict = 'They are: {"same": [[1], [2, 3]], "best": 3}'
    moves = saying("green", "it is red", "red, I think")
    async with open_scripted_model(played(moves, verdict)) as model:
        response, _ = await ask(model)

    assert response.answer == "red, I think"
    assert agreement(response) == "2 of 3"
    assert judged(model) == 1


async def test_without_a_verdict_the_answer_given_most_often_or_first_is_taken() -> None:
    async with open_scripted_model(played(saying("a", "b", "c"))) as model:
        response, events = await ask(model)

    assert response.answer == "a"
    assert agreement(response) == "1 of 3"
    assert any("could not judge" in event.preview for event in events)


async def test_an_attempt_that_fails_does_not_lose_the_others() -> None:
    def moves(attempt: int, turn: int) -> Answer:
        return unauthorized() if attempt == 1 else saying("", "red", "red")(attempt, turn)

    async with open_scripted_model(played(moves)) as model:
        response, _ = await ask(model)

    assert (response.answer, response.status) == ("red", "completed")
    assert agreement(response) == "2 of 3"


async def test_where_all_attempts_fail_the_run_does() -> None:
    def moves(attempt: int, turn: int) -> Answer:
        return unauthorized(f"{attempt} {turn}")

    async with open_scripted_model(played(moves)) as model:
        response, _ = await ask(model)

    assert (response.answer, response.status) == (None, "failed")
    assert response.error is not None
    assert response.error.code == "model_authentication"


async def test_attempts_share_the_replies_of_sub_calls() -> None:
    has_one = anyio.Event()

    def moves(attempt: int, turn: int) -> Answer:
        if turn == 1:
            code = cell("seen = llm_query('What is it?')\nprint(seen)")
            return Reply(code, gate=None if attempt == 1 else has_one)
        has_one.set()
        return "FINAL_VAR(seen)"

    async with open_scripted_model(played(moves)) as model:
        response, _ = await ask(model)

    assert response.answer == "seen"
    assert agreement(response) == "3 of 3"
    assert (response.sub_calls, response.cached_sub_calls) == (1, 2)
    assert sum(one.model == "sub" for one in model.requests) == 1


async def test_attempts_have_one_budget() -> None:
    def moves(attempt: int, turn: int) -> Answer:
        code = cell(f"seen = llm_query('What is {attempt}?')\nprint(seen or 'none left')")
        return code if turn == 1 else "FINAL_VAR(seen)"

    async with open_scripted_model(played(moves)) as model:
        response, _ = await ask(model, max_sub_calls=2)

    assert response.sub_calls == 2
    assert sum(one.model == "sub" for one in model.requests) == 2
    assert response.answer == "seen"


async def test_typed_answers_agree_as_data() -> None:
    def moves(attempt: int, turn: int) -> Answer:
        values = ("{'b': 1, 'a': [2]}", "dict(a=[2], b=1)", "{'a': []}")
        return cell(f"FINAL({values[attempt - 1]})")

    async with open_scripted_model(played(moves)) as model:
        response, _ = await ask(model)

    assert response.data == {"a": [2], "b": 1}
    assert agreement(response) == "2 of 3"


async def until_one_has_answered(served: Served, run_id: str) -> None:
    """Wait until an attempt's answer is on record; no reply to it is asked for again then."""
    with anyio.fail_after(60):
        while True:
            trace = await whole_trace(served, run_id)
            if any(event["type"] == "final_answer" for event in trace):
                return
            await served.call(
                "rlm_run_wait", run_id=run_id, after_event=trace[-1]["seq"], wait_seconds=10
            )


async def test_cancel_stops_all_attempts_and_resume_goes_on_with_each(tmp_path: Path) -> None:
    gate = anyio.Event()

    def moves(attempt: int, turn: int) -> Answer:
        said = saying("red", "red", "red")(attempt, turn)
        return Reply(str(said), gate=gate) if attempt > 1 and turn == 2 else said

    async with open_served(tmp_path, played(moves)) as served:
        run = await served.call(
            "rlm_query", question="What?", text=TEXT, options=THREE, wait_seconds=0
        )
        with anyio.fail_after(60):
            await served.model.until(
                lambda: served.model.in_flight == 2 and served.model.received == 6
            )
        await until_one_has_answered(served, run["run_id"])
        cancelled = await served.call("rlm_run_cancel", run_id=run["run_id"])
        with anyio.fail_after(60):
            await served.model.until(lambda: served.model.in_flight == 0)
        served.model.requests.clear()
        gate.set()
        ended = await served.call("rlm_run_resume", run_id=run["run_id"], wait_seconds=60)
        variables = await served.call("rlm_run_variables", run_id=run["run_id"])

    assert cancelled["status"] == "cancelled"
    assert (ended["status"], ended["answer"]) == ("completed", "red")
    assert ended["support"]["agreement"] == "3 of 3"
    assert sorted(map(attempt_of, served.model.requests)) == [2, 3]
    assert [one["name"] for one in variables["variables"]] == ["FINAL"]


async def test_attempts_that_died_after_any_event_go_on_to_the_same_answer(tmp_path: Path) -> None:
    def moves(attempt: int, turn: int) -> Answer:
        code = f"kept = {attempt}\nprint(llm_query('What is {attempt}?'))"
        return (cell(code), cell("print(kept + 1)"), cell("FINAL('red' if kept else '')"))[turn - 1]

    async with open_served(tmp_path, played(moves)) as served:
        run = await served.call(
            "rlm_query", question="What?", text=TEXT, options=THREE, wait_seconds=60
        )
        trace = await whole_trace(served, run["run_id"])
        cuts = range(1, run["last_event"], 2)
        copies = [
            await anyio.to_thread.run_sync(cut_off, database(served), run["run_id"], at)
            for at in cuts
        ]
        served.model.requests.clear()
        ended = {
            copy: await served.call("rlm_run_resume", run_id=copy, wait_seconds=60)
            for copy in copies
        }

    assert run["answer"] == "red"
    assert run["support"]["agreement"] == "3 of 3"
    for at, copy in zip(cuts, copies, strict=True):
        told = {name: ended[copy][name] for name in ("status", "answer", "iterations", "support")}
        assert told == {name: run[name] for name in told}, trace[at - 1]
    # Nothing that was on record was asked again.
    again = [one for one in served.model.requests if one.model == "root"]
    assert len(again) == sum(9 - _replies(trace[:at]) for at in cuts)


def _replies(trace: Sequence[dict[str, Any]]) -> int:
    return sum(event["type"] == "code_generated" for event in trace)


async def test_attempts_survive_the_death_of_their_server(tmp_path: Path) -> None:
    gate = anyio.Event()

    def moves(attempt: int, turn: int) -> Answer:
        said = saying("red", "red", "blue")(attempt, turn)
        return Reply(str(said), gate=gate) if attempt > 1 and turn == 2 else said

    async with open_scripted_model(played(moves)) as model:
        known = Known(tmp_path, model)
        async with open_to_be_killed(known) as (served, kill):
            run = await served.call(
                "rlm_query", question="What?", text=TEXT, options=THREE, wait_seconds=0
            )
            with anyio.fail_after(60):
                await model.until(lambda: model.in_flight == 2 and model.received == 6)
            await until_one_has_answered(served, run["run_id"])
            kill()
        with anyio.fail_after(60):
            await model.until(lambda: model.in_flight == 0)
        model.requests.clear()
        gate.set()
        async with open_process(tmp_path, model) as served:
            await served.call("rlm_run_resume", run_id=run["run_id"], wait_seconds=0)
            ended = await served.ended(run["run_id"])

    assert (ended["status"], ended["answer"]) == ("completed", "red")
    assert ended["support"]["agreement"] == "2 of 3"
    assert sorted(map(attempt_of, model.requests)) == [2, 3]


async def test_attempts_do_not_continue_a_run(tmp_path: Path) -> None:
    async with open_served(tmp_path, played(saying("red", "red", "red"))) as served:
        first = await served.call(
            "rlm_query", question="What?", text=TEXT, options=THREE, wait_seconds=60
        )
        ask_on = partial(served.client.call_tool, "rlm_query")
        refused = await ask_on(
            {"question": "And?", "continue_run": first["run_id"], "options": THREE}
        )

    assert refused.is_error
    assert "attempts=3 and continue_run cannot go together" in str(refused.content)


async def test_the_command_takes_attempts_and_says_how_many_agree(tmp_path: Path) -> None:
    async with open_scripted_model(played(saying("red", "red", "blue"))) as model:
        given = environment(tmp_path, model.base_url)
        asked = ("query", "What?", "--text", TEXT, "--attempts", "3")
        told = await command(given, *asked)
        as_json = await command(given, *asked, "--json")

    assert told.exit_code == 0, told.stderr
    assert "2 of 3 attempts agree." in told.stdout + told.stderr
    assert json.loads(as_json.stdout)["support"]["agreement"] == "2 of 3"


def of(*answers: str) -> list[RLMResponse]:
    return [RLMResponse(answer, "completed", 1, 0, 0, 0, 0.0) for answer in answers]


def test_whole_numbers_of_typed_answers_are_equal_however_they_are_written() -> None:
    given = [
        replace(one, data={"n": [n]})
        for one, n in zip(of("a", "b", "c"), (42, 42.5, 42.0), strict=True)
    ]
    assert equal_groups(given) == [[0, 2], [1]]


def test_equal_answers_stand_together_with_the_most_frequent_first() -> None:
    groups = equal_groups(of("b", "A  c.", "a c", "1,000", "'1000'", "a C"))

    assert groups == [[1, 2, 5], [3, 4], [0]]
    assert majority(groups, 6) is None
    assert majority(groups, 5) == Agreement(1, 3)


@pytest.mark.parametrize(
    ("reply", "wanted"),
    [
        ('{"same": [[2, 3]], "best": 3}', Agreement(3, 2)),
        ('{"same": [[1], [2], [3]], "best": 1}', Agreement(0, 2)),
        ('```json\n{"same": [], "best": 2}\n```', Agreement(0, 2)),
        ('{"same": [[1, 2, 3, 9]], "best": 2}', Agreement(2, 4)),
    ],
)
def test_a_verdict_joins_groups_of_equal_answers(reply: str, wanted: Agreement) -> None:
    assert read_verdict(reply, [[0, 1], [2], [3]]) == wanted


@pytest.mark.parametrize("reply", ["", "the first", '{"same": [], "best": 7}', '{"best": 1}'])
def test_a_verdict_that_names_no_answer_is_refused(reply: str) -> None:
    with pytest.raises(InvalidInputError):
        read_verdict(reply, [[0], [1]])


async def test_a_verdict_that_is_refused_by_the_endpoint_takes_no_answer_away() -> None:
    script = played(saying("a", "b", "b, surely"), rejected(400, "no"))
    async with open_scripted_model(script) as model:
        response, _ = await ask(model)

    assert (response.answer, agreement(response)) == ("a", "1 of 3")
