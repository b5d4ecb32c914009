"""The library, as its users call it."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.from_thread
import openai
import pytest
from anyio import to_thread
from blockbuster import BlockBuster

import rlm_mcp
from rlm_mcp import (
    ChatModel,
    ChatReply,
    ChatRequest,
    InvalidInputError,
    MemoryCache,
    ModelAuthenticationError,
    ModelError,
    RLMConfig,
    RLMEvent,
    RLMResponse,
    RLMWrapper,
)
from rlm_mcp.engine.backends import BackendOpener, LastText
from rlm_mcp.engine.config import RLMConfig as Config
from rlm_mcp.sandbox.host.sandbox import ProcessSandbox
from rlm_mcp.sandbox.host.text import TextContext
from rlm_mcp.sandbox.types import (
    CallHandler,
    CellResult,
    ContextSource,
    Isolation,
    Repl,
    ReplCall,
    ReplOptions,
    Variable,
    VariableText,
)
from rlm_mcp.testing.scripted_model import ScriptedModel, open_scripted_model
from rlm_mcp.testing.scripted_replies import Reply, Script, by_model, no_answer, unauthorized

ASKS_ONCE = ["```repl\nr = llm_query('p ' + context[:4])\n```", "FINAL_VAR(r)"]


def a_sandbox() -> ProcessSandbox:
    return ProcessSandbox(min_isolation="process")


@pytest.fixture(scope="module")
async def warm() -> AsyncGenerator[ProcessSandbox]:
    async with a_sandbox() as sandbox:
        yield sandbox


@asynccontextmanager
async def a_server(root: Script, sub: Script = "heard") -> AsyncGenerator[ScriptedModel]:
    with anyio.fail_after(60):
        async with open_scripted_model(by_model(root=root, sub=sub)) as server:
            yield server


@contextmanager
def a_server_in_a_thread(root: Script) -> Generator[ScriptedModel]:
    with (
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(a_server(root)) as server,
    ):
        yield server


@dataclass
class LocalModel:
    """A `ChatModel` with no endpoint behind it."""

    replies: list[str]
    requests: list[ChatRequest] = field(default_factory=list[ChatRequest])

    async def complete(self, request: ChatRequest) -> ChatReply:
        self.requests.append(request)
        await anyio.lowlevel.checkpoint()
        return ChatReply(self.replies.pop(0))


def a_wrapper(
    server: ScriptedModel, sandbox: ProcessSandbox, **config: Any
) -> RLMWrapper:  # RLMConfig's
    client = openai.OpenAI(api_key="sk-1", base_url=server.base_url)
    return RLMWrapper(
        client,
        root_model="root",
        sub_model="sub",
        config=RLMConfig(**config),
        sandbox=sandbox,
        direct_http=True,  # so that a request can be ended
    )


async def test_a_question_is_answered_with_an_async_client(warm: ProcessSandbox) -> None:
    async with a_server(ASKS_ONCE) as server:
        async with openai.AsyncOpenAI(api_key="k", base_url=server.base_url) as client:
            wrapper = RLMWrapper(client, "root", "sub", sandbox=warm)
            response = await wrapper.agenerate("What?", "text")
            assert not client.is_closed()
        assert [request.text for request in server.requests if request.model == "sub"] == ["p text"]
    assert (response.answer, response.status) == ("heard", "completed")
    assert (response.iterations, response.sub_calls, response.cost) == (2, 1, None)
    assert response.repl_variables == {"r": "'heard'"}


async def test_a_synchronous_client_and_several_documents_will_do(warm: ProcessSandbox) -> None:
    async with a_server(["```repl\nFINAL([isinstance(context, list), *context])\n```"]) as server:
        response = await a_wrapper(server, warm).agenerate("What?", ["one", "two"])
    assert response.data == [True, "one", "two"]


async def test_a_model_of_ones_own_will_do(warm: ProcessSandbox) -> None:
    model = LocalModel(["```repl\nFINAL(llm_query('p'))\n```", "own words"])
    response = await RLMWrapper(model, sandbox=warm).agenerate("What?", "text")
    assert (response.answer, [request.model for request in model.requests]) == (
        "own words",
        [None, None],
    )
    model = LocalModel(["```repl\nFINAL(llm_query('p'))\n```", "own words"])
    await RLMWrapper(model, "big", "small", sandbox=warm).agenerate("What?", "text")
    assert [request.model for request in model.requests] == ["big", "small"]


async def test_the_root_answers_sub_calls_where_no_other_is_named(warm: ProcessSandbox) -> None:
    def root(request: Any) -> str:
        return "it is me" if request.text == "p" else "```repl\nFINAL(llm_query('p'))\n```"

    async with a_server(root) as server:
        client = openai.OpenAI(api_key="sk-1", base_url=server.base_url)
        wrapper = RLMWrapper(client, "root", sandbox=warm)
        assert (await wrapper.agenerate("What?", "text")).answer == "it is me"


def test_a_plain_script_can_ask() -> None:
    with a_server_in_a_thread(ASKS_ONCE * 2) as server:
        wrapper = a_wrapper(server, a_sandbox())
        responses = [wrapper.generate(query="What?", context="text") for _ in range(2)]
    assert [response.answer for response in responses] == ["heard", "heard"]


def test_an_async_client_can_be_asked_from_a_plain_script_again_and_again() -> None:
    with a_server_in_a_thread(ASKS_ONCE * 2) as server:
        # With connections of its own, which belong to no event loop that answers here.
        pool = openai.DefaultAsyncHttpxClient()
        client = openai.AsyncOpenAI(api_key="k", base_url=server.base_url, http_client=pool)
        wrapper = RLMWrapper(client, "root", "sub", sandbox=a_sandbox())
        responses = [wrapper.generate("What?", "text") for _ in range(2)]
        asyncio.run(client.close())
    assert [response.status for response in responses] == ["completed", "completed"]


def test_generate_works_inside_a_running_loop(no_blocking_of_the_event_loop: BlockBuster) -> None:
    no_blocking_of_the_event_loop.deactivate()  # a notebook's cell blocks its loop: that is asked

    async def cell(wrapper: RLMWrapper) -> RLMResponse:
        return wrapper.generate("What?", "text")

    with a_server_in_a_thread(ASKS_ONCE) as server:
        assert asyncio.run(cell(a_wrapper(server, a_sandbox()))).answer == "heard"


def test_one_wrapper_may_be_asked_from_one_loop_after_another() -> None:
    with a_server_in_a_thread(ASKS_ONCE * 2) as server:
        wrapper = a_wrapper(server, a_sandbox())
        for _ in range(2):
            assert asyncio.run(wrapper.agenerate("What?", "text")).answer == "heard"


async def test_within_a_block_connections_are_kept_and_closed_at_its_end(
    warm: ProcessSandbox,
) -> None:
    async with a_server(ASKS_ONCE * 2) as server:
        async with a_wrapper(server, warm) as wrapper:
            for _ in range(2):
                assert (await wrapper.agenerate("What?", "text")).answer == "heard"
            assert server.connections == 1
        await server.until(lambda: server.connections == 0)


async def test_the_default_sandbox_will_do() -> None:
    async with RLMWrapper(LocalModel(["```repl\nFINAL(context + '!')\n```"])) as wrapper:
        assert (await wrapper.agenerate("What?", "text")).answer == "text!"


async def test_a_stream_of_events_ends_with_the_response(warm: ProcessSandbox) -> None:
    async with a_server(ASKS_ONCE) as server:
        events = [
            event async for event in a_wrapper(server, warm).astream_generate("What?", "text")
        ]
    assert [event.type for event in events] == [
        "run_started",
        "iteration_start",
        "code_generated",
        "sub_calls_started",
        "sub_calls_finished",
        "code_executed",
        "iteration_start",
        "code_generated",
        "code_executed",
        "final_answer",
        "run_finished",
    ]
    assert [event.response for event in events[:-1]] == [None] * 10
    last = events[-1].response
    assert last is not None
    assert last.answer == "heard"
    assert events[-1].usage.sub_calls == 1
    assert events[0].detail["chars"] == 4


async def test_leaving_a_stream_ends_its_run(warm: ProcessSandbox) -> None:
    async with a_server(lambda _: no_answer()) as server:
        async with aclosing(a_wrapper(server, warm).astream_generate("What?", "text")) as events:
            async for event in events:
                if event.type == "iteration_start":
                    await server.until(lambda: server.in_flight == 1)
                    break
        await server.until(lambda: server.in_flight == 0)
        assert server.hung_up == 1


async def test_cancelling_the_reader_of_a_stream_ends_its_run(warm: ProcessSandbox) -> None:
    async with a_server(lambda _: no_answer()) as server:
        async with anyio.create_task_group() as group:

            async def read() -> None:
                async for _ in a_wrapper(server, warm).astream_generate("What?", "text"):
                    pass

            group.start_soon(read)
            await server.until(lambda: server.in_flight == 1)
            group.cancel_scope.cancel()
        await server.until(lambda: server.in_flight == 0)
        assert server.hung_up == 1


async def test_what_cannot_be_asked_is_raised_from_a_stream_too(warm: ProcessSandbox) -> None:
    wrapper = RLMWrapper(LocalModel([]), sandbox=warm)
    with pytest.raises(TypeError, match="not int"):
        async for _ in wrapper.astream_generate("What?", 5):  # pyright: ignore[reportArgumentType]
            pass


async def test_listeners_may_be_plain_or_async(warm: ProcessSandbox) -> None:
    plain: list[str] = []
    awaited: list[str] = []

    def on_event(event: RLMEvent) -> None:
        plain.append(event.type)

    async def on_event_async(event: RLMEvent) -> None:
        await anyio.lowlevel.checkpoint()
        awaited.append(event.type)

    wrapper = RLMWrapper(LocalModel(["FINAL(x)", "FINAL(x)"]), sandbox=warm)
    await wrapper.agenerate("What?", "text", on_event=on_event)
    await wrapper.agenerate("What?", "text", on_event=on_event_async)
    assert (
        plain
        == awaited
        == [
            "run_started",
            "iteration_start",
            "code_generated",
            "final_answer",
            "run_finished",
        ]
    )


async def test_a_listener_that_raises_is_logged_once_and_changes_nothing(
    warm: ProcessSandbox,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def on_event(_: RLMEvent) -> None:
        raise RuntimeError("listener broke")

    wrapper = RLMWrapper(LocalModel(["FINAL(x)"]), sandbox=warm)
    with caplog.at_level(logging.WARNING):
        response = await wrapper.agenerate("What?", "text", on_event=on_event)
    assert response.answer == "x"
    assert [record.message for record in caplog.records] == [
        "on_event raised an error; the run continues."
    ]


async def test_verbose_prints_events_to_stderr_alone(
    warm: ProcessSandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    model = LocalModel(["FINAL(x)"])
    config = RLMConfig(verbose=True)
    await RLMWrapper(model, config=config, sandbox=warm).agenerate("What?", "text")
    out, err = capsys.readouterr()
    assert out == ""
    assert "[1] final_answer: x\n" in err


@pytest.mark.parametrize("context", [None, 5, b"bytes", {"a": "b"}, ["ok", 5], iter(["a"])])
async def test_a_context_that_is_no_text_is_refused_at_the_door(
    warm: ProcessSandbox, context: object
) -> None:
    model = LocalModel([])
    with pytest.raises(TypeError, match="context"):
        await RLMWrapper(model, sandbox=warm).agenerate("What?", context)  # pyright: ignore[reportArgumentType]
    assert model.requests == []


async def test_other_unusable_arguments_are_refused_at_the_door(warm: ProcessSandbox) -> None:
    wrapper = RLMWrapper(LocalModel([]), sandbox=warm)
    with pytest.raises(TypeError, match="query must be a str, not int"):
        await wrapper.agenerate(5, "text")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InvalidInputError, match="answer_schema"):
        await wrapper.agenerate("What?", "text", answer_schema={"type": "nonsense"})
    with pytest.raises(TypeError, match=r"client must be an OpenAI.*not str"):
        RLMWrapper("sk-1", "root")  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="root_model"):
        RLMWrapper(openai.OpenAI(api_key="k"))


async def test_an_empty_text_and_no_documents_can_be_asked_about(warm: ProcessSandbox) -> None:
    for context in ("", [], [""]):
        model = LocalModel(["```repl\nFINAL(len(context))\n```"])
        response = await RLMWrapper(model, sandbox=warm).agenerate("What?", context)
        assert response.data == len(context)


async def test_a_failed_run_is_a_response_and_not_an_exception(warm: ProcessSandbox) -> None:
    async with a_server(lambda _: unauthorized("sk-1")) as server:
        response = await a_wrapper(server, warm).agenerate("What?", "text")
    assert (response.status, response.answer) == ("failed", None)
    assert isinstance(response.error, ModelAuthenticationError)


async def test_the_cost_is_told_where_prices_are_known(warm: ProcessSandbox) -> None:
    root = [Reply("FINAL(x)", usage=(1000, 10))]
    async with a_server(root) as server:
        wrapper = a_wrapper(server, warm, cost_per_input_token=0.001, cost_per_output_token=0.01)
        assert (await wrapper.agenerate("What?", "text")).cost == pytest.approx(1.1)


async def test_a_cache_answers_for_later_questions(warm: ProcessSandbox) -> None:
    cache = MemoryCache()
    for replies, cached in (
        (["```repl\nFINAL(llm_query('p'))\n```", "heard"], 0),
        (["```repl\nFINAL(llm_query('p'))\n```"], 1),
    ):
        wrapper = RLMWrapper(LocalModel(replies), sandbox=warm, cache=cache)
        response = await wrapper.agenerate("What?", "text")
        assert (response.answer, response.cached_sub_calls) == ("heard", cached)


class CountingModel:
    """A `ChatModel` that answers when so many calls are there at once, and not before."""

    def __init__(self, code: str, until: int) -> None:
        self._code = code
        self._until = until
        self._all = anyio.Event()
        self.now = self.most = 0

    async def complete(self, request: ChatRequest) -> ChatReply:
        if request.model == "root":
            return ChatReply(f"```repl\n{self._code}\n```")
        self.now += 1
        self.most = max(self.most, self.now)
        if self.now == self._until:
            self._all.set()
        await self._all.wait()
        self.now -= 1
        return ChatReply("heard")


@pytest.mark.parametrize("at_once", [3, 100])
async def test_calls_at_once_are_as_many_as_the_config_allows(
    warm: ProcessSandbox, at_once: int
) -> None:
    asks = "FINAL(len(set(llm_query_batch([f'piece {i}' for i in range(120)]))))"
    model = CountingModel(asks, until=at_once)
    config = RLMConfig(max_concurrent_calls=at_once)
    wrapper = RLMWrapper(model, "root", "sub", config=config, sandbox=warm)
    with anyio.fail_after(60):
        assert (await wrapper.agenerate("?", "text")).answer == "1"
    assert model.most == at_once


async def test_questions_at_once_do_not_disturb_each_other(warm: ProcessSandbox) -> None:
    def root(request: Any) -> str:
        return f"```repl\nFINAL(context + {request.messages[-1]['content']!r}[10:12])\n```"

    async with a_server(root) as server:
        wrapper = a_wrapper(server, warm)
        answers: dict[int, str | None] = {}

        async def ask(number: int) -> None:
            answers[number] = (await wrapper.agenerate(f"{number}?", f"text {number}")).answer

        async with anyio.create_task_group() as group:
            for number in range(4):
                group.start_soon(ask, number)
    assert answers == {number: f"text {number}{number}?" for number in range(4)}


# --- what the package offers

PUBLIC = {
    "BatchLine",
    "BatchOptions",
    "BudgetExceededError",
    "ChatModel",
    "ChatReply",
    "ChatRequest",
    "ConfigurationError",
    "ContextLengthError",
    "HistoryEntry",
    "InvalidInputError",
    "IsolationError",
    "MemoryCache",
    "ModelAuthenticationError",
    "ModelConnectionError",
    "ModelError",
    "ModelRateLimitError",
    "ModelReplyError",
    "ModelRequestError",
    "RLMConfig",
    "RLMError",
    "RLMEvent",
    "RLMResponse",
    "RLMWrapper",
    "SandboxError",
    "Settings",
    "SubCallCache",
    "Usage",
    "__version__",
    "open_batch",
}


def test_the_public_names_are_these() -> None:
    assert set(rlm_mcp.__all__) == PUBLIC
    assert {name for name in PUBLIC if hasattr(rlm_mcp, name)} == PUBLIC
    assert rlm_mcp.RLMConfig is Config
    assert not hasattr(rlm_mcp, "nonsense")
    assert dir(rlm_mcp) == sorted(PUBLIC)


def test_a_model_of_ones_own_fits_the_protocol() -> None:
    model: ChatModel = LocalModel([])
    assert callable(model.complete)


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60)
    return {name.partition(".")[0] for name in done.stdout.decode().split()}


async def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = {"openai", "httpx2", "mcp", "pydantic", "anyio", "sqlite_utils"}
    assert loaded_by("import rlm_mcp").isdisjoint(heavy)
    with_wrapper = await to_thread.run_sync(loaded_by, "from rlm_mcp import RLMWrapper")
    assert with_wrapper.isdisjoint({"openai", "httpx2", "mcp", "sqlite_utils"})


# --- streams of text


async def test_the_roots_replies_are_heard_as_they_arrive(warm: ProcessSandbox) -> None:
    heard: list[str] = []
    async with a_server(ASKS_ONCE) as server:
        response = await a_wrapper(server, warm).agenerate("What?", "text", on_delta=heard.append)
        asked = [(request.model, request.streamed) for request in server.requests]
    assert "".join(heard) == "".join(ASKS_ONCE)
    assert len(heard) > 2
    assert asked == [("root", True), ("sub", False), ("root", True)]
    assert response.answer == "heard"


async def test_a_listener_of_text_that_raises_changes_nothing(
    warm: ProcessSandbox, caplog: pytest.LogCaptureFixture
) -> None:
    async def on_delta(_: str) -> None:
        await anyio.lowlevel.checkpoint()
        raise RuntimeError("listener broke")

    async with a_server(ASKS_ONCE) as server:
        with caplog.at_level(logging.WARNING):
            response = await a_wrapper(server, warm).agenerate("What?", "text", on_delta=on_delta)
    assert response.answer == "heard"
    assert [record.message for record in caplog.records] == [
        "on_delta raised an error; the run continues."
    ]


async def test_a_stream_of_events_can_hold_the_text_as_it_arrives(warm: ProcessSandbox) -> None:
    async with a_server(ASKS_ONCE) as server:
        stream = a_wrapper(server, warm).astream_generate("What?", "text", deltas=True)
        events = [event async for event in stream]
    pieces = [(e.iteration, e.preview) for e in events if e.type == "root_delta"]
    for turn, reply in enumerate(ASKS_ONCE, 1):
        assert "".join(piece for at, piece in pieces if at == turn) == reply
    assert events[-1].response is not None


# --- what is kept between questions, and what user code may do


async def test_the_walls_are_tried_once_for_a_wrapper() -> None:
    supplier = BackendOpener(LocalModel([]), "", "", None, 1)
    async with supplier.open() as means:
        found = await means.sandbox.isolation()
    async with supplier.open() as means:
        assert await means.sandbox.isolation() is found


async def test_a_text_that_is_asked_about_again_is_the_same_source() -> None:
    long, other = "x" * 2_000_000, "y" * 2_000_000
    texts = LastText()
    first = texts.same_as(TextContext.of(long))
    assert texts.same_as(TextContext.of(long)) is first
    assert texts.same_as(TextContext.of([long])) is not first
    documents = texts.same_as(TextContext.of([long, other]))
    assert texts.same_as(TextContext.of([long, other])) is documents
    assert texts.same_as(TextContext.of([other, long])) is not documents


async def test_a_model_that_raises_anything_ends_in_a_response(warm: ProcessSandbox) -> None:
    model = LocalModel(["```repl\nfound = 'green'\n```"])  # then its list is empty
    response = await RLMWrapper(model, sandbox=warm).agenerate("What?", "text")
    assert (response.status, response.iterations) == ("failed", 2)
    assert isinstance(response.error, ModelError)
    assert "IndexError" in str(response.error)
    assert response.repl_variables == {"found": "'green'"}


# --- the usages that users are shown, as they are written


def test_the_response_of_the_first_example_prints_all_its_figures(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with a_server_in_a_thread(ASKS_ONCE) as server:
        client = RLMWrapper(
            openai.OpenAI(api_key="sk-...", base_url=server.base_url),
            root_model="root",
            sub_model="sub",
            config=RLMConfig(
                cost_per_input_token=2.50 / 1_000_000, cost_per_output_token=10.0 / 1_000_000
            ),
            sandbox=a_sandbox(),
        )
        response = client.generate(query="What is it about?", context="a very long text")
    print(response.answer, response.iterations, response.sub_calls)
    assert response.cost is not None
    print(f"{response.elapsed_seconds:.0f} Cost: ${response.cost:.4f}")
    assert capsys.readouterr().out.startswith("heard 2 1\n")
    assert response.total_input_tokens > response.total_output_tokens > 0
    prices = (2.50, 10.0)
    given = (response.total_input_tokens, response.total_output_tokens)
    assert response.cost * 1_000_000 == pytest.approx(
        sum(a * b for a, b in zip(prices, given, strict=True))
    )
    assert [type(entry).__name__ for entry in response.history] == ["HistoryEntry"] * 5


def test_events_of_a_blocking_call_are_shown_as_they_come(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def on_event(event: RLMEvent) -> None:
        print(f"[iter {event.iteration}] {event.type}: {event.preview[:80]}")

    with a_server_in_a_thread(ASKS_ONCE) as server:
        a_wrapper(server, a_sandbox()).generate(query="Which?", context="text", on_event=on_event)
    out = capsys.readouterr().out
    assert "[iter 0] run_started: Which?\n" in out
    assert "[iter 1] code_generated: r = llm_query" in out
    assert "[iter 2] final_answer: heard\n" in out


# --- other sandboxes


@dataclass
class InProcess:
    """A sandbox of a user's own, without walls: it runs code where it is."""

    opened: list[str] = field(default_factory=list[str])

    async def isolation(self) -> Isolation:
        return Isolation("process", ())

    @asynccontextmanager
    async def open_repl(self, source: ContextSource, options: ReplOptions) -> AsyncGenerator[Repl]:
        assert options.sub_calls
        text = b"".join(source.chunks()).decode()
        self.opened.append(text)
        yield InProcessRepl({"context": text})


@dataclass
class InProcessRepl:
    names: dict[str, Any]

    async def execute(
        self, code: str, *, timeout_seconds: float, on_call: CallHandler
    ) -> CellResult:
        reply = await on_call(ReplCall("llm_query", "asked for the code"))
        exec(code, self.names | {"reply": reply.text}, self.names)
        return CellResult(self.names.pop("said", ""), 0, timeout_seconds * 0)

    async def variables(self) -> list[Variable]:
        return [Variable(name, "str", 1, repr(value)) for name, value in self.names.items()]

    async def read_variable(
        self, name: str, *, start: int = 0, limit: int = 4000, whole: bool = False
    ) -> VariableText:
        raise NotImplementedError


async def test_a_sandbox_of_ones_own_will_do() -> None:
    sandbox = InProcess()
    replies = ["```repl\nsaid = found = context.upper() + reply\n```", "own words", "FINAL(x)"]
    model = LocalModel(replies)
    response = await RLMWrapper(model, sandbox=sandbox).agenerate("What?", "text")
    assert sandbox.opened == ["text"]
    assert "TEXTown words" in str(model.requests[-1].messages)
    assert (response.answer, response.repl_variables["found"]) == ("x", "'TEXTown words'")
