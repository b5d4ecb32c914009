"""Models asked over HTTP, by providers that are not polite."""

from __future__ import annotations

import sys
import traceback
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import anyio
import anyio.lowlevel
import openai
import pytest

from rlm_mcp.engine.models.chat import ChatModel, ChatReply, ChatRequest
from rlm_mcp.engine.models.completions import read_completion
from rlm_mcp.engine.models.endpoint import Pace
from rlm_mcp.engine.models.http_provider import Provider
from rlm_mcp.engine.models.openai_client import open_endpoint
from rlm_mcp.engine.models.retry import RetryPolicy, Timing
from rlm_mcp.engine.models.waits import parse_retry_after
from rlm_mcp.errors import (
    ConfigurationError,
    ContextLengthError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelError,
    ModelRateLimitError,
    ModelReplyError,
    ModelRequestError,
)
from rlm_mcp.testing.scripted_model import ScriptedModel, open_scripted_model
from rlm_mcp.testing.scripted_replies import (
    Answer,
    ChatRequestView,
    Fault,
    Reply,
    Script,
    context_too_long,
    cut_connection,
    empty_choices,
    malformed,
    no_answer,
    rate_limited,
    rejected,
    rejected_parameter,
    server_error,
    unauthorized,
)

KEY = "sk-very-secret-0123456789"


@dataclass
class NoTime:
    """A clock that goes forward by what is slept."""

    now: float = 0.0
    sleeps: list[float] = field(default_factory=list[float])

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        end = self.now + seconds
        await anyio.lowlevel.checkpoint()
        self.now = max(self.now, end)  # others may have slept at the same time

    @property
    def timing(self) -> Timing:
        return Timing(self.sleep, lambda: self.now)


def a_client(base_url: str, api_key: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=base_url, api_key=api_key)


Way = Callable[[str, str], Provider | openai.AsyncOpenAI]
BOTH_WAYS = pytest.mark.parametrize("way", [Provider, a_client])


@asynccontextmanager
async def a_model(
    script: Script,
    policy: RetryPolicy | None = None,
    time: NoTime | None = None,
    way: Way = Provider,
) -> AsyncGenerator[tuple[ScriptedModel, ChatModel]]:
    timing = (time or NoTime()).timing
    with anyio.fail_after(60):
        async with (
            open_scripted_model(script) as server,
            a_source(way(server.base_url, KEY)) as source,
            open_endpoint(source, policy=policy, timing=timing) as endpoint,
        ):
            yield server, endpoint.model("root")


@asynccontextmanager
async def a_source(
    source: Provider | openai.AsyncOpenAI,
) -> AsyncGenerator[Provider | openai.AsyncOpenAI]:
    """Close a client at the end, as its owner would."""
    try:
        yield source
    finally:
        if isinstance(source, openai.AsyncOpenAI):
            with anyio.CancelScope(shield=True):
                await source.close()


def a_request(text: str = "hello", **more: object) -> ChatRequest:
    values = {"max_tokens": 99, "temperature": 0.6, **more}
    return ChatRequest(({"role": "user", "content": text},), **values)  # pyright: ignore[reportArgumentType]


@BOTH_WAYS
async def test_a_reply_comes_with_its_figures(way: Way) -> None:
    async with a_model([Reply("fine", reasoning="hm", usage=(7, 3))]) as (server, model):
        assert await model.complete(a_request()) == ChatReply(
            text="fine",
            finish_reason="stop",
            input_tokens=7,
            output_tokens=3,
            usage_estimated=False,
            reasoning="hm",
        )
        [request] = server.requests
        assert dict(request.params) == {"max_tokens": 99, "temperature": 0.6}
        assert (request.model, request.authorization) == ("root", f"Bearer {KEY}")


async def test_another_model_of_the_endpoint_can_be_named() -> None:
    async with a_model("ok") as (server, model):
        await model.complete(a_request(model="other"))
        assert [request.model for request in server.requests] == ["other"]


