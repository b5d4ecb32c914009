"""Runs on workers: what crosses, who may write, and what happens when a worker is lost."""

from __future__ import annotations

import json
import pickle
import re
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from rlm_mcp import __version__
from rlm_mcp.errors import (
    BudgetExceededError,
    ConfigurationError,
    NotFoundError,
    RunLostError,
    StoreError,
)
from rlm_mcp.sandbox.choice import OwnedSandbox
from rlm_mcp.sandbox.types import Isolation
from rlm_mcp.service import saved_variables
from rlm_mcp.service.contexts.requests import NewText
from rlm_mcp.service.contexts.writing import no_report
from rlm_mcp.service.doctor import check_workers
from rlm_mcp.service.executor import answering, crew, remote_text
from rlm_mcp.service.executor.cluster import WorkerState
from rlm_mcp.service.executor.messages import Refused, given
from rlm_mcp.service.executor.ray_cluster import open_cluster
from rlm_mcp.service.executor.sent_settings import received, to_send
from rlm_mcp.service.executor.worker import Worker
from rlm_mcp.service.opening import open_service
from rlm_mcp.service.runs.questions import Question
from rlm_mcp.service.runs.runs import RunState
from rlm_mcp.service.service import Service
from rlm_mcp.store.runs.attempts import MAX_ATTEMPTS
from rlm_mcp.store.runs.runs import Runs
from rlm_mcp.testing.scripted_model import ScriptedModel, open_scripted_model
from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView, Reply
from tests.in_process_cluster import InProcess, InProcessCluster, ended, open_front
from tests.serving import KEY, SHARED_SANDBOX, cell, settings_in
from tests.walls import a_sandbox

STEPS = 5
TEXT = "MAGIC-7 " + "nothing of note " * 4000


class Script:
    """Ten small turns, each with a sub-call; `gate` holds a sub-call back until it is set."""

    def __init__(self) -> None:
        self.gates: dict[str, anyio.Event] = {}

    def __call__(self, request: ChatRequestView) -> Answer:
        if request.model == "sub":
            step = re.findall(r"step (\d+)", request.text)[0]
            return Reply(f"reply {step}", gate=self.gates.get(step))
        turn = sum(message["role"] == "assistant" for message in request.messages)
        if turn == STEPS:
            return cell("FINAL(' '.join(replies))")
        first = "replies = []\n" if turn == 0 else ""
        return cell(
            f"{first}replies.append(llm_query('step {turn}' + context[:7]))\nprint(replies)"
        )


ANSWER = " ".join(f"reply {step}" for step in range(STEPS))


pytestmark = pytest.mark.usefixtures("one_sandbox_for_all")


@pytest.fixture(autouse=True)
def key_of_the_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLM_MCP_API_KEY", "key-of-the-nodes")


@pytest.fixture(autouse=True)
def little_time_to_save_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    # A worker of this process is not killed but cancelled, and looks at a REPL whose cell runs.
    monkeypatch.setattr(saved_variables, "SAVE_SECONDS", 0.2)


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
async def model(script: Script) -> AsyncGenerator[ScriptedModel]:
    async with open_scripted_model(script) as model:
        yield model


async def begin(service: Service, text: str = TEXT) -> str:
    added = await service.contexts.add(NewText(text=text), no_report)
    return (await service.runs.begin(Question("What?", (str(added.handle),)))).run_id


def keys_seen(model: ScriptedModel) -> set[str]:
    return {request.headers["authorization"] for request in model.requests}


@pytest.mark.parametrize(
    ("soon_seconds", "travels"), [(60.0, "with the next call"), (0.0, "by itself")]
)
async def test_an_answer_that_is_soon_there_travels_with_the_call_for_more_questions(
    tmp_path: Path,
    model: ScriptedModel,
    monkeypatch: pytest.MonkeyPatch,
    soon_seconds: float,
    travels: str,
) -> None:
    monkeypatch.setattr(answering, "SOON_SECONDS", soon_seconds)
    cluster = InProcessCluster()
    async with open_front(tmp_path, model, cluster) as service:
        state = await ended(service, await begin(service))

    [worker] = cluster.hosts
    settled, taken = (worker.calls.count(one) for one in ("settle", "take"))
    assert state.answer == ANSWER
    assert taken > STEPS
    # What is read of a text goes by itself in any case.
    assert (settled < STEPS) == (travels == "with the next call")


