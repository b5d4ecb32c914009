"""Model calls of workers: one limit for all, dealt out by demand, and one pace for a provider."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from rlm_mcp.service import saved_variables
from rlm_mcp.service.contexts.requests import NewText
from rlm_mcp.service.contexts.writing import no_report
from rlm_mcp.service.executor import crew
from rlm_mcp.service.executor.messages import Demand
from rlm_mcp.service.executor.shares import CallShares, fair_shares
from rlm_mcp.service.runs.questions import Question
from rlm_mcp.service.service import Service
from rlm_mcp.testing.scripted_model import open_scripted_model, rate_limited
from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView, Reply
from tests.in_process_cluster import InProcessCluster, ended, open_front
from tests.serving import cell

RETRY_SECONDS = 3


@pytest.mark.parametrize(
    ("total", "wanted", "shares"),
    [
        (32, [1], [32]),
        (32, [1, 1], [16, 16]),
        (32, [200, 1], [31, 1]),
        (32, [200, 1, 1, 1], [29, 1, 1, 1]),
        (32, [200, 200], [16, 16]),
        (32, [200, 10, 200], [11, 10, 11]),
        (32, [5, 11], [13, 19]),
        (2, [9, 9, 9], [0, 1, 1]),
    ],
)
def test_calls_go_to_who_wants_them_and_the_rest_to_all(
    total: int, wanted: list[int], shares: list[int]
) -> None:
    assert fair_shares(total, wanted) == shares


@pytest.mark.parametrize("seed", range(20))
def test_workers_have_no_more_calls_under_way_than_allowed_whatever_they_want(seed: int) -> None:
    """Workers that come, go and change their minds; pings in any order."""
    chance = random.Random(seed)
    total, names = 24, list("abcd")
    shares, known = CallShares(total), dict[str, int]()
    under_way = dict.fromkeys(names, 0)
    for _ in range(500):
        name = chance.choice(names)
        if name not in known:
            shares.add(name)
            known[name] = 1
        elif chance.random() < 0.02:
            shares.remove(name)
            del known[name]
            under_way[name] = 0
            continue
        known[name] = share = shares.grant(name)
        # Calls end at any time, and new ones begin within the share that was told.
        under_way[name] = chance.randint(0, under_way[name])
        under_way[name] = max(under_way[name], min(share, chance.choice([0, 3, 50])))
        shares.learn(name, share, Demand(under_way[name], chance.choice([0, 5, 100])))
        # Each worker may have one call, however little is left.
        assert sum(under_way.values()) <= total + len(names)


def test_an_idle_workers_share_goes_to_a_busy_one_and_comes_back() -> None:
    shares = CallShares(8)
    for name in "ab":
        shares.add(name)

    def ping(name: str, under_way: int, waiting: int) -> int:
        share = shares.grant(name)
        shares.learn(name, share, Demand(min(under_way, share), waiting))
        return share

    busy = [ping(name, *demand) for _ in range(3) for name, demand in _demands((8, 20), (0, 0))]
    both = [ping(name, *demand) for _ in range(3) for name, demand in _demands((8, 20), (8, 20))]

    assert busy[-2:] == [7, 1]
    assert both[-2:] == [4, 4]


def test_a_worker_that_was_lost_a_moment_ago_is_told_a_share_that_nobody_counts() -> None:
    shares = CallShares(8)
    for name in "ab":
        shares.add(name)
    shares.remove("a")

    assert shares.grant("a") == 1
    assert shares.grant("b") == 8


def _demands(*demands: tuple[int, int]) -> list[tuple[str, tuple[int, int]]]:
    return list(zip("ab", demands, strict=True))


@pytest.fixture(autouse=True)
def settings_of_the_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLM_MCP_API_KEY", "key-of-the-nodes")
    monkeypatch.setattr(saved_variables, "SAVE_SECONDS", 0.2)
    monkeypatch.setattr(crew, "PING_SECONDS", 0.05)
    monkeypatch.setattr(crew, "PINGS_MISSED", 1000)  # this process may stand still for long


async def begin(service: Service, question: str) -> str:
    added = await service.contexts.add(NewText(text=f"{question} " * 10), no_report)
    return (await service.runs.begin(Question(question, (str(added.handle),)))).run_id


async def completed(service: Service, run_id: str) -> None:
    state = await ended(service, run_id)
    assert state.status == "completed", state


@pytest.mark.usefixtures("one_sandbox_for_all")
async def test_one_busy_worker_of_two_has_more_than_half_of_the_calls_and_all_no_more_than_allowed(
    tmp_path: Path,
) -> None:
    gate = anyio.Event()

    def script(request: ChatRequestView) -> Answer:
        if request.model == "sub":
            return Reply("fine", gate=gate)
        turn = sum(message["role"] == "assistant" for message in request.messages)
        calls = "print(len(llm_query_batch([f'piece {n}' for n in range(20)])))"
        return cell(calls if turn == 0 else "FINAL('done')")

    cluster = InProcessCluster(2)
    async with (
        open_scripted_model(script) as model,
        open_front(tmp_path, model, cluster, max_concurrent_calls=6) as service,
    ):
        with anyio.fail_after(60):
            await cluster.until_called("ping", workers=2)
        run_id = await begin(service, "What?")
        with anyio.fail_after(60):
            await model.until(lambda: model.in_flight == 5)  # one is kept for the other worker
        gate.set()
        await completed(service, run_id)

    assert model.most_in_flight <= 6


async def call(service: Service, handle: str) -> None:
    """Run a cell that makes a sub-call, which the server asks."""
    with anyio.fail_after(120):
        done = await service.cells.execute("print(llm_query('What?'))", "", (handle,), 60)
    assert done.output == "fine\n"


def refusing_first(refused: list[float]) -> Callable[[ChatRequestView], Answer]:
    """A model that refuses its first request, and notes when it came."""

    def script(request: ChatRequestView) -> Answer:
        if not refused:
            refused.append(request.at)
            return rate_limited(str(RETRY_SECONDS))
        return Reply("fine") if request.model == "sub" else cell("FINAL('done')")

    return script


@pytest.mark.usefixtures("one_sandbox_for_all")
async def test_a_refusal_that_the_server_hears_holds_its_workers_back(tmp_path: Path) -> None:
    refused: list[float] = []

    cluster = InProcessCluster(2)
    async with (
        open_scripted_model(refusing_first(refused)) as model,
        open_front(tmp_path, model, cluster) as service,
    ):
        with anyio.fail_after(60):
            await cluster.until_called("ping", workers=2)
        added = await service.contexts.add(NewText(text="a text"), no_report)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, service, str(added.handle))
            with anyio.fail_after(60):
                await cluster.until_called("hold", workers=2)
            await completed(service, await begin(service, "What?"))

    late = [one for one in model.requests if one.at > refused[0]]
    assert len(late) == 2
    assert min(one.at for one in late) >= refused[0] + RETRY_SECONDS


@pytest.mark.usefixtures("one_sandbox_for_all")
async def test_a_refusal_that_a_worker_hears_holds_the_server_back(tmp_path: Path) -> None:
    refused: list[float] = []

    cluster = InProcessCluster(2)
    async with (
        open_scripted_model(refusing_first(refused)) as model,
        open_front(tmp_path, model, cluster) as service,
    ):
        with anyio.fail_after(60):
            await cluster.until_called("ping", workers=2)
        run_id = await begin(service, "What?")
        with anyio.fail_after(60):
            await cluster.until_called("hold")
        added = await service.contexts.add(NewText(text="a text"), no_report)
        await call(service, str(added.handle))
        await completed(service, run_id)

    [asked] = [one.at for one in model.requests if one.model == "sub"]
    assert asked >= refused[0] + RETRY_SECONDS


@pytest.mark.usefixtures("one_sandbox_for_all")
async def test_a_refusal_that_one_worker_hears_holds_all_of_them_back(tmp_path: Path) -> None:
    """The one run is refused while the other's call is under way, whose next one has to wait."""
    gate = anyio.Event()
    refused: list[float] = []

    def script(request: ChatRequestView) -> Answer:
        marker = re.findall(r"marker-\w+", str(request.messages))[0]
        turn = sum(message["role"] == "assistant" for message in request.messages)
        if marker == "marker-refused" and not refused:
            refused.append(request.at)
            return rate_limited(str(RETRY_SECONDS))
        text = cell("FINAL(context[:20])" if turn else "print(context[:20])")
        return Reply(text, gate=gate if marker == "marker-other" and turn == 0 else None)

    cluster = InProcessCluster(2)
    async with (
        open_scripted_model(script) as model,
        open_front(tmp_path, model, cluster) as service,
    ):
        with anyio.fail_after(60):
            await cluster.until_called("ping", workers=2)
        other = await begin(service, "What of marker-other?")
        with anyio.fail_after(60):
            await model.until(lambda: bool(model.requests))
        mine = await begin(service, "What of marker-refused?")
        with anyio.fail_after(60):
            await cluster.until_called("hold")
        gate.set()
        await completed(service, other)
        await completed(service, mine)

    assert len(cluster.hosts) == len(set(cluster.hosts)) == 2
    late = [one for one in model.requests if one.at > refused[0]]
    assert len(late) == 3
    assert min(one.at for one in late) >= refused[0] + RETRY_SECONDS