async def test_missing_usage_is_estimated_from_lengths_and_marked() -> None:
    async with a_model([Reply("12345", usage=None)]) as (_, model):
        reply = await model.complete(a_request("x" * 8))
        assert (reply.input_tokens, reply.output_tokens, reply.usage_estimated) == (2, 2, True)


async def test_a_reply_that_was_cut_says_so_even_when_it_is_empty() -> None:
    async with a_model([Reply(None, "length", reasoning="long thoughts")]) as (server, model):
        reply = await model.complete(a_request())
        assert (reply.text, reply.finish_reason) == ("", "length")
        assert server.received == 1


@pytest.mark.parametrize("empty", [Reply(None), Reply("")])
async def test_an_empty_reply_is_asked_for_once_more(empty: Reply) -> None:
    async with a_model([empty, "words"]) as (_, model):
        assert (await model.complete(a_request())).text == "words"
    async with a_model(lambda _: empty) as (server, model):
        assert (await model.complete(a_request())).text == ""
        assert server.received == 2


@pytest.mark.parametrize(
    "fault",
    [
        server_error(500),
        server_error(503),
        rate_limited(),
        malformed(),
        empty_choices(),
        Fault(body="<html>Bad gateway</html>"),
        Fault(body="[]"),
        Fault(body={"error": {"message": "upstream failed"}}),
        cut_connection(),
        cut_connection(in_body=True),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
@BOTH_WAYS
async def test_a_passing_fault_is_retried_with_growing_pauses(
    fault: Fault, streamed: bool, way: Way
) -> None:
    async def on_delta(_: str) -> None:
        await anyio.lowlevel.checkpoint()

    time = NoTime()
    async with a_model([fault, fault, "fine"], time=time, way=way) as (server, model):
        request = a_request(on_delta=on_delta if streamed else None)
        assert (await model.complete(request)).text == "fine"
        assert server.received == 3
    first, second = time.sleeps
    # A connection that ended before it was answered over was perhaps idle too long: no pause.
    assert first == 0 or 0.25 <= first <= 0.5
    assert 0.5 <= second <= 1.0


@BOTH_WAYS
async def test_the_pause_that_the_provider_names_is_kept(way: Way) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    time = NoTime()
    script: list[Answer] = [rate_limited("7"), rate_limited(date), "fine"]
    async with a_model(script, time=time, way=way) as (_, model):
        await model.complete(a_request())
    assert time.sleeps[0] == 7
    assert 50 < time.sleeps[1] <= 100


async def test_a_pause_longer_than_our_patience_ends_at_once() -> None:
    time = NoTime()
    async with a_model(lambda _: rate_limited("3600"), time=time) as (server, model):
        with pytest.raises(ModelRateLimitError, match=r"asked to wait 3600 s.*waits 300 s"):
            await model.complete(a_request())
        assert (server.received, time.sleeps) == (1, [])


async def test_attempts_are_bounded() -> None:
    async with a_model(lambda _: server_error(), RetryPolicy(attempts=4)) as (server, model):
        with pytest.raises(
            ModelConnectionError, match=r"answered 503 for .*: The server is overloaded"
        ):
            await model.complete(a_request())
        assert server.received == 4


async def test_the_whole_time_of_retries_is_bounded() -> None:
    time = NoTime()
    policy = RetryPolicy(attempts=1000, total_seconds=60)
    async with a_model(lambda _: server_error(), policy, time) as (_, model):
        with pytest.raises(ModelConnectionError):
            await model.complete(a_request())
    assert sum(time.sleeps) <= 60


@BOTH_WAYS
async def test_an_endpoint_that_never_answers_is_given_up_and_asked_again(way: Way) -> None:
    def first_hangs(request: ChatRequestView) -> Answer:
        return no_answer() if request.number == 1 else "late"

    async with a_model(first_hangs, RetryPolicy(attempt_seconds=0.5), way=way) as (server, model):
        assert (await model.complete(a_request())).text == "late"
        assert server.hung_up >= 1
    patience = RetryPolicy(2, attempt_seconds=0.1)
    async with a_model(lambda _: no_answer(), patience, way=way) as (server, model):
        with pytest.raises(ModelConnectionError, match=r"No answer in time from .*127\.0\.0\.1"):
            await model.complete(a_request())
        assert server.received <= 2


async def test_a_refused_connection_is_retried_briefly_and_names_what_to_set() -> None:
    async with open_scripted_model("ok") as gone:
        pass
    time = NoTime()
    with anyio.fail_after(60):
        async with open_endpoint(Provider(gone.base_url), timing=time.timing) as endpoint:
            with pytest.raises(ModelConnectionError) as caught:
                await endpoint.model("root").complete(a_request())
    assert gone.base_url in str(caught.value)
    assert "RLM_MCP_BASE_URL" in caught.value.fix
    assert len(time.sleeps) == 2


@BOTH_WAYS
async def test_a_rejected_key_ends_at_once_and_is_in_no_text(way: Way) -> None:
    async with a_model(lambda _: unauthorized(KEY), way=way) as (server, model):
        with pytest.raises(ModelAuthenticationError) as caught:
            await model.complete(a_request())
        assert server.received == 1
    assert "RLM_MCP_API_KEY" in caught.value.fix
    assert "Incorrect API key provided: ***" in caught.value.message
    whole = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert KEY not in whole


@pytest.mark.parametrize(
    "answer",
    [
        rejected(400, f"Bad request with {KEY}"),
        rejected(404, f"No such key {KEY}"),
        rejected(429, f"Too fast, {KEY}"),
        server_error(),
        Fault(500, f"stack trace with {KEY}"),
        Fault(body=f"not JSON but {KEY}"),
        Fault(body={"error": {"message": KEY}}),
        empty_choices(),
    ],
)
@BOTH_WAYS
async def test_the_key_is_in_no_error_text(answer: Fault, way: Way) -> None:
    async with a_model(lambda _: answer, RetryPolicy(attempts=1), way=way) as (_, model):
        with pytest.raises(ModelError) as caught:
            await model.complete(a_request())
    whole = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert KEY not in whole


async def test_credentials_in_the_address_are_not_shown() -> None:
    source = Provider("http://user:hunter2@127.0.0.1:9/v1?key=hunter3")
    async with open_endpoint(source, policy=RetryPolicy(attempts=1)) as endpoint:
        with anyio.fail_after(60), pytest.raises(ModelError) as caught:
            await endpoint.model("root").complete(a_request())
    assert "hunter" not in "".join(traceback.format_exception(caught.value))


async def test_a_provider_is_shown_without_its_key() -> None:
    assert KEY not in repr(Provider("http://x", KEY))


@BOTH_WAYS
async def test_a_rejected_parameter_is_left_out_and_remembered(way: Way) -> None:
    refusals: list[Answer] = [rejected_parameter("temperature"), rejected_parameter("max_tokens")]
    time = NoTime()
    async with a_model([*refusals, "one", "two"], time=time, way=way) as (server, model):
        assert (await model.complete(a_request())).text == "one"
        assert (await model.complete(a_request())).text == "two"
        params = [dict(request.params) for request in server.requests]
    assert params == [
        {"temperature": 0.6, "max_tokens": 99},
        {"max_tokens": 99},
        {"max_completion_tokens": 99},
        {"max_completion_tokens": 99},
    ]
    assert time.sleeps == []


async def test_what_one_model_refuses_is_still_sent_to_another() -> None:
    async with a_model([rejected_parameter("temperature"), "one", "two"]) as (server, model):
        await model.complete(a_request())
        await model.complete(a_request(model="other"))
        assert "temperature" in server.requests[-1].params


async def test_a_provider_that_takes_no_limit_at_all_is_asked_without_one() -> None:
    script: list[Answer] = [
        rejected_parameter("max_tokens"),
        rejected_parameter("max_completion_tokens"),
        "fine",
    ]
    async with a_model(script) as (server, model):
        assert (await model.complete(a_request())).text == "fine"
        assert dict(server.requests[-1].params) == {"temperature": 0.6}


async def test_stream_options_are_left_out_where_they_are_refused() -> None:
    async def on_delta(_: str) -> None:
        await anyio.lowlevel.checkpoint()

    async with a_model([rejected_parameter("stream_options"), "streamed"]) as (server, model):
        reply = await model.complete(a_request(on_delta=on_delta))
        assert (reply.text, reply.usage_estimated) == ("streamed", True)
        assert "stream_options" not in server.requests[-1].params


async def test_room_for_the_reply_that_is_too_large_is_not_a_prompt_too_long() -> None:
    told = "You requested 20000 tokens (3616 in the messages, 16384 in the completion)."
    fault = rejected(400, told, code="context_length_exceeded", param="messages")
    async with a_model([fault, fault, "fine"]) as (_, model):
        assert (await model.complete(a_request())).text == "fine"


async def test_a_parameter_that_was_not_sent_cannot_be_left_out() -> None:
    async with a_model(lambda _: rejected_parameter("temperature")) as (server, model):
        with pytest.raises(ModelRequestError):
            await model.complete(a_request(temperature=None))
        assert server.received == 1


@pytest.mark.parametrize(
    "fault",
    [
        context_too_long(),
        rejected(400, "the request exceeds the available context size", type="exceed_context_size"),
        rejected(400, "x", type="exceed_context_size_error"),
        rejected(413, "prompt is too long: 210000 tokens > 200000 maximum"),
    ],
)
async def test_a_prompt_too_long_has_an_error_of_its_own(fault: Fault) -> None:
    async with a_model(lambda _: fault) as (server, model):
        with pytest.raises(ContextLengthError):
            await model.complete(a_request())
        assert server.received == 1


@BOTH_WAYS
@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 429, 500, 503])
async def test_an_error_names_the_address_and_the_model(way: Way, status: int) -> None:
    policy = RetryPolicy(attempts=1, brief_attempts=1)
    async with a_model(lambda _: rejected(status, "No."), policy, way=way) as (server, model):
        told = f"endpoint at '{server.base_url}/?' answered {status} for the model 'root': .*No"
        with pytest.raises(ModelError, match=told):
            await model.complete(a_request())