async def test_a_run_is_worked_on_by_a_worker_with_the_key_of_its_node(
    tmp_path: Path, model: ScriptedModel
) -> None:
    cluster = InProcessCluster()
    async with open_front(tmp_path, model, cluster) as service:
        run_id = await begin(service)
        state = await ended(service, run_id)
        events = await service.runs.events(run_id, 0, 200)
        variables = await service.runs.variables(run_id)

    assert (state.status, state.answer) == ("completed", ANSWER)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert [one.name for one in variables] == ["replies", "FINAL"]
    assert keys_seen(model) == {"Bearer key-of-the-nodes"}
    assert KEY not in repr(to_send(settings_in(tmp_path)))
    assert len(cluster.hosts) == 1


@asynccontextmanager
async def open_weaker() -> AsyncGenerator[tuple[OwnedSandbox, Isolation]]:
    """A sandbox for workers that says of itself what that of the server does not say."""
    shared = SHARED_SANDBOX.get()
    assert shared is not None
    found = await shared.isolation()
    told = replace(found, missing=(*found.missing, "a wall: this test says so"))
    async with a_sandbox(min_isolation="process", isolation=told) as sandbox:
        yield sandbox, told


async def walls_told(service: Service, run_id: str) -> list[Any]:
    events = await service.runs.events(run_id, 0, 500)
    return [one.detail.get("isolation") for one in events if one.type == "run_started"]


async def test_a_log_says_what_walls_the_worker_has_not_those_of_the_server(
    tmp_path: Path, model: ScriptedModel, script: Script
) -> None:
    """When a run begins, when another worker takes it over, when it is resumed, and for cells."""
    gate = script.gates["3"] = anyio.Event()
    async with (
        open_weaker() as (sandbox, told),
        open_front(tmp_path, model, cluster := InProcessCluster(sandbox=sandbox)) as service,
    ):
        with anyio.fail_after(60):
            await cluster.until_called("ping", workers=2)
        run_id = await begin(service)
        with anyio.fail_after(60):
            await model.until(lambda: any("step 3" in one.text for one in model.requests))
        await cluster.hosts[-1].kill()
        with anyio.fail_after(60):
            await model.until(lambda: sum("step 3" in one.text for one in model.requests) == 2)
        await service.runs.cancel(run_id)
        gate.set()
        await service.runs.resume(run_id, {})
        await ended(service, run_id)
        walls = await walls_told(service, run_id)
        handle = (await service.contexts.list(1, "")).items[0].handle
        done = await service.cells.execute("1", "", (str(handle),), 30)
        walls += await walls_told(service, done.run_id)

    assert walls == [json.loads(json.dumps(asdict(told)))] * 4


async def test_a_run_that_began_before_a_worker_was_up_says_later_what_walls_there_are(
    tmp_path: Path, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    up, start = anyio.Event(), InProcessCluster.start

    async def start_later(self: InProcessCluster, *given: Any) -> InProcess:
        await up.wait()
        return await start(self, *given)

    monkeypatch.setattr(InProcessCluster, "start", start_later)
    async with open_front(tmp_path, model, InProcessCluster(1)) as service:
        run_id = await begin(service)
        up.set()
        state = await ended(service, run_id)
        events = await service.runs.events(run_id, 0, 100)
        level = (await service.status()).sandbox.isolation

    assert state.status == "completed"
    assert "isolation" not in events[0].detail
    assert events[1].preview.startswith(f"The worker's isolation is {level!r}: ")


def test_of_what_a_worker_has_read_no_more_is_remembered_than_it_may_still_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remote_text, "MOST_RECENT", 3)
    texts = remote_text.RecentTexts()
    for key in "abcadeab":
        texts.add(key)

    assert [key for key in "abcde" if key in texts] == ["a", "b", "e"]


async def test_the_variables_of_a_run_at_work_are_read_at_its_worker(
    tmp_path: Path, model: ScriptedModel, script: Script
) -> None:
    gate = script.gates["3"] = anyio.Event()
    async with open_front(tmp_path, model, InProcessCluster()) as service:
        run_id = await begin(service)
        with anyio.fail_after(60):
            await model.until(lambda: any("step 3" in one.text for one in model.requests))
        with pytest.raises(Exception, match="A cell of"):
            await service.runs.variable(run_id, "replies", 0, 100)
        gate.set()
        await ended(service, run_id)


