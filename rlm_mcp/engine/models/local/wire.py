"""What a server of one's own is sent beside the usual, once it has said which it is."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import anyio

from rlm_mcp.engine.models.addresses import base_of
from rlm_mcp.engine.models.chat import ChatReply, ChatRequest
from rlm_mcp.engine.models.http_provider import Provider, ProviderWire
from rlm_mcp.engine.models.local.ollama import OllamaWire
from rlm_mcp.engine.models.local.servers import recognise, slots_of
from rlm_mcp.engine.models.local.slots import Slots
from rlm_mcp.engine.models.retry import AttemptFailedError

_OLLAMA_ALONE = ("keep_alive", "options", "think")  # its other API takes none of them


class Send(Protocol):
    """Sends one request once."""

    async def __call__(self, body: dict[str, Any], request: ChatRequest) -> ChatReply:
        """Send it; see `endpoint.Wire`."""
        ...


@dataclass(frozen=True)
class Wishes:
    """What an operator set for a server.

    Args:
        kind: which it is; None: it is asked once.
        context_tokens: the window that its models shall have.
    """

    kind: str | None = None
    context_tokens: int | None = None


class LocalWire:
    """Sends requests to a server of one's own in its words; see `endpoint.Wire`.

    Which server it is is asked before the first request. To one that is none of those known it
    sends what any other gets.
    """

    def __init__(self, provider: Provider, attempt_seconds: float, wishes: Wishes) -> None:
        self._plain = ProviderWire(provider, attempt_seconds)
        self._ollama = OllamaWire(provider, attempt_seconds)
        self._ollama.context_tokens = wishes.context_tokens
        self._base = base_of(provider.base_url)
        self._wishes = wishes
        self._slots: Slots | None = None
        self._refused: set[str] = set()
        self._lock = anyio.Lock()
        self._known: Send | None = None
        self._tries = 0
        self.send: Send = self._send_first
        self.check = self._plain.check

    async def close(self) -> None:
        """Close the connections."""
        await self._plain.close()
        await self._ollama.close()

    async def _send_first(self, body: dict[str, Any], request: ChatRequest) -> ChatReply:
        tries = self._tries
        async with self._lock:
            send = self._known or (await self._meet() if tries == self._tries else None)
        if send is not None:
            self._known = self.send = send
            return await send(body, request)
        reply = await self._plain.send(body, request)  # which finds what is wrong
        self._known = self.send = self._plain.send  # nothing: it only does not say what it is
        return reply

    async def _meet(self) -> Send | None:
        """Find out which server it is, and return how it is sent requests; None: it is silent."""
        self._tries += 1
        try:
            return await self._find_way()
        except AttemptFailedError:
            return None

    async def _find_way(self) -> Send:
        kind = self._wishes.kind or await recognise(self._plain.look, self._base)
        if kind == "llama.cpp":
            count = await slots_of(self._plain.look, self._base)
            self._slots = Slots(count) if count > 1 else None
            return self._send_to_llama_cpp
        return self._send_to_ollama if kind == "ollama" else self._plain.send

    async def _send_to_ollama(self, body: dict[str, Any], request: ChatRequest) -> ChatReply:
        is_own = self._wishes.context_tokens or not body.keys().isdisjoint(_OLLAMA_ALONE)
        return await (self._ollama if is_own else self._plain).send(body, request)

    async def _send_to_llama_cpp(self, body: dict[str, Any], request: ChatRequest) -> ChatReply:
        slots = self._slots
        taking = slots.taken(request.conversation) if slots else nullcontext(None)
        with taking as slot:
            hints: Mapping[str, Any] = {"cache_prompt": True, "id_slot": slot}
            sent = {
                name: value
                for name, value in hints.items()
                if value is not None and name not in self._refused
            }
            try:
                return await self._plain.send({**sent, **body}, request)
            except AttemptFailedError as failure:
                refused = failure.diagnosis.refused_parameter
                if refused in sent:  # by a proxy; not sent again
                    self._refused.add(refused)
                raise