@pytest.mark.parametrize(
    ("fault", "error", "part"),
    [
        (rejected(404, "The model `root` does not exist"), ModelRequestError, "does not exist"),
        (rejected(402, "Insufficient credits"), ModelRequestError, "Insufficient credits"),
        (rejected(429, "No quota", code="insufficient_quota"), ModelRateLimitError, "No quota"),
        (rejected(403, "Region not served"), ModelAuthenticationError, "Region not served"),
        (Fault(400, "plain words"), ModelRequestError, "plain words"),
        (Fault(400, {"detail": "odd shape"}), ModelRequestError, "odd shape"),
        (Fault(400), ModelRequestError, "answered 400"),
    ],
)
async def test_a_lasting_fault_is_not_retried(
    fault: Fault, error: type[ModelError], part: str
) -> None:
    async with a_model(lambda _: fault) as (server, model):
        with pytest.raises(error, match=part):
            await model.complete(a_request())
        assert server.received == 1


@BOTH_WAYS
async def test_pieces_of_a_stream_are_handed_on_as_they_come(way: Way) -> None:
    pieces: list[str] = []

    async def on_delta(piece: str) -> None:
        pieces.append(piece)
        await anyio.lowlevel.checkpoint()

    async with a_model([Reply("a text of several pieces", reasoning="hm")], way=way) as (_, model):
        reply = await model.complete(a_request(on_delta=on_delta))
    assert len(pieces) > 1
    assert "".join(pieces) == reply.text == "a text of several pieces"
    assert (reply.reasoning, reply.usage_estimated) == ("hm", False)


