"""The conversation between a run and its root model: how it begins, and how the next reply is got.

It begins with the system message, worked turns, and the question with a preview of the text. A text
that is short enough is shown whole in the first message, where the configuration allows it: reading
it once is better than searching through what fits into one prompt.
"""

from __future__ import annotations

import secrets
import time
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import anyio
import anyio.to_thread

from rlm_mcp.engine.conversation.conversation import Conversation, Window, change_between
from rlm_mcp.engine.conversation.restore import Past
from rlm_mcp.engine.models.chat import ChatReply, ChatRequest
from rlm_mcp.engine.models.metering import with_estimate
from rlm_mcp.engine.prompts.cell_output import cut_middle
from rlm_mcp.engine.prompts.first_look import (
    SAMPLE_CODE,
    TextSample,
    describe_items,
    describe_lines,
    may_be_items,
    shape_of,
)
from rlm_mcp.engine.prompts.opening import ContextPreview, TurnInfo, describe_context, show_whole
from rlm_mcp.engine.prompts.variant import PromptVariant
from rlm_mcp.engine.run_context import Engine
from rlm_mcp.engine.telemetry import chat_span
from rlm_mcp.errors import ContextLengthError, ModelRequestError, SandboxError
from rlm_mcp.events import Change, Message
from rlm_mcp.sandbox.types import CallReply, ContextSource, Particular, Repl, ReplCall
from rlm_mcp.text import width_of

MATCHES = 2
AROUND_MATCHES = 2
HEADING_CHARS = 40  # about what is put above each document of several
SEARCH_SECONDS = 10.0
SMALL_MATCHES_CHARS = 600


@dataclass(frozen=True)
class Opening:
    """What the first message is made of."""

    question: str
    source: ContextSource
    engine: Engine
    prompts: PromptVariant

    @property
    def is_direct(self) -> bool:
        """Whether the whole text goes into the first message: at most half of a known window."""
        source, config = self.source, self.engine.config
        window, chars = Window.of(config), sum(source.char_lengths)
        headings = HEADING_CHARS * len(source.char_lengths) if source.is_list else 0
        if not 0 < chars <= config.direct_max_chars - headings:
            return False
        width = width_of(chars, sum(source.byte_lengths)) + headings
        return window.tokens is None or width <= window.chars // 2

    def description(self, sample: TextSample | None = None) -> str:
        """What is said of the text: by lines of it, or by its start where nobody has looked."""
        source = self.source
        total = sum(source.char_lengths)
        if sample is not None and sample.are_items and source.is_list:
            return describe_items(total, len(source.char_lengths), sample)
        if sample is not None and not source.is_list and sample.lines > 1:
            return describe_lines(total, sample)
        chars, most = self.engine.config.metadata_prefix_chars, self.prompts.max_start_chars
        return describe_context(source, chars if most is None else min(chars, most))

    def shown(self, preview: ContextPreview) -> tuple[str, ...]:
        """Return what the first message shows of the text."""
        return (preview.whole or self.description(preview.sample), preview.matches)

    def conversation(self, turn: TurnInfo, preview: ContextPreview | None = None) -> Conversation:
        """Make the conversation, with what a look at the text showed."""
        engine, prompts = self.engine, self.prompts
        system = prompts.system_prompt(
            recursion=engine.can_recurse, has_sub_model=engine.sub is not engine.root
        )
        if isinstance(engine.sandbox, Particular):
            system += engine.sandbox.note
        preview = replace(preview or ContextPreview(), before=engine.before)
        first = prompts.first_message(
            self.question,
            self.description(preview.sample),
            turn=turn,
            schema=engine.answer_schema,
            preview=preview,
        )
        examples: tuple[Message, ...] = ()
        if prompts.is_for_weak_models:
            examples = prompts.worked_example(shape_of(self.source, preview.sample))
        head = Conversation(({"role": "system", "content": system}, *examples))
        return Conversation(tuple(head.told(first).messages))

    async def look(self, repl: Repl, *, may_be_whole: bool = True) -> ContextPreview | None:
        """Look at the text: all of it where it is short; lines and matches for a weak model."""
        preview: ContextPreview | None = None
        if self.is_direct and may_be_whole:
            whole = await _documents_of(self.source)
            preview = ContextPreview(whole=show_whole(whole, self.source))
        if not self.prompts.is_for_weak_models:
            return preview
        with anyio.move_on_after(SEARCH_SECONDS):
            if not self.source.is_list or may_be_items(self.source):
                sample = TextSample.read(await _printed(repl, SAMPLE_CODE))
                preview = replace(preview or ContextPreview(), sample=sample)
            if preview is None or not preview.whole:
                matches = await self._find_matches(repl)
                preview = replace(preview or ContextPreview(), matches=matches)
        return preview

    async def _find_matches(self, repl: Repl) -> str:
        code = f"search({self.question!r}, k={MATCHES}, around={AROUND_MATCHES})"
        limit = min(self.engine.config.metadata_prefix_chars, SMALL_MATCHES_CHARS)
        return cut_middle(await _printed(repl, code), limit)


async def _printed(repl: Repl, code: str) -> str:
    """Return what a cell of ours prints; nothing where it fails."""
    try:
        result = await repl.execute(code, timeout_seconds=SEARCH_SECONDS, on_call=_no_calls)
    except SandboxError:  # the first cell will fail in the same way, and report it
        return ""
    return "" if result.error else result.output.strip()


async def _no_calls(call: ReplCall) -> CallReply:
    return CallReply(error=f"{call.name} is not available here.")


