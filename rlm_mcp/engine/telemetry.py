"""OpenTelemetry spans of a run: the run, its turns, its model calls, its cells.

Names and attributes are those of the GenAI semantic conventions where they have some, with no text
of prompts, code, replies or errors. The package is never imported for it: where nobody did, nobody
listens.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rlm_mcp import errors

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

    from rlm_mcp.engine.models.chat import ChatReply, ChatRequest
    from rlm_mcp.engine.types import RLMResponse
    from rlm_mcp.sandbox.types import CellResult


NAME = "rlm_mcp"
_OF_CELLS = ("REPLDied",)  # what the host says of a cell that model code did not raise


def find_tracer() -> Tracer | None:
    """Give the tracer that this process was set up with; None while there is none."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    provider = trace.get_tracer_provider()
    if isinstance(provider, (trace.ProxyTracerProvider, trace.NoOpTracerProvider)):
        return None
    return provider.get_tracer(NAME)


class SpanNotes:
    """Notes results on a span; does nothing where there is none."""

    def __init__(self, span: Span | None = None) -> None:
        self._span = span

    def reply(self, reply: ChatReply) -> None:
        """Note what a model call gave."""
        self._note(
            {
                "gen_ai.usage.input_tokens": reply.input_tokens,
                "gen_ai.usage.output_tokens": reply.output_tokens,
                "gen_ai.response.finish_reasons": (reply.finish_reason,),
            }
        )

    def cell(self, result: CellResult) -> None:
        """Note how a cell ended."""
        self._note({"rlm.cell.output_chars": result.output_chars})
        if result.error is not None:
            self._fail(_known_type(result.error.type))

    def response(self, response: RLMResponse) -> None:
        """Note how a run ended, and its figures."""
        self._note(
            {
                "rlm.status": response.status,
                "rlm.iterations": response.iterations,
                "rlm.sub_calls": response.sub_calls,
                "rlm.cached_sub_calls": response.cached_sub_calls,
                "gen_ai.usage.input_tokens": response.total_input_tokens,
                "gen_ai.usage.output_tokens": response.total_output_tokens,
            }
        )
        if response.error is not None:
            self._fail(type(response.error).__name__)

    def failure(self, error: BaseException) -> None:
        """Note what a block raised, by its type: its text may quote a prompt or an endpoint."""
        self._fail(_known_type(type(error).__name__))

    def _note(self, attributes: Mapping[str, Any]) -> None:
        if self._span is not None:
            self._span.set_attributes(attributes)

    def _fail(self, type_: str) -> None:
        if self._span is not None:
            from opentelemetry.trace import StatusCode  # noqa: PLC0415  # loaded, as there is a span

            self._span.set_attribute("error.type", type_)
            self._span.set_status(StatusCode.ERROR)


def _known_type(name: str) -> str:
    """Return the name of an error's type, or the conventions' word for one that code made up."""
    is_known = isinstance(getattr(builtins, name, None), type) or hasattr(errors, name)
    return name if is_known or name in _OF_CELLS else "_OTHER"


@contextmanager
def run_span(tracer: Tracer | None, depth: int) -> Generator[SpanNotes]:
    """Span one question; runs inside a run are spans inside its span."""
    attributes = {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": "rlm",
        "rlm.depth": depth,
    }
    with _span(tracer, "invoke_agent rlm", attributes) as notes:
        yield notes


@contextmanager
def turn_span(tracer: Tracer | None, iteration: int) -> Generator[SpanNotes]:
    """Span one turn: the model call and the cells that it wrote."""
    with _span(tracer, "rlm.iteration", {"rlm.iteration": iteration}) as notes:
        yield notes


@contextmanager
def chat_span(tracer: Tracer | None, model: str, request: ChatRequest) -> Generator[SpanNotes]:
    """Span one model call, with its retries."""
    if tracer is None:
        yield SpanNotes()
        return
    attributes: dict[str, Any] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",  # or whoever speaks its protocol, as the conventions say
        "gen_ai.request.model": request.model or model,
        "gen_ai.request.max_tokens": request.max_tokens,
        "gen_ai.request.temperature": request.temperature,
    }
    given = {name: value for name, value in attributes.items() if value is not None}
    name = f"chat {attributes['gen_ai.request.model']}".rstrip()
    with _span(tracer, name, given, is_client=True) as notes:
        yield notes


@contextmanager
def cell_span(tracer: Tracer | None) -> Generator[SpanNotes]:
    """Span one cell in the REPL; the sub-calls that it makes are spans inside."""
    attributes = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "repl"}
    with _span(tracer, "execute_tool repl", attributes) as notes:
        yield notes


@contextmanager
def _span(
    tracer: Tracer | None, name: str, attributes: Mapping[str, Any], *, is_client: bool = False
) -> Generator[SpanNotes]:
    if tracer is None:
        yield SpanNotes()
        return
    from opentelemetry.trace import SpanKind  # noqa: PLC0415  # loaded, as there is a tracer

    kind = SpanKind.CLIENT if is_client else SpanKind.INTERNAL
    # The package itself would note the text of what is raised.
    with tracer.start_as_current_span(
        name,
        kind=kind,
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        notes = SpanNotes(span)
        try:
            yield notes
        except BaseException as error:
            notes.failure(error)
            raise