async def test_who_watches_a_run_on_a_worker_is_told_by_its_lines_and_reads_nothing(
    tmp_path: Path, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    read = Runs.get

    async def noted(self: Runs, run_id: str) -> RunState:
        reads.append(run_id)
        return await read(self, run_id)

    async with open_front(tmp_path, model, InProcessCluster()) as service:
        monkeypatch.setattr(Runs, "get", noted)
        run_id = await begin(service)
        with anyio.fail_after(120):
            pages = [page async for page in service.runs.follow(run_id, 0)]
        count = len(reads)

    assert [page[-1].type for page in pages if page][-1] == "run_finished"
    assert len([page for page in pages if page]) > STEPS
    assert count < STEPS


async def test_a_run_goes_on_from_its_log_when_its_worker_is_lost(
    tmp_path: Path, model: ScriptedModel, script: Script
) -> None:
    script.gates["3"] = anyio.Event()
    cluster = InProcessCluster()
    seen: list[str] = []
    async with open_front(tmp_path, model, cluster) as service:
        run_id = await begin(service)
        with anyio.fail_after(60):
            await model.until(lambda: any("step 3" in one.text for one in model.requests))
        del script.gates["3"]
        await cluster.hosts[-1].kill()

        async def note(state: RunState) -> None:
            seen.append(state.status)

        with anyio.fail_after(120):
            while (state := await service.runs.wait(run_id, 30, note)).status == "running":
                pass
        events = await service.runs.events(run_id, 0, 500)

    assert (state.status, state.answer, state.attempt) == ("completed", ANSWER, 2)
    assert set(seen) <= {"running", "completed"}
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert "continues on another worker" in [event.preview for event in events]
    # One call each, and the one that was in flight once more.
    assert len(model.requests) == 2 * STEPS + 1 + 1


async def test_a_worker_that_hangs_is_given_up_and_what_it_writes_later_is_refused(
    tmp_path: Path, model: ScriptedModel, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "PING_SECONDS", 0.05)
    script.gates["2"] = anyio.Event()
    cluster = InProcessCluster()
    async with open_front(tmp_path, model, cluster) as service:
        run_id = await begin(service)
        with anyio.fail_after(60):
            await model.until(lambda: any("step 2" in one.text for one in model.requests))
        del script.gates["2"]
        cluster.hosts[-1].hangs = True
        state = await ended(service, run_id)

    assert (state.status, state.answer, state.attempt) == ("completed", ANSWER, 2)


async def test_a_run_that_loses_five_workers_is_interrupted(
    tmp_path: Path, model: ScriptedModel, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "RESTART_SECONDS", 0.01)
    script.gates["0"] = anyio.Event()
    cluster = InProcessCluster()
    async with open_front(tmp_path, model, cluster) as service:
        run_id = await begin(service)
        for attempt in range(1, MAX_ATTEMPTS + 1):
            asked = 1 + attempt
            with anyio.fail_after(60):
                await model.until(lambda asked=asked: len(model.requests) >= asked)
            await cluster.hosts[-1].kill()
        state = await ended(service, run_id)

    assert state.status == "interrupted"
    assert "5 workers were lost" in (state.error or {})["message"]


async def test_no_model_is_asked_after_a_cancel(
    tmp_path: Path, model: ScriptedModel, script: Script
) -> None:
    gate = script.gates["1"] = anyio.Event()
    async with open_front(tmp_path, model, InProcessCluster()) as service:
        run_id = await begin(service)
        with anyio.fail_after(60):
            await model.until(lambda: any("step 1" in one.text for one in model.requests))
        state = await service.runs.cancel(run_id)
        asked = len(model.requests)
        gate.set()
        other = await ended(service, await begin(service, "Another text " * 10))

    assert state.status == "cancelled"
    assert other.status == "completed"
    assert len(model.requests) == asked + 2 * STEPS + 1


async def test_a_follow_up_starts_with_the_variables_of_a_run_on_a_worker(
    tmp_path: Path,
) -> None:
    def script(request: ChatRequestView) -> Answer:
        asked = str(request.messages[-1]["content"])
        turn = sum(message["role"] == "assistant" for message in request.messages)
        if "Again" in str(request.messages):
            return cell("FINAL(found + 1)")
        del asked
        return cell("found = 41" if turn == 0 else "FINAL(found)")

    cluster = InProcessCluster()
    async with (
        open_scripted_model(script) as model,
        open_front(tmp_path, model, cluster) as service,
    ):
        first = await ended(service, await begin(service))
        asked = Question("Again?", continue_run=first.run_id)
        second = await ended(service, (await service.runs.begin(asked)).run_id)

    assert (first.answer, second.answer) == ("41", "42")


async def test_a_cluster_without_workers_is_refused_with_the_next_step(
    tmp_path: Path, model: ScriptedModel
) -> None:
    with pytest.raises(ConfigurationError, match="no node of the Ray cluster offers a worker"):
        async with open_front(tmp_path, model, InProcessCluster(nodes=0)):
            pass


async def test_a_run_fails_with_the_reason_where_no_worker_can_work(
    tmp_path: Path, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "__version__", "0.0.1")
    async with open_front(tmp_path, model, InProcessCluster()) as service:
        state = await ended(service, await begin(service))

    assert state.status == "failed"
    assert "this server 0.0.1" in (state.error or {})["message"]


async def test_what_a_caller_may_use_a_day_holds_on_workers_too(
    tmp_path: Path, model: ScriptedModel
) -> None:
    changes = {"daily_tokens": {"*": 3000}}
    async with open_front(tmp_path, model, InProcessCluster(), **changes) as service:
        ann = service.as_caller("ann")
        state = await ended(ann, await begin(ann))
        today = (await ann.status()).limits["today"]["tokens"]

    used = state.figures.input_tokens + state.figures.output_tokens
    assert state.status == "exhausted"
    assert "daily limit of 'ann'" in (state.error or {})["message"]
    assert today == {"limit": 3000, "spent": used}
    assert len(model.requests) < 2 * STEPS + 1


async def test_doctor_says_of_each_worker_its_version_and_its_walls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_in(tmp_path)
    good = await check_workers(settings, InProcessCluster())
    monkeypatch.setattr(crew, "__version__", "0.0.1")
    bad = await check_workers(settings, InProcessCluster(1))
    none = await check_workers(settings, InProcessCluster(0))

    assert sorted(check.name for check in good) == ["worker 10.0.0.0", "worker 10.0.0.1"]
    assert {check.found.split(",")[0] for check in good} == {f"rlm-mcp {__version__}"}
    assert "failed" not in {check.state for check in good}
    assert [(check.name, check.state) for check in bad] == [("worker 10.0.0.0", "failed")]
    assert [(check.name, check.state) for check in none] == [("workers", "failed")]
    assert await check_workers(settings) == []


async def worker_once(service: Service, state: str) -> WorkerState:
    """The only worker, once it is so."""
    with anyio.fail_after(60):
        while True:
            for worker in await workers_of(service):
                if worker.state == state:
                    return worker
            await anyio.sleep(0.02)


async def workers_of(service: Service) -> Sequence[WorkerState]:
    cluster = (await service.status()).cluster
    assert cluster is not None
    return cluster.workers


async def test_the_status_says_what_each_worker_does(
    tmp_path: Path, model: ScriptedModel, script: Script
) -> None:
    gate = script.gates["3"] = anyio.Event()
    async with open_front(tmp_path, model, InProcessCluster(1)) as service:
        ann = service.as_caller("ann")
        run_id = await begin(ann)
        with anyio.fail_after(60):
            await model.until(lambda: any("step 3" in one.text for one in model.requests))
        working = await worker_once(service, "up")
        [of_bob] = await workers_of(service.as_caller("bob"))
        gate.set()
        await ended(ann, run_id)
        [idle] = await workers_of(ann)

    assert (working.node, working.version) == ("10.0.0.0", __version__)
    assert working.isolation in {"full", "partial", "process"}
    assert working.places > 0
    assert (working.runs, working.repls) == (1, 0)
    assert (of_bob.runs, of_bob.repls) == (0, 0)
    assert (idle.runs, idle.repls) == (0, 1)
    assert idle.answered_seconds_ago is not None


@pytest.mark.parametrize(
    ("changes", "of_the_node", "places"),
    [
        ({"worker_runs": 3, "max_concurrent_runs": 5}, {}, 3),
        ({"max_concurrent_runs": 5}, {}, 5),
        ({"max_concurrent_runs": 5}, {"RLM_MCP_WORKER_RUNS": "4"}, 4),
    ],
)
async def test_a_worker_has_as_many_places_as_its_setting_says(
    tmp_path: Path,
    model: ScriptedModel,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, int],
    of_the_node: dict[str, str],
    places: int,
) -> None:
    for name, value in of_the_node.items():
        monkeypatch.setenv(name, value)
    async with open_front(tmp_path, model, InProcessCluster(2), **changes) as service:
        await ended(service, await begin(service))
        workers = [await worker_once(service, "up"), *await workers_of(service)]
        limits = (await service.status()).limits

    assert {worker.places for worker in workers if worker.state == "up"} == {places}
    assert limits["max_concurrent_runs"] % places == 0