@BOTH_WAYS
async def test_a_stream_that_broke_begins_again_and_says_so(way: Way) -> None:
    pieces: list[str] = []

    async def on_delta(piece: str) -> None:
        pieces.append(piece)
        await anyio.lowlevel.checkpoint()

    ends_early = Fault(
        body='data: {"choices": [{"delta": {"content": "half"}}]}\n\n',
        headers={"content-type": "text/event-stream"},
    )
    async with a_model([ends_early, "whole"], way=way) as (_, model):
        assert (await model.complete(a_request(on_delta=on_delta))).text == "whole"
    assert pieces == ["half", "", "whole"]


@BOTH_WAYS
async def test_a_server_that_does_not_stream_is_read_all_the_same(way: Way) -> None:
    pieces: list[str] = []

    async def on_delta(piece: str) -> None:
        pieces.append(piece)
        await anyio.lowlevel.checkpoint()

    whole = Fault(body={"choices": [{"message": {"content": "whole"}, "finish_reason": "stop"}]})
    async with a_model([whole], way=way) as (_, model):
        assert (await model.complete(a_request(on_delta=on_delta))).text == "whole"
    assert pieces == ["whole"]


@pytest.mark.parametrize(
    ("said", "part"),
    [
        ('{"error": {"message": "overloaded"}}', "overloaded"),
        ("not JSON", "not JSON"),
    ],
)
async def test_a_stream_that_holds_an_error_is_asked_for_again(said: str, part: str) -> None:
    async def on_delta(_: str) -> None:
        await anyio.lowlevel.checkpoint()

    broken = Fault(
        body=f": keep-alive\n\ndata: {said}\n\n", headers={"content-type": "text/event-stream"}
    )
    async with a_model([broken, "fine"]) as (_, model):
        assert (await model.complete(a_request(on_delta=on_delta))).text == "fine"
    async with a_model(lambda _: broken, RetryPolicy(attempts=1)) as (_, model):
        with pytest.raises(ModelReplyError, match=part):
            await model.complete(a_request(on_delta=on_delta))


