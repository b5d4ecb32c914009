"""Attempts at a run: the latest alone may write, and a run that is taken over stays `running`."""

from __future__ import annotations

import pickle
import random
from collections.abc import AsyncGenerator
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from rlm_mcp.engine.config import RLMConfig
from rlm_mcp.engine.recording import Recording
from rlm_mcp.errors import RunLostError
from rlm_mcp.sandbox.host.text import TextContext
from rlm_mcp.service.contexts.requests import NewText
from rlm_mcp.service.contexts.writing import no_report
from rlm_mcp.service.opening import open_service
from rlm_mcp.service.runs.execution import RunSpec, Task
from rlm_mcp.service.runs.questions import Question
from rlm_mcp.service.service import Service
from rlm_mcp.store.database import DATABASE_NAME, Database, open_database
from rlm_mcp.store.runs.attempts import MAX_ATTEMPTS
from rlm_mcp.store.runs.leases import Cancels, RunLeases
from rlm_mcp.store.runs.records import NewEvent, NewRun, Outcome, ResumedRun, SavedVariable
from rlm_mcp.store.runs.runs import Runs
from rlm_mcp.testing.scripted_model import Reply, open_scripted_model
from rlm_mcp.values import Usage
from tests.serving import SHARED_SANDBOX, cell, settings_in

RUN = "run_" + "ab" * 16
STARTED = NewEvent("run_started", "begun")
AGAIN = NewEvent("run_started", "goes on elsewhere")
ENDED = NewEvent("run_finished", "completed")


@pytest.fixture
async def database(tmp_path: Path) -> AsyncGenerator[Database]:
    async with open_database(tmp_path / DATABASE_NAME) as database:
        yield database


@pytest.fixture
async def runs(database: Database) -> Runs:
    """One run at work, its first attempt."""
    runs = Runs(database, owner="front")
    await runs.create(NewRun(RUN, "?"), STARTED)
    return runs


@pytest.fixture
def leases(database: Database) -> RunLeases:
    return RunLeases(database, owner="front")


async def test_an_attempt_that_was_given_up_may_not_write(runs: Runs, leases: RunLeases) -> None:
    first, second = runs.as_attempt(1), runs.as_attempt(2)
    await first.append_event(RUN, NewEvent("warning", "one"))
    assert await leases.take_over(RUN, 1, AGAIN) == 2
    for write in (
        first.append_event(RUN, NewEvent("warning", "too late")),
        first.finish(RUN, Outcome("completed", "wrong"), ENDED),
        first.begin_work(RUN),
    ):
        with pytest.raises(RunLostError, match="by attempt 2; attempt 1 was given up"):
            await write
    await second.append_event(RUN, NewEvent("warning", "two"))
    record = await second.finish(RUN, Outcome("completed", "right"), ENDED)

    events = await runs.events(RUN)
    assert [event.preview for event in events] == [
        *("begun", "one", "goes on elsewhere", "two", "completed")
    ]
    assert [event.seq for event in events] == [1, 2, 3, 4, 5]
    assert (record.answer, record.attempt) == ("right", 2)


async def test_a_run_that_is_taken_over_stays_running_with_its_figures(
    runs: Runs, database: Database
) -> None:
    used = Usage(iterations=3, input_tokens=7, cost_usd=0.5)
    await runs.append_event(RUN, NewEvent("warning", figures=used))
    before = await runs.get(RUN)
    others = RunLeases(database, owner="another")
    assert await others.take_over(RUN, 1, AGAIN) == 2
    after = await runs.get(RUN)

    assert (before.status, after.status) == ("running", "running")
    assert (before.owner, after.owner) == ("front", "another")
    assert after.figures == used
    assert (after.last_event, after.attempt) == (before.last_event + 1, before.attempt + 1)
    with pytest.raises(RunLostError, match="belongs to another process"):
        await runs.append_event(RUN, NewEvent("warning"))


async def test_of_several_who_take_a_run_over_one_succeeds(runs: Runs, leases: RunLeases) -> None:
    taken: list[int | None] = []

    async def take() -> None:
        taken.append(await leases.take_over(RUN, 1, AGAIN))

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(take)

    assert sorted(taken, key=bool) == [None] * 7 + [2]
    assert len(await runs.events(RUN)) == 2


async def test_after_five_attempts_a_run_is_interrupted_until_somebody_resumes_it(
    runs: Runs, leases: RunLeases
) -> None:
    for attempt in range(1, MAX_ATTEMPTS):
        assert await leases.take_over(RUN, attempt, AGAIN) == attempt + 1
    assert await leases.take_over(RUN, MAX_ATTEMPTS, AGAIN) is None
    worn_out = await runs.get(RUN)
    assert worn_out.status == "interrupted"
    assert "5 workers were lost" in (worn_out.error or {})["message"]
    assert await runs.resume(RUN, ResumedRun({}, AGAIN, worn_out.last_event))
    resumed = await runs.get(RUN)

    assert (resumed.status, resumed.attempt) == ("running", worn_out.attempt + 1)
    assert await leases.take_over(RUN, resumed.attempt, AGAIN) == resumed.attempt + 1