async def test_the_status_names_workers_that_are_late_or_cannot_work(
    tmp_path: Path, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "PING_SECONDS", 0.05)
    monkeypatch.setattr(crew, "PINGS_MISSED", 100_000)
    cluster = InProcessCluster(1)
    async with open_front(tmp_path / "late", model, cluster) as service:
        await ended(service, await begin(service))
        cluster.hosts[-1].hangs = True
        late = await worker_once(service, "late")
    monkeypatch.setattr(crew, "__version__", "0.0.1")
    async with open_front(tmp_path / "old", model, InProcessCluster(1)) as service:
        failed = await worker_once(service, "failed")

    assert (late.repls, late.error) == (1, None)
    assert "this server 0.0.1" in str(failed.error)


async def test_keys_and_headers_and_passwords_are_not_sent_to_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = {"base_url": "https://me:word@b.example/v1", "headers": {"X-Secret": "hush"}}
    settings = settings_in(
        tmp_path,
        base_url="https://me:word@a.example/v1",
        models={"big": table},
        http_token="t" * 32,
    )

    sent = to_send(settings)

    for secret in ("hush", "word", KEY, "t" * 32):
        assert secret not in repr(sent)
    with pytest.raises(ConfigurationError, match="X-Secret"):
        received(sent)
    monkeypatch.setenv("RLM_MCP_BASE_URL", "https://me:word@a.example/v1")
    monkeypatch.setenv("RLM_MCP_MODELS", '{"big": ' + repr(table).replace("'", '"') + "}")
    own = received(sent)
    assert own.base_url == settings.base_url
    assert own.models["big"].base_url == table["base_url"]
    assert own.models["big"].headers["X-Secret"].get_secret_value() == "hush"


