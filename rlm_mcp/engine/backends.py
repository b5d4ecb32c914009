"""What the library answers questions with: models, a sandbox, and the text asked about last."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

import anyio

from rlm_mcp.engine.models.chat import ChatModel, ChatReply, ChatRequest
from rlm_mcp.engine.models.endpoint import borrowed
from rlm_mcp.engine.models.openai_client import open_endpoint
from rlm_mcp.errors import ModelError, RLMError
from rlm_mcp.sandbox.choice import make_sandbox
from rlm_mcp.sandbox.host.text import TextContext
from rlm_mcp.sandbox.types import Isolation, Sandbox

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI


class LastText:
    """Remembers the text that was asked about last, so that asking again loads nothing."""

    def __init__(self) -> None:
        self._source: TextContext | None = None

    def same_as(self, made: TextContext) -> TextContext:
        """Return the source of the last question if it holds the same objects, else `made`."""
        last = self._source
        if last is not None and _is_same(made, last):
            return last
        self._source = made
        return made


@dataclass(frozen=True)
class Backends:
    """Open models and an open sandbox, for one question after another."""

    root: ChatModel
    sub: ChatModel
    sandbox: Sandbox
    last_text: LastText = field(default_factory=LastText)


class BackendOpener:
    """Opens backends as often as they are needed.

    Args:
        client: an `OpenAI` or `AsyncOpenAI`, or any `ChatModel`.
        root_model: name of the model that writes the code.
        sub_model: name of the model that answers sub-calls.
        sandbox: where model-written code runs; None is a process of its own.
        calls_at_once: model calls on their way together, at most.
        direct_http: whether requests are sent past an `OpenAI` client, with its settings.

    Raises:
        TypeError: `client` is none of those, or its model is not named.
    """

    def __init__(
        self,
        client: OpenAI | AsyncOpenAI | ChatModel,
        root_model: str,
        sub_model: str,
        sandbox: Sandbox | None,
        calls_at_once: int,
        *,
        direct_http: bool = False,
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
        self._sub_model = sub_model
        self._sandbox = sandbox
        self._calls_at_once = calls_at_once
        self._direct_http = direct_http
        self._isolation: Isolation | None = None

    @asynccontextmanager
    async def open(self, *, is_other_loop: bool = False) -> AsyncGenerator[Backends]:
        """Open connections and sandbox; leaving closes what was opened here.

        Args:
            is_other_loop: whether the client belongs to another event loop than this one.
        """
        async with AsyncExitStack() as stack:
            sandbox = self._sandbox or await self._own_sandbox(stack)
            client, root, sub = self._client, self._root_model, self._sub_model
            limiter = anyio.CapacityLimiter(self._calls_at_once)
            if _is_chat_model(client):
                first = _NamedModel(cast("ChatModel", client), root, limiter)
                yield Backends(first, first if sub == root else replace(first, name=sub), sandbox)
                return
            endpoint = await stack.enter_async_context(
                open_endpoint(
                    cast("OpenAI | AsyncOpenAI", client),
                    limiter=limiter,
                    own_pool=is_other_loop,
                    direct=self._direct_http,
                )
            )
            model = endpoint.model(root)
            yield Backends(model, model if sub == root else endpoint.model(sub), sandbox)

    async def _own_sandbox(self, stack: AsyncExitStack) -> Sandbox:
        """Open a sandbox; walls that were once seen to hold are not tested again."""
        sandbox = make_sandbox(isolation=self._isolation)
        await stack.enter_async_context(sandbox)
        isolation = await sandbox.isolation()
        if isolation.level != "process":  # which may have been a passing lack of memory
            self._isolation = isolation
        return sandbox


@dataclass(frozen=True)
class _NamedModel:
    """The user's own model under one name; whatever it raises becomes a `ModelError`."""

    model: ChatModel
    name: str
    limiter: anyio.CapacityLimiter

    async def complete(self, request: ChatRequest) -> ChatReply:
        named = replace(request, model=request.model or self.name or None)
        try:
            async with borrowed(self.limiter):
                return await self.model.complete(named)
        except RLMError:
            raise
        except Exception as error:  # user code: whatever it raises must end in a response
            raise ModelError(f"The model {self.name!r} raised {error!r}.") from error


def _is_same(one: TextContext, other: TextContext) -> bool:
    if one.is_list != other.is_list or len(one.documents) != len(other.documents):
        return False
    return all(a is b for a, b in zip(one.documents, other.documents, strict=True))


def _is_chat_model(client: object) -> bool:
    return callable(getattr(client, "complete", None))


def _is_openai(client: object) -> bool:
    # By name, so that the package is not imported for those who bring a model of their own.
    names = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(client).__mro__}
    return not names.isdisjoint({"openai.OpenAI", "openai.AsyncOpenAI"})
