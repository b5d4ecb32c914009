"""`RLMWrapper`: the engine as a library, with no server and no database."""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self, cast

import anyio
from anyio.from_thread import start_blocking_portal

from rlm_mcp.engine.budget import Budget
from rlm_mcp.engine.chat import ChatModel, ChatReply, ChatRequest
from rlm_mcp.engine.config import RLMConfig
from rlm_mcp.engine.engine import Engine, SubCallCache, repl_options
from rlm_mcp.engine.metadata import preview
from rlm_mcp.engine.model import open_endpoint
from rlm_mcp.engine.orchestrator import answer
from rlm_mcp.engine.schema import check_schema
from rlm_mcp.engine.types import EventSink, RLMEvent, RLMResponse
from rlm_mcp.sandbox.repl import ProcessSandbox
from rlm_mcp.sandbox.text import TextContext
from rlm_mcp.sandbox.types import Sandbox

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI

OnEvent = Callable[[RLMEvent], Awaitable[None] | None]

EVENTS_AHEAD = 64
_log = logging.getLogger("rlm_mcp")


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

    Raises:
        TypeError: `client` is none of those.
    """

    def __init__(
        self,
        client: OpenAI | AsyncOpenAI | ChatModel,
        root_model: str = "",
        sub_model: str | None = None,
        *,
        config: RLMConfig | None = None,
        sandbox: Sandbox | None = None,
        cache: SubCallCache | None = None,
    ) -> None:
        if not _is_chat_model(client) and not _is_openai(client):
            raise TypeError(
                "client must be an OpenAI, an AsyncOpenAI or an object with "
                f"`async def complete(request)`, not {type(client).__name__}"
            )
        if not root_model and not _is_chat_model(client):
            raise TypeError("root_model must name a model of the client's endpoint")
        self._client = client
        self._root_model = root_model
        self._sub_model = sub_model or root_model
        self._config = config or RLMConfig()
        self._sandbox = sandbox
        self._cache = cache
        self._kept: _Means | None = None
        self._closing = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._kept = await self._closing.enter_async_context(self._open_means())
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
        answer_schema: Mapping[str, Any] | None = None,
    ) -> RLMResponse:
        """Answer a question, blocking; works inside a running event loop too.

        The work is done in a thread of its own, which is also where `on_event` is called.
        See `agenerate` for the arguments.
        """
        work = partial(self._generate, query, context, on_event, answer_schema, is_other_loop=True)
        with start_blocking_portal() as portal:
            return portal.call(work)

    async def agenerate(
        self,
        query: str,
        context: str | Sequence[str],
        *,
        on_event: OnEvent | None = None,
        answer_schema: Mapping[str, Any] | None = None,
    ) -> RLMResponse:
        """Answer a question; whatever ends it, the response holds all that is known.

        Args:
            query: the question.
            context: one text, or several.
            on_event: called, and awaited where that is possible, with each event; what it
                raises is logged once and changes nothing.
            answer_schema: JSON Schema of the answer, which is then in `RLMResponse.data`.

        Raises:
            TypeError: `query` or `context` is no text.
            InvalidInputError: `answer_schema` is no schema.
            ConfigurationError: the client or a limit cannot be used.
            SandboxError: there is no REPL to be had.
        """
        return await self._generate(query, context, on_event, answer_schema)

    async def astream_generate(
        self,
        query: str,
        context: str | Sequence[str],
        *,
        answer_schema: Mapping[str, Any] | None = None,
    ) -> AsyncGenerator[RLMEvent]:
        """Answer a question and yield each event; the last one holds the `response`.

        Leaving the loop ends the run. See `agenerate` for the arguments and what is raised.
        """
        send, receive = anyio.create_memory_object_stream[RLMEvent](EVENTS_AHEAD)

        async def work() -> None:
            async with send:
                await self._generate(query, context, send.send, answer_schema)

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
        self,
        query: str,
        context: str | Sequence[str],
        on_event: OnEvent | None,
        answer_schema: Mapping[str, Any] | None,
        *,
        is_other_loop: bool = False,
    ) -> RLMResponse:
        if not isinstance(query, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers hand in anything
            raise TypeError(f"query must be a str, not {type(query).__name__}")
        source = TextContext.of(context)
        if answer_schema is not None:
            check_schema(answer_schema)
        config = self._config
        emit = _Listeners(on_event, is_verbose=config.verbose).emit
        async with self._means(is_other_loop=is_other_loop) as means:
            engine = Engine(
                root=means.root,
                sub=means.sub,
                sandbox=means.sandbox,
                config=config,
                budget=Budget(config),
                emit=emit,
                cache=self._cache,
                model_names=tuple(dict.fromkeys((self._root_model, self._sub_model))),
                answer_schema=answer_schema,
            )
            return await _run(query, source, engine)

    @asynccontextmanager
    async def _means(self, *, is_other_loop: bool) -> AsyncGenerator[_Means]:
        if self._kept is not None and not is_other_loop:
            yield self._kept
            return
        async with self._open_means(is_other_loop=is_other_loop) as means:
            yield means

    @asynccontextmanager
    async def _open_means(self, *, is_other_loop: bool = False) -> AsyncGenerator[_Means]:
        async with AsyncExitStack() as stack:
            sandbox = self._sandbox
            if sandbox is None:
                sandbox = await stack.enter_async_context(ProcessSandbox())
            client, root, sub = self._client, self._root_model, self._sub_model
            if _is_chat_model(client):
                given = cast("ChatModel", client)
                first = _Named(given, root) if root else given
                yield _Means(first, first if sub == root else _Named(given, sub), sandbox)
                return
            opening = open_endpoint(cast("OpenAI | AsyncOpenAI", client), own_pool=is_other_loop)
            endpoint = await stack.enter_async_context(opening)
            first = endpoint.model(root)
            yield _Means(first, first if sub == root else endpoint.model(sub), sandbox)


@dataclass(frozen=True)
class _Means:
    """What questions are answered with, one after another."""

    root: ChatModel
    sub: ChatModel
    sandbox: Sandbox


async def _run(query: str, source: TextContext, engine: Engine) -> RLMResponse:
    told = {
        "question": query,
        "documents": len(source.documents),
        "chars": sum(source.char_lengths),
        "models": list(engine.model_names),
    }
    await engine.emit(RLMEvent("run_started", 0, preview(query), told))
    async with engine.sandbox.open_repl(source, repl_options(engine.config)) as repl:
        response = await answer(query, source, repl, engine)
    await engine.emit(
        RLMEvent(
            "run_finished",
            response.iterations,
            f"{response.status}: {preview(response.answer or str(response.error))}",
            {"status": response.status, "answer": response.answer},
            usage=engine.budget.snapshot(),
            response=response,
        )
    )
    return response


@dataclass(frozen=True)
class _Named:
    """A `ChatModel` that is asked for one model by name."""

    model: ChatModel
    name: str

    async def complete(self, request: ChatRequest) -> ChatReply:
        return await self.model.complete(replace(request, model=request.model or self.name))


class _Listeners:
    """Who is told of events: the user's function, and stderr where the config says so."""

    def __init__(self, on_event: OnEvent | None, *, is_verbose: bool) -> None:
        self._on_event = on_event
        self._is_verbose = is_verbose
        self._has_failed = False
        self.emit: EventSink = self._tell

    async def _tell(self, event: RLMEvent) -> None:
        if self._is_verbose:
            indent = "  " * event.depth
            sys.stderr.write(f"{indent}[{event.iteration}] {event.type}: {event.preview}\n")
        if self._on_event is None:
            return
        try:
            told = self._on_event(event)
            if inspect.isawaitable(told):
                await told
        except Exception:  # noqa: BLE001  # user code: what it raises must not end a run
            if not self._has_failed:
                self._has_failed = True
                _log.warning("on_event raised; the run goes on.", exc_info=True)


def _is_chat_model(client: object) -> bool:
    return callable(getattr(client, "complete", None))


def _is_openai(client: object) -> bool:
    # By name, so that the package is not imported for those who bring a model of their own.
    names = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(client).__mro__}
    return not names.isdisjoint({"openai.OpenAI", "openai.AsyncOpenAI"})