@pytest.mark.parametrize("error", [NotFoundError("No.", fix="Look."), RunLostError("Lost.")])
async def test_an_error_crosses_as_a_value(error: StoreError) -> None:
    crossed = pickle.loads(pickle.dumps(Refused.of(error)))

    with pytest.raises(type(error)) as raised:
        given(crossed)
    assert raised.value.fields == error.fields


async def test_an_error_that_takes_more_than_a_message_crosses_as_one_of_the_store() -> None:
    refused = Refused.of(BudgetExceededError("Too much.", limit="usd", fix="Wait."))

    assert refused.as_error().fields["message"] == "Too much."


async def test_a_cluster_beyond_loopback_needs_its_token() -> None:
    with pytest.raises(ConfigurationError, match="RAY_AUTH_MODE"):
        async with open_cluster("10.1.2.3:6379", Worker):
            pass


async def test_where_ray_is_missing_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    settings = settings_in(tmp_path, ray_address="127.0.0.2:6379")

    with pytest.raises(ConfigurationError, match="Ray is not installed here") as raised:
        async with open_service(settings, shared=SHARED_SANDBOX.get()):
            pass
    assert "rlm-mcp[ray]" in raised.value.fix


async def test_a_server_without_a_cluster_loads_nothing_of_one() -> None:
    code = (
        "import sys, rlm_mcp.service.opening\n"
        "found = [one for one in sys.modules if one == 'ray' or one.startswith("
        "('rlm_mcp.service.executor.crew', 'rlm_mcp.service.executor.ray_cluster'))]\n"
        "assert not found, found"
    )
    done = await anyio.run_process([sys.executable, "-c", code], check=False)

    assert (done.returncode, done.stderr) == (0, b"")