async def test_an_event_may_come_in_several_lines_and_without_an_end() -> None:
    pieces: list[str] = []

    async def on_delta(piece: str) -> None:
        pieces.append(piece)
        await anyio.lowlevel.checkpoint()

    body = (
        'data: {"choices": [{"delta":\r\ndata:  {"content": "one "}}]}\r\n\r\nid: 7\r\n'
        'data:{"choices": [{"delta": {"content": "two"}, "finish_reason": "stop"}]}'
    )
    whole = Fault(body=body, headers={"content-type": "text/event-stream; charset=utf-8"})
    async with a_model([whole]) as (_, model):
        assert (await model.complete(a_request(on_delta=on_delta))).text == "one two"
    assert pieces == ["one ", "two"]


async def test_calls_at_once_have_connections_of_their_own_that_are_used_again() -> None:
    gate = anyio.Event()
    async with a_model(lambda _: Reply("x", gate=gate)) as (server, model):
        for _ in range(2):
            async with anyio.create_task_group() as group:
                for _ in range(5):
                    group.start_soon(model.complete, a_request())
                await server.until(lambda: server.received in {5, 10} or server.in_flight == 5)
                gate.set()
        assert (server.received, server.connections) == (10, 5)
        await model.complete(a_request())
        assert server.connections == 5
    assert server.connections == 0


async def test_without_a_key_none_is_sent() -> None:
    with anyio.fail_after(60):
        async with (
            open_scripted_model("ok") as server,
            open_endpoint(Provider(server.base_url + "/")) as endpoint,
        ):
            await endpoint.model("root").complete(a_request())
            assert server.requests[0].authorization == ""


async def test_a_query_in_the_address_stays_at_its_end() -> None:
    with anyio.fail_after(60):
        async with (
            open_scripted_model("ok") as server,
            open_endpoint(Provider(f"{server.base_url}?version=2")) as endpoint,
        ):
            with pytest.raises(ModelRequestError, match=r"/v1/chat/completions\?version=2"):
                await endpoint.model("root").complete(a_request())


async def test_a_provider_is_asked_without_the_client_library() -> None:
    code = (
        "import sys, anyio\n"
        "from rlm_mcp.engine.models.chat import ChatRequest\n"
        "from rlm_mcp.engine.models.openai_client import Provider, open_endpoint\n"
        "async def main():\n"
        "    async with open_endpoint(Provider(sys.argv[1])) as endpoint:\n"
        "        reply = await endpoint.model('m').complete(ChatRequest(()))\n"
        "    print(reply.text, 'openai' in sys.modules)\n"
        "anyio.run(main)\n"
    )
    with anyio.fail_after(60):
        async with open_scripted_model("ok") as server:
            done = await anyio.run_process([sys.executable, "-c", code, server.base_url])
    assert done.stdout.decode() == "ok False\n"