async def test_a_run_that_was_to_be_cancelled_is_not_taken_over(
    runs: Runs, leases: RunLeases, database: Database
) -> None:
    await Cancels(database, owner="another").request(RUN)
    assert await leases.take_over(RUN, 1, AGAIN) is None
    assert (await runs.get(RUN)).status == "cancelled"
    assert await leases.take_over(RUN, 1, AGAIN) is None


@pytest.mark.parametrize("seed", range(5))
async def test_whoever_writes_whenever_no_step_is_in_the_log_twice(
    runs: Runs, leases: RunLeases, seed: int
) -> None:
    """Workers go on from the log as they find it; any of them may be given up at any moment."""
    chance = random.Random(seed)
    steps = 30

    async def work(attempt: int) -> None:
        mine = runs.as_attempt(attempt)
        try:
            done = sum(event.type == "warning" for event in await runs.events(RUN, limit=500))
            for step in range(done, steps):
                await anyio.lowlevel.checkpoint()
                await mine.append_event(RUN, NewEvent("warning", str(step)))
            await mine.finish(RUN, Outcome("completed", str(attempt)), ENDED)
        except RunLostError:
            return

    async with anyio.create_task_group() as tasks:
        attempt: int | None = 1
        tasks.start_soon(work, attempt)
        for _ in range(MAX_ATTEMPTS - 1):
            for _ in range(chance.randrange(60)):
                await anyio.lowlevel.checkpoint()
            attempt = await leases.take_over(RUN, attempt, AGAIN)
            if attempt is None:
                break
            tasks.start_soon(work, attempt)

    events = await runs.events(RUN, limit=500)
    assert [one.preview for one in events if one.type == "warning"] == [*map(str, range(steps))]
    assert [event.seq for event in events] == [*range(1, len(events) + 1)]
    assert (await runs.get(RUN)).status == "completed"


def test_what_a_run_needs_to_know_can_travel_without_its_texts() -> None:
    spec = RunSpec(
        run_id=RUN,
        question="?",
        config=RLMConfig(max_usd=1.0, cost_per_input_token=1e-6, cost_per_output_token=1e-6),
        root_model="root",
        sub_model="sub",
        answer_schema={"type": "string"},
        handles=("ctx_1",),
        variables=(SavedVariable("x", "int", 0, "1", payload=b"1"),),
        recording=Recording(),
        attempt=3,
    )
    fields = {name: getattr(spec, name) for name in RunSpec.__dataclass_fields__}

    assert pickle.loads(pickle.dumps(spec)) == spec
    assert Task(**fields, source=TextContext(("a text",))).spec == spec


@pytest.mark.usefixtures("one_sandbox_for_all")
async def test_a_worker_that_was_given_up_ends_without_another_call_and_leaves_the_run_at_work(
    tmp_path: Path,
) -> None:
    gate = anyio.Event()
    async with (
        open_scripted_model(lambda _: Reply(cell("print(1)"), gate=gate)) as model,
        open_service(
            settings_in(tmp_path, base_url=model.base_url), shared=SHARED_SANDBOX.get()
        ) as service,
        open_database(tmp_path / "data" / DATABASE_NAME) as same_file,
    ):
        run_id = await begin(service)
        with anyio.fail_after(60):
            await model.until(lambda: model.in_flight == 1)
        owner = (await service.runs.state(run_id)).owner
        assert await RunLeases(same_file, owner=owner).take_over(run_id, 1, AGAIN) == 2
        gate.set()
        await until_given_up(service)
        state, received = await service.runs.state(run_id), model.received

    assert (state.status, state.attempt, received) == ("running", 2, 1)


async def begin(service: Service) -> str:
    added = await service.contexts.add(NewText(text="a text"), no_report)
    return (await service.runs.begin(Question("?", contexts=(str(added.handle),)))).run_id


async def until_given_up(service: Service) -> None:
    with anyio.fail_after(60):
        while not (await service.measures()).done.ended:  # noqa: ASYNC110  # it tells nobody
            await anyio.sleep(0.05)


@pytest.mark.usefixtures("one_sandbox_for_all")
async def test_a_run_that_is_resumed_is_its_next_attempt(tmp_path: Path) -> None:
    gate = anyio.Event()
    async with (
        open_scripted_model(lambda _: Reply("FINAL(done)", gate=gate)) as model,
        open_service(
            settings_in(tmp_path, base_url=model.base_url), shared=SHARED_SANDBOX.get()
        ) as service,
    ):
        run_id = await begin(service)
        with anyio.fail_after(60):
            await model.until(lambda: model.in_flight == 1)
            await service.runs.cancel(run_id)
            gate.set()
            await service.runs.resume(run_id, {})
            state = await service.runs.wait(run_id, 60, report_nothing)

    assert (state.status, state.answer, state.attempt) == ("completed", "done", 2)


async def report_nothing(state: object) -> None:
    del state
