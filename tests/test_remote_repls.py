"""REPLs that workers hold: cells of callers run there, and what is lost with a worker is named."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from rlm_mcp.errors import NotFoundError, SandboxBusyError, SandboxDiedError
from rlm_mcp.service import repls, saved_variables
from rlm_mcp.service.contexts.requests import NewText
from rlm_mcp.service.contexts.writing import no_report
from rlm_mcp.service.executor import crew, remote_repls
from rlm_mcp.service.executor.cluster import Node
from rlm_mcp.service.opening import open_service
from rlm_mcp.service.runs.exec import CellDone
from rlm_mcp.service.runs.questions import Question
from rlm_mcp.service.runs.runs import RunState
from rlm_mcp.service.service import Service
from rlm_mcp.testing.scripted_model import ScriptedModel, open_scripted_model
from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView, Reply
from tests.in_process_cluster import InProcess, InProcessCluster, ended
from tests.serving import KEY, SHARED_SANDBOX, cell, settings_in
from tests.waiting import until

TEXT = "MAGIC-7 " + "nothing of note " * 500
# A generator cannot be saved: it is there only where the REPL itself is.
FIRST = "saved = [1, 2]\nalive = (n for n in range(9))\nfirst = next(alive)"

pytestmark = pytest.mark.usefixtures("one_sandbox_for_all")


@pytest.fixture(autouse=True)
def key_of_the_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLM_MCP_API_KEY", "key-of-the-nodes")


@asynccontextmanager
async def open_front(
    directory: Path,
    cluster: InProcessCluster,
    script: Callable[[ChatRequestView], Answer] | None = None,
    **changes: Any,
) -> AsyncGenerator[tuple[Service, ScriptedModel]]:
    """A server whose REPLs are at the workers of a cluster, and its model."""
    async with open_scripted_model(script or work) as model:
        settings = settings_in(directory, base_url=model.base_url, **changes)
        async with open_service(settings, shared=SHARED_SANDBOX.get(), cluster=cluster) as service:
            yield service, model


def work(request: ChatRequestView) -> Answer:
    """Two turns of the root model; sub-calls are answered backwards."""
    if request.model == "sub":
        return Reply(request.text[::-1])
    turn = sum(message["role"] == "assistant" for message in request.messages)
    return cell(FIRST if turn == 0 else "FINAL(first)")


async def stored(service: Service, text: str = TEXT) -> str:
    return str((await service.contexts.add(NewText(text=text), no_report)).handle)


async def ask(service: Service, question: Question) -> RunState:
    """Ask, and wait for the end."""
    return await ended(service, (await service.runs.begin(question)).run_id)


async def execute(service: Service, code: str, run_id: str) -> CellDone:
    with anyio.fail_after(120):
        return await service.cells.execute(code, run_id, (), 30)


async def begin(service: Service, code: str, handle: str) -> CellDone:
    with anyio.fail_after(120):
        return await service.cells.execute(code, "", (handle,), 30)


async def test_a_cell_runs_in_the_repl_that_a_run_left_on_its_worker(tmp_path: Path) -> None:
    cluster = InProcessCluster()
    async with open_front(tmp_path, cluster) as (service, _):
        run = await ask(service, Question("What?", (await stored(service),)))
        done = await execute(service, "print(next(alive), context[:7])", run.run_id)
        again = await execute(service, "print(next(alive))", run.run_id)
        listed = [one.name for one in await service.runs.variables(run.run_id)]
        events = await service.runs.events(run.run_id, 0, 100)
        measured = await service.measures()

    assert (run.status, run.answer) == ("completed", "0")
    assert (done.output, done.note, done.error) == ("1 MAGIC-7\n", None, None)
    assert again.output == "2\n"
    assert listed == ["saved", "alive", "first", "FINAL"]
    assert measured.kept_repls == 1
    assert cluster.called("run_cell") == cluster.hosts
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert [one.detail["by"] for one in events if "by" in one.detail] == ["caller", "caller"]


async def test_a_cell_over_texts_gets_its_repl_on_a_worker_and_the_server_asks_its_models(
    tmp_path: Path,
) -> None:
    cluster = InProcessCluster()
    async with open_front(tmp_path, cluster) as (service, model):
        code = "n = (n for n in range(9))\nprint(context[:7], llm_query_batch(['abc', 'def']))"
        done = await begin(service, code, await stored(service))
        state = await service.runs.state(done.run_id)
        more = await execute(service, "print(next(n), llm_query('xyz'))", done.run_id)

    assert (done.output, done.error) == ("MAGIC-7 ['cba', 'fed']\n", None)
    assert (state.status, state.figures.sub_calls) == ("completed", 2)
    assert (more.output, more.note) == ("0 zyx\n", None)
    assert {request.headers["authorization"] for request in model.requests} == {f"Bearer {KEY}"}
    assert cluster.called("run_cell") == cluster.called("open_repl") != []


async def test_when_the_worker_of_a_repl_is_lost_saved_variables_serve_and_it_is_said(
    tmp_path: Path,
) -> None:
    cluster = InProcessCluster()
    async with open_front(tmp_path, cluster) as (service, _):
        run = await ask(service, Question("What?", (await stored(service),)))
        await cluster.hosts[-1].kill()
        variables = [one.name for one in await service.runs.variables(run.run_id)]
        text = await service.runs.variable(run.run_id, "saved", 0, 100)
        done = await execute(service, "print(saved, 'alive' in dir())", run.run_id)
        again = await execute(service, "print(saved)", run.run_id)

    assert variables == ["saved", "alive", "first", "FINAL"]
    assert text.text == "[1, 2]"
    assert (done.output, done.error) == ("[1, 2] False\n", None)
    assert "REPL had ended; a new one got the saved variables; not restored: alive" in str(
        done.note
    )
    assert (again.output, again.note) == ("[1, 2]\n", None)


async def test_when_a_worker_is_lost_in_a_cell_the_next_cell_gets_what_was_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "RESTART_SECONDS", 0.01)
    gate = anyio.Event()

    def script(request: ChatRequestView) -> Answer:
        return Reply("late", gate=gate) if request.model == "sub" else work(request)

    cluster = InProcessCluster()
    async with open_front(tmp_path, cluster, script) as (service, model):
        first = await begin(service, "kept = 41", await stored(service))
        failures: list[SandboxDiedError] = []

        async def run_a_cell() -> None:
            with pytest.raises(SandboxDiedError) as raised:
                await execute(service, "kept = 0\nllm_query('wait')", first.run_id)
            failures.append(raised.value)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run_a_cell)
            with anyio.fail_after(60):
                await model.until(lambda: len(model.requests) == 1)
            [worker] = cluster.called("run_cell")
            await worker.kill()
        done = await execute(service, "print(kept + 1)", first.run_id)

    assert "lost" in failures[0].message
    assert "rlm_exec" in failures[0].fix
    assert done.output == "42\n"
    assert "REPL had ended" in str(done.note)


async def test_a_worker_that_hangs_costs_a_cell_its_repl_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "PING_SECONDS", 0.05)
    monkeypatch.setattr(crew, "PINGS_MISSED", 60)  # this process may stand still for long
    cluster = InProcessCluster()
    async with open_front(tmp_path, cluster) as (service, _):
        first = await begin(service, "kept = 41", await stored(service))
        [worker] = cluster.called("open_repl")
        worker.hangs = True
        done = await execute(service, "print(kept + 1)", first.run_id)

    assert done.output == "42\n"
    assert "REPL had ended" in str(done.note)


async def test_a_cell_that_is_cancelled_asks_no_model_any_more_and_leaves_its_repl(
    tmp_path: Path,
) -> None:
    gate = anyio.Event()

    def script(request: ChatRequestView) -> Answer:
        return Reply("late", gate=gate) if request.model == "sub" else work(request)

    cluster = InProcessCluster()
    async with open_front(tmp_path, cluster, script) as (service, model):
        handle = await stored(service)
        states: list[RunState] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(begin, service, "kept = 1\nllm_query('a')\nllm_query('b')", handle)
            with anyio.fail_after(60):
                await model.until(lambda: len(model.requests) == 1)
            [run] = (await service.runs.list(None, 10, "")).items
            states.append(await service.runs.cancel(run.run_id))
        with anyio.fail_after(60):
            await model.until(lambda: model.connections == 0)
        gate.set()
        done = await execute(service, "print(kept)", states[0].run_id)

    assert states[0].status == "cancelled"
    assert (done.output, done.note) == ("1\n", None)
    assert len(model.requests) == 1


async def test_a_follow_up_gets_what_only_the_repl_of_the_worker_holds(tmp_path: Path) -> None:
    def script(request: ChatRequestView) -> Answer:
        return cell("FINAL(len(large))")

    # After a cell of a caller so much is not saved; at the end of a question it is.
    size = 4 * saved_variables.CELL_LASTING_BYTES
    cluster = InProcessCluster()
    async with open_front(tmp_path, cluster, script) as (service, _):
        code = f"large = [str(n) for n in range({size // 8})]"
        first = await begin(service, code, await stored(service))
        second = await ask(service, Question("How many?", continue_run=first.run_id))

    assert second.answer == str(size // 8)
    assert cluster.called("work") == cluster.called("open_repl")


async def test_a_run_that_is_resumed_continues_in_its_repl_at_its_worker(tmp_path: Path) -> None:
    def script(request: ChatRequestView) -> Answer:
        turn = sum(message["role"] == "assistant" for message in request.messages)
        replies = (cell("alive = (n for n in range(9))"), "FINAL(perhaps)")
        return Reply(replies[turn]) if turn < len(replies) else cell("FINAL(next(alive))")

    cluster = InProcessCluster(3)
    async with open_front(tmp_path, cluster, script) as (service, _):
        handle = await stored(service)
        budget = {"max_iterations": 2}
        run = await ask(service, Question("What?", (handle,), budget=budget))
        await execute(service, "next(alive)", run.run_id)
        await service.runs.resume(run.run_id, {"max_iterations": 6})
        state = await ended(service, run.run_id)
        done = await execute(service, "print(next(alive))", run.run_id)

    assert run.status == "exhausted"
    assert (state.status, state.answer) == ("completed", "1")
    assert (done.output, done.note) == ("2\n", None)
    assert len(set(cluster.hosts)) == 1


async def test_a_run_that_is_resumed_leaves_a_worker_that_is_busy_and_gets_what_its_cells_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "_LOCAL_BIAS", 1)
    gate = anyio.Event()

    def script(request: ChatRequestView) -> Answer:
        if "held back" in str(request.messages):
            return Reply(cell("FINAL('done')"), gate=gate)
        turn = sum(message["role"] == "assistant" for message in request.messages)
        replies = (cell("made = [len(context)]"), "FINAL(perhaps)")
        return Reply(replies[turn]) if turn < len(replies) else cell("FINAL(made[0])")

    cluster = InProcessCluster(2)
    async with open_front(tmp_path, cluster, script) as (service, model):
        with anyio.fail_after(60):
            await cluster.until_called("ping", workers=2)
        handle = await stored(service)
        run = await ask(service, Question("What?", (handle,), budget={"max_iterations": 2}))
        others = [
            (await service.runs.begin(Question(f"What is held back, {number}?", (handle,)))).run_id
            for number in range(2)
        ]
        with anyio.fail_after(60):
            await model.until(lambda: model.in_flight == len(others))
        await service.runs.resume(run.run_id, {"max_iterations": 6})
        state = await ended(service, run.run_id)
        gate.set()
        for other in others:
            await ended(service, other)

    assert run.status == "exhausted"
    assert (state.status, state.answer) == ("completed", str(len(TEXT)))
    first, *waiting, last = cluster.hosts
    assert set(waiting) == {first}
    assert last is not first
    assert "close_repl" in first.calls


async def test_a_repl_that_its_worker_closed_is_known_to_be_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repls, "_EVICTION_SECONDS", 0.02)
    monkeypatch.setattr(repls, "IDLE_SECONDS", 0.0)
    async with open_front(tmp_path, InProcessCluster()) as (service, _):
        run = await ask(service, Question("What?", (await stored(service),)))
        with anyio.fail_after(60):
            while (await service.measures()).kept_repls:  # noqa: ASYNC110  # see tests.waiting
                await anyio.sleep(0.02)
        monkeypatch.setattr(repls, "IDLE_SECONDS", 600.0)
        done = await execute(service, "print(saved)", run.run_id)

    assert done.output == "[1, 2]\n"
    assert "REPL had ended" in str(done.note)


async def test_a_repl_over_a_deleted_text_is_closed_at_its_worker(tmp_path: Path) -> None:
    cluster = InProcessCluster()
    async with open_front(tmp_path, cluster) as (service, _):
        handle = await stored(service)
        run = await ask(service, Question("What?", (handle,)))
        await service.contexts.delete(handle)
        await until(lambda: bool(cluster.called("close_repl")))
        with pytest.raises(NotFoundError):
            await execute(service, "print(saved)", run.run_id)
        measured = await service.measures()

    assert measured.kept_repls == 0


class SlowCluster(InProcessCluster):
    """A cluster whose workers do not come up."""

    async def start(self, node: Node, sent: Mapping[str, Any]) -> InProcess:
        """Start no worker."""
        await anyio.sleep_forever()
        raise AssertionError


async def test_without_a_worker_a_cell_is_refused_and_the_status_says_that_one_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_repls, "_WORKER_SECONDS", 0.05)
    async with open_scripted_model(work) as model:
        settings = settings_in(tmp_path, base_url=model.base_url)
        async with open_service(
            settings, shared=SHARED_SANDBOX.get(), cluster=SlowCluster(1), is_remote=True
        ) as service:
            with pytest.raises(SandboxBusyError, match="No worker of the cluster is up"):
                await begin(service, "x = 1", await stored(service))
            cluster = (await service.status()).cluster  # by now it has seen its nodes

    assert cluster is not None
    # Callers may be on other machines, and learn no address of this one.
    assert [(one.state, one.node) for one in cluster.workers] == [("starting", None)]


async def test_each_worker_adds_to_the_repls_that_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repls, "KEPT_REPLS", 1)
    cluster = InProcessCluster(1)
    async with open_front(tmp_path, cluster) as (service, _):
        handle = await stored(service)
        runs = [(await begin(service, f"x = {n}", handle)).run_id for n in range(2)]
        notes = [(await execute(service, "x", run)).note for run in reversed(runs)]

    assert notes[0] is None
    assert "REPL had ended" in str(notes[1])