@BOTH_WAYS
async def test_a_cancelled_request_is_closed_at_the_server(way: Way) -> None:
    async with a_model(lambda _: no_answer(), way=way) as (server, model):
        async with anyio.create_task_group() as group:
            group.start_soon(model.complete, a_request())
            await server.until(lambda: server.in_flight == 1)
            group.cancel_scope.cancel()
        await server.until(lambda: server.hung_up == 1)
        assert server.in_flight == 0


async def test_connections_of_cancelled_requests_can_be_used_again() -> None:
    async with a_model("a text of several pieces") as (server, model):
        for _ in range(3):
            all_began, begun = anyio.Event(), 0

            async def on_delta(_: str, all_began: anyio.Event = all_began) -> None:
                nonlocal begun
                begun += 1
                if begun == 8:
                    all_began.set()
                await anyio.sleep_forever()

            async with anyio.create_task_group() as group:
                for _ in range(8):
                    group.start_soon(model.complete, a_request(on_delta=on_delta))
                await all_began.wait()
                group.cancel_scope.cancel()
        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(model.complete, a_request())
        assert (server.received, server.connections <= 8) == (32, True)


async def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with anyio.fail_after(60):
        async with open_scripted_model("by way of a proxy") as proxy:
            monkeypatch.setenv("http_proxy", proxy.base_url.removesuffix("/v1"))
            async with open_endpoint(Provider("http://nowhere.invalid/v1")) as endpoint:
                reply = await endpoint.model("root").complete(a_request())
    assert reply.text == "by way of a proxy"


async def test_calls_at_once_are_limited_across_endpoints() -> None:
    gate = anyio.Event()
    limiter = anyio.CapacityLimiter(3)
    with anyio.fail_after(60):
        async with open_scripted_model(lambda _: Reply("ok", gate=gate)) as server:
            source = Provider(server.base_url)
            async with (
                open_endpoint(source, limiter=limiter) as one,
                open_endpoint(source, limiter=limiter) as two,
                anyio.create_task_group() as group,
            ):
                for endpoint in (one, two) * 4:
                    group.start_soon(endpoint.model("root").complete, a_request())
                await server.until(lambda: server.in_flight == 3)
                gate.set()
            assert (server.received, server.most_in_flight) == (8, 3)


async def test_a_rate_limit_holds_back_the_other_calls_too() -> None:
    asleep, over, now = anyio.Event(), anyio.Event(), 0.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        asleep.set()
        await over.wait()
        now += seconds

    with anyio.fail_after(60):
        async with (
            open_scripted_model([rate_limited("9"), "one", "two"]) as server,
            open_endpoint(Provider(server.base_url), timing=Timing(sleep, lambda: now)) as endpoint,
            anyio.create_task_group() as group,
        ):
            group.start_soon(endpoint.model("root").complete, a_request())
            await asleep.wait()
            group.start_soon(endpoint.model("other").complete, a_request())
            await anyio.wait_all_tasks_blocked()
            assert server.received == 1
            over.set()
        assert server.received == 3


async def test_a_hundred_runs_do_not_hammer_a_provider_that_takes_four_calls_at_once() -> None:
    def answer(_: ChatRequestView) -> Answer:
        return rate_limited("1") if server.in_flight > 4 else Reply("fine", latency_seconds=0.005)

    time = NoTime()
    answers: list[str] = []

    async def run(model: ChatModel) -> None:
        answers.append((await model.complete(a_request())).text)

    with anyio.fail_after(60):
        async with (
            open_scripted_model(answer) as server,
            open_endpoint(Provider(server.base_url), timing=time.timing) as endpoint,
            anyio.create_task_group() as runs,
        ):
            for number in range(100):
                runs.start_soon(run, endpoint.model(f"model {number % 3}"))
    assert answers == ["fine"] * 100
    # One by one they would be refused hundreds of times, and most would run out of attempts.
    assert server.received < 200


