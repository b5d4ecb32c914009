"""How a conversation begins: the system message, worked turns, and the question with a preview.

A text that is short enough stands whole in the first message, where the configuration allows it:
reading it once is better than searching through what fits into one prompt.
"""

from __future__ import annotations

from dataclasses import dataclass

import anyio
import anyio.to_thread

from rlm_mcp.engine.conversation.conversation import Conversation, Window
from rlm_mcp.engine.prompts.display import cut_middle, describe_context, show_whole
from rlm_mcp.engine.prompts.messages import ContextPreview, TurnInfo
from rlm_mcp.engine.prompts.variant import PromptVariant
from rlm_mcp.engine.run_context import Engine
from rlm_mcp.errors import SandboxError
from rlm_mcp.sandbox.types import CallReply, ContextSource, Particular, Repl, ReplCall

MATCHES = 2
AROUND_MATCHES = 2
HEADING_CHARS = 40  # about what stands over each document of several
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
        config = self.engine.config
        window = Window.of(config)
        limit = config.direct_max_chars
        if window.tokens is not None:
            limit = min(limit, window.chars // 2)
        chars = sum(self.source.char_lengths)
        headings = HEADING_CHARS * len(self.source.char_lengths) if self.source.is_list else 0
        return chars > 0 and chars + headings <= limit

    @property
    def description(self) -> str:
        """What is said of the text before any look at it."""
        chars, most = self.engine.config.metadata_prefix_chars, self.prompts.max_start_chars
        return describe_context(self.source, chars if most is None else min(chars, most))

    def shown(self, preview: ContextPreview) -> tuple[str, ...]:
        """Return what the first message shows of the text."""
        return (preview.whole or self.description, preview.matches)

    def conversation(self, turn: TurnInfo, preview: ContextPreview | None = None) -> Conversation:
        """Make the conversation, with what a look at the text showed."""
        engine, prompts = self.engine, self.prompts
        system = prompts.system_prompt(
            recursion=engine.can_recurse, has_sub_model=engine.sub is not engine.root
        )
        if isinstance(engine.sandbox, Particular):
            system += engine.sandbox.note
        first = prompts.first_message(
            self.question,
            self.description,
            turn=turn,
            schema=engine.answer_schema,
            preview=preview,
        )
        head = Conversation(({"role": "system", "content": system}, *prompts.worked_example()))
        return Conversation(tuple(head.told(first).messages))

    async def look(self, repl: Repl, *, may_be_whole: bool = True) -> ContextPreview | None:
        """Look at the text: all of it where it is short, matching places for a weak model."""
        if self.is_direct and may_be_whole:
            whole = await anyio.to_thread.run_sync(_read_documents, self.source)
            return ContextPreview(whole=show_whole(whole, self.source))
        if not self.prompts.is_for_weak_models:
            return None
        with anyio.move_on_after(SEARCH_SECONDS):
            return ContextPreview(matches=await self._find_matches(repl))
        return None

    async def _find_matches(self, repl: Repl) -> str:
        code = f"search({self.question!r}, k={MATCHES}, around={AROUND_MATCHES})"
        try:
            result = await repl.execute(code, timeout_seconds=SEARCH_SECONDS, on_call=_no_calls)
        except SandboxError:  # the first cell will fail in the same way, and report it
            return ""
        found = "" if result.error else result.output.strip()
        limit = min(self.engine.config.metadata_prefix_chars, SMALL_MATCHES_CHARS)
        return cut_middle(found, limit)


async def _no_calls(call: ReplCall) -> CallReply:
    return CallReply(error=f"{call.name} is not available here.")


def _read_documents(source: ContextSource) -> list[str]:
    data = b"".join(source.chunks())
    documents: list[str] = []
    start = 0
    for length in source.byte_lengths:
        documents.append(data[start : start + length].decode("utf-8", "replace"))
        start += length
    return documents
