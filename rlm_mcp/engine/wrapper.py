"""`RLMWrapper`: the engine as a library, with no server and no database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import anyio
from anyio import to_thread
from anyio.from_thread import start_blocking_portal
from anyio.streams.memory import MemoryObjectSendStream

from rlm_mcp.engine.backends import BackendOpener, Backends
from rlm_mcp.engine.budget import Budget
from rlm_mcp.engine.cache import SubCallCache
from rlm_mcp.engine.config import RLMConfig
from rlm_mcp.engine.listeners import Listeners, OnEvent, OnText
from rlm_mcp.engine.loop.orchestrator import answer
from rlm_mcp.engine.models.chat import ChatModel
from rlm_mcp.engine.parsing.typed_answer import check_schema
from rlm_mcp.engine.run_context import Engine, RLMEvent, repl_options
from rlm_mcp.engine.types import RLMResponse
from rlm_mcp.events import FORMAT_VERSION, RunFinished, RunStarted
from rlm_mcp.sandbox.host.text import TextContext
from rlm_mcp.sandbox.types import Sandbox
from rlm_mcp.text import preview

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI


EVENTS_AHEAD = 64


class RLMWrapper:
    """Answers questions over texts far larger than a model's window.

    Within `async with`, connections and a warm REPL process are kept between questions; without it,
    each question opens and closes its own.

    Args:
        client: an `OpenAI` or `AsyncOpenAI`, or any `ChatModel`.
        root_model: name of the model that writes the code.
        sub_model: name of the model that answers sub-calls; the root's where it is None.
        config: limits and options.
        sandbox: where model-written code runs; a confined process of its own by default.
        cache: answers of sub-calls that need not be asked again.
        direct_http: whether requests are sent past an `OpenAI` client, with its address, key,
            headers and time limits: ten times cheaper, but without its `http_client`, its hooks and
            what instruments it. By default the client that is handed in sends the requests; a
            synchronous one from threads, where a request under way cannot be ended.

    Raises:
        TypeError: `client` is none of those.
    """

    def __init__(  # noqa: PLR0913  # the front door: each is independent, and most are left out
        self,
        client: OpenAI | AsyncOpenAI | ChatModel,
        root_model: str = "",
        sub_model: str | None = None,
        *,
        config: RLMConfig | None = None,
        sandbox: Sandbox | None = None,
        cache: SubCallCache | None = None,
        direct_http: bool = False,
    ) -> None:
        sub_model = sub_model or root_model
        self._config = config or RLMConfig()
        at_once = self._config.max_concurrent_calls
        self._opener = BackendOpener(
            client, root_model, sub_model, sandbox, at_once, direct_http=direct_http
        )
        self._model_names = tuple(dict.fromkeys((root_model, sub_model)))
        self._cache = cache
        self._kept: Backends | None = None
        self._closing = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._kept = await self._closing.enter_async_context(self._opener.open())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._kept = None
        await self._closing.aclose()

    def generate(
        self,
        query: str,
        context: str | Sequence[str],
        *,
        on_event: OnEvent | None = None,
        on_delta: OnText | None = None,
        answer_schema: Mapping[str, Any] | None = None,
    ) -> RLMResponse:
        """Answer a question, blocking; works inside a running event loop too.

        The work is done in a thread of its own, which is also where `on_event` and `on_delta` are
        called. See `agenerate` for the arguments.
        """
        asked = _asked(query, context, answer_schema)
        listeners = Listeners(on_event, on_delta, is_verbose=self._config.verbose)
        with start_blocking_portal() as portal:
            return portal.call(partial(self._generate, asked, listeners, is_other_loop=True))

    async def agenerate(
        self,
        query: str,
        context: str | Sequence[str],
        *,
        on_event: OnEvent | None = None,
        on_delta: OnText | None = None,
        answer_schema: Mapping[str, Any] | None = None,
    ) -> RLMResponse:
        """Answer a question; whatever ends it, the response holds all that is known.

        Args:
            query: the question.
            context: one text, or several.
            on_event: called with each event, and awaited if it can be; what it raises is logged
                once and changes nothing.
            on_delta: called so with each piece of the root's replies as it arrives, where the model
                can stream; `""` says that the reply broke off and begins again.
            answer_schema: JSON Schema of the answer, which is then in `RLMResponse.data`.

        Raises:
            TypeError: `query` or `context` is not text.
            InvalidInputError: `answer_schema` is not a JSON Schema.
            ConfigurationError: the client or a limit cannot be used.
            SandboxError: no REPL could be started.
        """
        asked = _asked(query, context, answer_schema)
        listeners = Listeners(on_event, on_delta, is_verbose=self._config.verbose)
        return await self._generate(asked, listeners)

    async def astream_generate(
        self,
        query: str,
        context: str | Sequence[str],
        *,
        answer_schema: Mapping[str, Any] | None = None,
        deltas: bool = False,
    ) -> AsyncGenerator[RLMEvent]:
        """Answer a question and yield each event; the last one holds the `response`.

        Leaving the loop ends the run. See `agenerate` for the arguments and what is raised.

        Args:
            query: the question.
            context: one text, or several.
            answer_schema: JSON Schema of the answer.
            deltas: whether there is a `root_delta` event for each piece of the root's replies; its
                `preview` is the piece as it came.
        """
        asked = _asked(query, context, answer_schema)
        send, receive = anyio.create_memory_object_stream[RLMEvent](EVENTS_AHEAD)
        listeners = _sending(send, deltas=deltas, is_verbose=self._config.verbose)

        async def work() -> None:
            async with send:
                await self._generate(asked, listeners)

        # A task of asyncio's own: a generator may be closed by another task than the one that
        # began it, which a task group does not survive.
        task = asyncio.create_task(work())
        try:
            async for event in receive:
                yield event
            await task
        finally:
            task.cancel()
            receive.close()
            with anyio.CancelScope(shield=True):  # bounded by how fast a REPL is ended
                await asyncio.wait([task])

    async def _generate(
        self, asked: _Asked, listeners: Listeners, *, is_other_loop: bool = False
    ) -> RLMResponse:
        if asked.answer_schema is not None:
            # In a thread, since it loads the validator.
            await to_thread.run_sync(check_schema, asked.answer_schema)
        async with self._backends(is_other_loop=is_other_loop) as backends:
            engine = Engine(
                root=backends.root,
                sub=backends.sub,
                sandbox=backends.sandbox,
                config=self._config,
                budget=Budget(self._config),
                emit=listeners.emit,
                cache=self._cache,
                model_names=self._model_names,
                answer_schema=asked.answer_schema,
                on_root_delta=listeners.emit_delta if listeners.wants_deltas else None,
            )
            return await _run(asked.query, backends.last_text.same_as(asked.source), engine)

    @asynccontextmanager
    async def _backends(self, *, is_other_loop: bool) -> AsyncGenerator[Backends]:
        if self._kept is not None and not is_other_loop:
            yield self._kept
            return
        async with self._opener.open(is_other_loop=is_other_loop) as backends:
            yield backends


@dataclass(frozen=True)
class _Asked:
    """A question about a text; the schema is not checked yet."""

    query: str
    source: TextContext
    answer_schema: Mapping[str, Any] | None


def _asked(
    query: str, context: str | Sequence[str], answer_schema: Mapping[str, Any] | None
) -> _Asked:
    if not isinstance(query, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers hand in anything
        raise TypeError(f"query must be a str, not {type(query).__name__}")
    return _Asked(query, TextContext.of(context), answer_schema)


async def _run(query: str, source: TextContext, engine: Engine) -> RLMResponse:
    started = RunStarted(
        version=FORMAT_VERSION,
        question=query,
        documents=len(source.documents),
        chars=sum(source.char_lengths),
        models=tuple(engine.model_names),
    )
    await engine.emit(RLMEvent.of(started, 0, preview(query)))
    async with engine.sandbox.open_repl(source, repl_options(engine.config)) as repl:
        response = await answer(query, source, repl, engine)
    error = None if response.error is None else response.error.fields
    finished = RunFinished(response.status, error, answer=response.answer)
    line = f"{response.status}: {preview(response.answer or str(response.error))}"
    event = RLMEvent.of(finished, response.iterations, line, usage=engine.budget.snapshot())
    await engine.emit(replace(event, response=response))
    return response


def _sending(
    send: MemoryObjectSendStream[RLMEvent], *, deltas: bool, is_verbose: bool
) -> Listeners:
    """Make listeners that send each event, and each piece of a reply as an event of its turn."""
    turn = 0

    async def send_event(event: RLMEvent) -> None:
        nonlocal turn
        turn = event.iteration if event.depth == 0 else turn
        await send.send(event)

    async def send_delta(text: str) -> None:
        await send.send(RLMEvent("root_delta", turn, text))

    return Listeners(send_event, send_delta if deltas else None, is_verbose=is_verbose)