async def test_the_window_halves_in_a_crowd_and_recovers() -> None:
    time = NoTime()
    pace = Pace(time.timing)
    widest = pace.window
    async with pace.turn(), pace.turn(), pace.turn(), pace.turn():
        pace.slow_down(5)
        pace.slow_down(5)  # the same crowd, not another
    assert pace.window == 2
    async with pace.turn():
        assert time.sleeps == [5]
    for _ in range(2 + 3 + 4):
        pace.recover()
    assert pace.window == 5
    time.now += 31  # nobody was refused for long
    for _ in range(widest):
        pace.recover()
    assert pace.window == widest


@BOTH_WAYS
async def test_an_endpoint_can_be_looked_for_without_asking_a_model(way: Way) -> None:
    with anyio.fail_after(60):
        async with open_scripted_model("ok") as server:
            for address in (server.base_url, f"{server.base_url}/nowhere"):
                async with (
                    a_source(way(address, KEY)) as source,
                    open_endpoint(source) as endpoint,
                ):
                    await endpoint.check()  # an answer of any kind is one
            assert server.received == 0
        async with a_source(way(server.base_url, KEY)) as it, open_endpoint(it) as endpoint:
            with pytest.raises(ModelConnectionError, match="No connection"):
                await endpoint.check()


async def test_lone_surrogates_are_replaced_before_they_are_sent() -> None:
    async with a_model("ok") as (server, model):
        await model.complete(a_request("half \ud83d é"))
        assert server.requests[0].text == "half ? é"


@pytest.mark.parametrize(
    ("source", "part"),
    [
        (Provider(api_key="sk-…"), "Copy it again"),
        (Provider(api_key=f"{KEY}\n"), "Copy it again"),
        (Provider("localhost:8000/v1", KEY), "'localhost:8000/v1' is not a web address"),
        (Provider("http://host:port/v1", KEY), "'http://host:port/v1' cannot be used"),
    ],
)
async def test_what_cannot_be_an_endpoint_is_refused_without_a_retry(
    source: Provider, part: str
) -> None:
    async with open_endpoint(source) as endpoint:
        with pytest.raises(ConfigurationError, match=part) as caught:
            await endpoint.model("root").complete(a_request())
    assert KEY not in "".join(traceback.format_exception(caught.value))


def test_native_tool_calls_are_read_as_text() -> None:
    body = (
        '{"choices": [{"message": {"content": null, "tool_calls": '
        '[{"function": {"name": "python", "arguments": "{}"}}]}, "finish_reason": "tool_calls"}]}'
    )
    assert read_completion(body, 0).text == (
        '<tool_call>{"name": "python", "arguments": "{}"}</tool_call>'
    )


def test_content_in_parts_is_joined() -> None:
    body = '{"choices": [{"message": {"content": [{"text": "a"}, {"text": "b"}]}}]}'
    assert read_completion(body, 0).text == "ab"


def test_surrogates_in_a_reply_are_made_whole_or_replaced() -> None:
    body = '{"choices": [{"message": {"content": "\\ud83d\\ude00 \\ud83d é"}}]}'
    assert read_completion(body, 0).text == "😀 \ufffd é"


def test_a_reply_nested_without_end_is_no_completion() -> None:
    with pytest.raises(ModelReplyError, match="not JSON"):
        read_completion("[" * 200_000, 0)


def test_a_reply_that_is_no_completion_is_quoted_in_the_error() -> None:
    with pytest.raises(ModelReplyError, match="<html>"):
        read_completion(b"<html>" + b"x" * 10_000, 0)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("3", 3.0),
        ("0.5", 0.5),
        ("-1", 0.0),
        ("soon", None),
        ("Mon, 23 Nov 2026 10:00:30 GMT", 30.0),
        ("Mon, 23 Nov 2026 09:00:00 GMT", 0.0),
        ("nan", None),
        ("inf", None),
    ],
)
def test_retry_after_is_read_as_seconds(value: str | None, seconds: float | None) -> None:
    now = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
    assert parse_retry_after(value, now) == seconds
