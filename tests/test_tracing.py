"""Spans of a run, as an OpenTelemetry SDK would receive them."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
from opentelemetry import context, trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode

from rlm_mcp.engine.budget import Budget
from rlm_mcp.engine.config import RLMConfig
from rlm_mcp.engine.loop.orchestrator import answer
from rlm_mcp.engine.models.chat import ChatReply, ChatRequest
from rlm_mcp.engine.run_context import Engine, RLMEvent, repl_options
from rlm_mcp.engine.telemetry import find_tracer
from rlm_mcp.engine.types import RLMResponse
from rlm_mcp.errors import ModelConnectionError
from rlm_mcp.sandbox.host.sandbox import ProcessSandbox
from rlm_mcp.sandbox.host.text import TextContext


class Recorded(NonRecordingSpan):
    """A span that remembers; its parent is the one that was current when it began."""

    def __init__(self, name: str, kind: SpanKind, attributes: Mapping[str, Any]) -> None:
        super().__init__(SpanContext(1, 1, is_remote=False))
        parent = trace.get_current_span()
        self.path: str = f"{parent.path} > {name}" if isinstance(parent, Recorded) else name
        self.kind = kind
        self.attributes: dict[str, Any] = dict(attributes)
        self.status = StatusCode.UNSET
        self.ended = False
        self.texts: list[str] = []  # of exceptions and statuses

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        self.attributes |= attributes

    def set_attribute(self, key: str, value: Any) -> None:
        self.attributes[key] = value

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        assert isinstance(status, StatusCode)
        self.status = status


@dataclass
class Recorder(trace.NoOpTracer):
    spans: list[Recorded] = field(default_factory=list[Recorded])

    @contextmanager
    def start_as_current_span(  # pyright: ignore[reportIncompatibleMethodOverride]  # ours are keywords
        self,
        name: str,
        *,
        kind: SpanKind,
        attributes: Mapping[str, Any],
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> Generator[Recorded]:
        span = Recorded(name, kind, attributes)
        self.spans.append(span)
        token = context.attach(trace.set_span_in_context(span))
        try:
            yield span
        except BaseException as error:
            if record_exception or set_status_on_exception:
                span.texts.append(str(error))
            raise
        finally:
            context.detach(token)
            span.ended = True


@dataclass
class Scripted:
    replies: list[str]

    async def complete(self, request: ChatRequest) -> ChatReply:
        await anyio.lowlevel.checkpoint()
        if not self.replies:
            raise ModelConnectionError("gone")
        return ChatReply(self.replies.pop(0), input_tokens=5, output_tokens=2)


@pytest.fixture(scope="module")
async def sandbox() -> AsyncGenerator[ProcessSandbox]:
    async with ProcessSandbox(min_isolation="process") as sandbox:
        yield sandbox


async def ask(
    sandbox: ProcessSandbox, replies: list[str], recorder: Recorder | None, **config: Any
) -> RLMResponse:
    async def emit(*_: RLMEvent) -> None:
        await anyio.lowlevel.checkpoint()

    settings = RLMConfig(**config)
    engine = Engine(
        root=Scripted(replies),
        sub=Scripted(["heard"] * 9),
        sandbox=sandbox,
        config=settings,
        budget=Budget(settings),
        emit=emit,
        model_names=("big", "small"),
        tracer=recorder,
    )
    source = TextContext.of("text")
    with anyio.fail_after(60):
        async with sandbox.open_repl(source, repl_options(settings)) as repl:
            return await answer("What?", source, repl, engine)


async def test_run_turns_calls_and_cells_are_spans_inside_each_other(
    sandbox: ProcessSandbox,
) -> None:
    recorder = Recorder()
    cell = "```repl\nr = llm_query_batch(['a', 'b'])\n```"
    await ask(sandbox, [cell, "FINAL(secret answer)"], recorder, temperature=None)
    run, turn = "invoke_agent rlm", "invoke_agent rlm > rlm.iteration"
    assert [span.path for span in recorder.spans] == [
        run,
        turn,
        f"{turn} > chat big",
        f"{turn} > execute_tool repl",
        f"{turn} > execute_tool repl > chat small",
        f"{turn} > execute_tool repl > chat small",
        turn,
        f"{turn} > chat big",
    ]
    assert all(span.ended for span in recorder.spans)
    chat = recorder.spans[2]
    assert chat.kind is SpanKind.CLIENT
    assert chat.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "big",
        "gen_ai.request.max_tokens": 16_384,
        "gen_ai.usage.input_tokens": 5,
        "gen_ai.usage.output_tokens": 2,
        "gen_ai.response.finish_reasons": ("stop",),
    }
    whole = recorder.spans[0].attributes
    assert (whole["rlm.status"], whole["rlm.iterations"], whole["rlm.sub_calls"]) == (
        "completed",
        2,
        2,
    )
    assert "secret" not in str([span.attributes for span in recorder.spans])


async def test_what_failed_is_marked_with_its_type(sandbox: ProcessSandbox) -> None:
    recorder = Recorder()
    response = await ask(sandbox, ["```repl\n1 / 0\n```"], recorder)
    assert response.status == "failed"
    failed = {
        span.path.rpartition("> ")[2]: span.attributes["error.type"]
        for span in recorder.spans
        if span.status is StatusCode.ERROR
    }
    assert failed == {
        "execute_tool repl": "ZeroDivisionError",
        "chat big": "ModelConnectionError",
        "rlm.iteration": "ModelConnectionError",
        "invoke_agent rlm": "ModelConnectionError",
    }
    assert all(span.ended for span in recorder.spans)


async def test_spans_hold_no_text_of_errors_and_no_name_that_code_made_up(
    sandbox: ProcessSandbox,
) -> None:
    recorder = Recorder()
    secret = "SecretOfThePrompt"
    code = f"class {secret}(Exception): pass\nraise {secret}('{secret}')"
    await ask(sandbox, [f"```repl\n{code}\n```"], recorder, max_iterations=2)
    types = {span.attributes.get("error.type") for span in recorder.spans}
    assert types == {None, "_OTHER", "ModelConnectionError"}
    assert [span.texts for span in recorder.spans if span.texts] == []
    assert secret not in str([(span.path, span.attributes) for span in recorder.spans])


async def test_without_a_tracer_a_run_is_the_same(sandbox: ProcessSandbox) -> None:
    assert find_tracer() is None
    assert (await ask(sandbox, ["FINAL(x)"], None)).answer == "x"


async def test_the_provider_of_the_process_is_found_and_nothing_is_loaded_for_it() -> None:
    code = (
        "import sys\n"
        "from rlm_mcp.engine.telemetry import find_tracer\n"
        "print(find_tracer(), 'opentelemetry' in sys.modules)\n"
        "from opentelemetry import trace\n"
        "print(find_tracer())\n"
        "class Provider(trace.TracerProvider):\n"
        "    def get_tracer(self, name, *rest, **more):\n"
        "        return f'tracer of {name}'\n"
        "trace.set_tracer_provider(Provider())\n"
        "print(find_tracer())\n"
    )
    with anyio.fail_after(60):
        done = await anyio.run_process([sys.executable, "-c", code])
    assert done.stdout.decode().splitlines() == ["None False", "None", "tracer of rlm_mcp"]