async def _documents_of(source: ContextSource) -> list[str]:
    """Return all documents, without reading them where the prefix is all there is."""
    if list(source.char_lengths) == [len(source.prefix)]:
        return [source.prefix]
    return await anyio.to_thread.run_sync(_read_documents, source)


def _read_documents(source: ContextSource) -> list[str]:
    data = b"".join(source.chunks())
    documents: list[str] = []
    start = 0
    for length in source.byte_lengths:
        documents.append(data[start : start + length].decode("utf-8", "replace"))
        start += length
    return documents


MAX_LOGGED_HEAD_CHARS = 100_000  # a longer head holds the text itself, and is made again from it
MIN_CHARS_TO_HALVE = 12_000  # less fits every window


class MakeRoom(Protocol):
    """Shortens the conversation to about so many characters; returns whether it could."""

    async def __call__(self, chars: int, *, is_refused: bool) -> bool:
        """Shorten it; `is_refused` says that it was sent and was too long."""
        ...


class Dialogue:
    """What was said between a run and its root model, and how the next reply is got.

    Args:
        engine: the model, its limits, and the budget.
        opened: how it begins.
    """

    def __init__(self, engine: Engine, opened: Conversation) -> None:
        self.opened = self.conversation = opened
        # The system message can be made again, so it is not recorded; nor are the worked turns that
        # are shown where nobody has looked at the text.
        self._on_record = Conversation(opened.head[:-1])
        self._engine = engine
        self._window = Window.of(engine.config)
        self._name = secrets.token_hex(8)

    def open_with(self, opened: Conversation) -> None:
        """Begin with another first message, before turns that stay."""
        self.opened = opened
        self.conversation = replace(self.conversation, head=opened.head)

    @property
    def chars(self) -> int:
        """Characters of all messages."""
        return self.conversation.chars

    def restore(self, past: Past) -> None:
        """Continue a conversation that is on record."""
        self.opened = past.opened
        self.conversation = self._on_record = past.conversation
        if past.last_reply is not None:
            self._window.learn(*past.last_reply)
            if self._engine.depth == 0:
                self._engine.budget.learn_root_turn(past.last_reply[1])

    def tell(self, text: str) -> None:
        """Add to what the model is told before its next turn."""
        self.conversation = self.conversation.told(text)

    def begin_again(self, text: str) -> None:
        """Drop all turns, because a small model copies what it wrote before."""
        self.conversation = self.opened.told(text)

    def replace_question(self, text: str) -> None:
        """Drop the question too, so that `text` alone is answered."""
        self.conversation = Conversation(({"role": "user", "content": text},))

    def take_change(self) -> Change:
        """Return what is new in the conversation since this was called last."""
        before, self._on_record = self._on_record, self.conversation
        is_opening = self.conversation.head == self.opened.head
        is_long = is_opening and self.opened.head_chars > MAX_LOGGED_HEAD_CHARS
        return change_between(before, self.conversation, without_head=is_long)

    def hear(self, reply: ChatReply) -> None:
        """Add the model's reply, which is on record itself."""
        self.conversation = self._on_record = self.conversation.replied(reply.text)

    async def complete(self, make_room: MakeRoom, temperature: float | None) -> ChatReply:
        """Get the model's reply, which is not yet added to the conversation.

        Args:
            make_room: called when the conversation outgrows the window.
            temperature: None is not sent.

        Raises:
            BudgetExceededError: the budget has no room for it.
            ModelError: there is no reply.
        """
        # To half of the window, so that it does not happen often.
        if self._window.is_full(self.conversation.width):
            await make_room(self._window.chars // 2, is_refused=False)
        is_guess_left = True
        while True:
            try:
                async with self._turn_budget() as settle:
                    reply = await self._ask_model(temperature)
                    reply = replace(reply, cost_usd=settle(reply))
            except ModelRequestError as error:
                is_guess = not isinstance(error, ContextLengthError)
                if is_guess and not (is_guess_left and self._may_be_too_long(error)):
                    raise
                is_guess_left = is_guess_left and not is_guess
                if not await make_room(self.conversation.width // 2, is_refused=True):
                    raise
            else:
                self._window.learn(self.conversation.width, reply)
                return reply

    def _may_be_too_long(self, error: ModelRequestError) -> bool:
        """Whether an unexplained refusal may mean that the prompt was too long."""
        return error.may_be_too_long and self.chars >= MIN_CHARS_TO_HALVE

    async def _ask_model(self, temperature: float | None) -> ChatReply:
        engine, request = self._engine, self._request(temperature)
        with chat_span(engine.tracer, engine.root_name, request) as span:
            began = time.monotonic()
            reply = with_estimate(await engine.root.complete(request), request)
            span.reply(reply)
            timing = replace(reply.timing, seconds=time.monotonic() - began)
            return replace(reply, timing=timing)

    def _turn_budget(self) -> AbstractAsyncContextManager[Any]:
        budget = self._engine.budget
        if self._engine.depth == 0:
            return budget.root_turn(self.conversation.width)
        # For the tree's budget, a turn of an inner run is a sub-call like any other.
        return budget.sub_call(self.conversation.width, self._engine.config.root_max_tokens)

    def _request(self, temperature: float | None) -> ChatRequest:
        return ChatRequest(
            messages=self.conversation.messages,
            max_tokens=self._window.reply_tokens,
            temperature=temperature,
            on_delta=self._engine.on_root_delta if self._engine.hears_root() else None,
            conversation=self._name,
        )
