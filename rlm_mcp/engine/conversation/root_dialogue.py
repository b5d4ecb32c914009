"""The root's side of a run: its conversation, the window that has to hold it, and each question."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from rlm_mcp.engine.conversation.conversation import Conversation, Window
from rlm_mcp.engine.conversation.diff import change_between
from rlm_mcp.engine.models.chat import ChatReply, ChatRequest
from rlm_mcp.engine.run_context import Engine
from rlm_mcp.engine.telemetry import chat_span
from rlm_mcp.errors import ContextLengthError
from rlm_mcp.events import Change


class MakeRoom(Protocol):
    """Makes a conversation about so many characters long; gives whether it could."""

    async def __call__(self, chars: int, *, is_refused: bool) -> bool:
        """Do it; `is_refused` says that the conversation was sent and was too long."""
        ...


class Dialogue:
    """What is said between a run and its root model.

    Args:
        engine: the model, its limits, and the budget.
        conversation: how it begins.
    """

    def __init__(self, engine: Engine, conversation: Conversation) -> None:
        self.conversation = conversation
        # What every conversation of the run begins with, whatever its limits, needs no record.
        self._on_record = Conversation(conversation.head[:-1])
        self._engine = engine
        self._window = Window.of(engine.config)

    @property
    def chars(self) -> int:
        """Characters of all that was said."""
        return self.conversation.chars

    def take_up(self, conversation: Conversation, last_reply: tuple[int, ChatReply] | None) -> None:
        """Go on with what is on record.

        Args:
            conversation: as it was.
            last_reply: characters of the last prompt that was answered, and its reply: they tell of
                the size of prompts and of the price of a turn.
        """
        self.conversation = self._on_record = conversation
        if last_reply is not None:
            self._window.learn(*last_reply)
            if self._engine.depth == 0:
                self._engine.budget.learn_root_turn(last_reply[1])

    def change(self, *, without_head: bool = False) -> Change:
        """Say what is new since this was asked last; see `changes.change_between`."""
        before, self._on_record = self._on_record, self.conversation
        return change_between(before, self.conversation, without_head=without_head)

    def hear(self, reply: ChatReply) -> None:
        """Add the model's reply, which is on record itself."""
        self.conversation = self._on_record = self.conversation.replied(reply.text)

    async def complete(self, make_room: MakeRoom, temperature: float | None) -> ChatReply:
        """Get the model's reply, which is not yet added to the conversation.

        Args:
            make_room: what is done when the conversation outgrows the window.
            temperature: None is not sent.

        Raises:
            BudgetExceededError: there is no room for it.
            ModelError: there is no reply.
        """
        # To half of the window, so that it is not often.
        if self._window.is_full(self.chars):
            await make_room(self._window.chars // 2, is_refused=False)
        while True:
            try:
                async with self._turn_budget() as settle:
                    reply = await self._ask_model(temperature)
                    settle(reply)
            except ContextLengthError:
                if not await make_room(self.chars // 2, is_refused=True):
                    raise
            else:
                self._window.learn(self.chars, reply)
                return reply

    async def _ask_model(self, temperature: float | None) -> ChatReply:
        engine, request = self._engine, self._request(temperature)
        with chat_span(engine.tracer, engine.root_name, request) as span:
            reply = await engine.root.complete(request)
            span.reply(reply)
            return reply

    def _turn_budget(self) -> AbstractAsyncContextManager[Any]:
        budget = self._engine.budget
        if self._engine.depth == 0:
            return budget.root_turn(self.chars)
        # To the tree, a turn of an inner run is a sub-call like any other.
        return budget.sub_call(self.chars, self._engine.config.root_max_tokens)

    def _request(self, temperature: float | None) -> ChatRequest:
        return ChatRequest(
            messages=self.conversation.messages,
            max_tokens=self._window.reply_tokens,
            temperature=temperature,
            on_delta=self._engine.on_root_delta,
        )
