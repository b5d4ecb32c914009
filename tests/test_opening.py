"""The look that is taken at a text before a conversation begins."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest

from rlm_mcp.engine.budget import Budget
from rlm_mcp.engine.config import RLMConfig
from rlm_mcp.engine.conversation.root_dialogue import Opening
from rlm_mcp.engine.models.chat import ChatReply, ChatRequest
from rlm_mcp.engine.prompts.opening import ContextPreview, TurnInfo
from rlm_mcp.engine.prompts.variant import variant_of
from rlm_mcp.engine.run_context import Engine, RLMEvent
from rlm_mcp.errors import SandboxDiedError
from rlm_mcp.sandbox.host.sandbox import ProcessSandbox
from rlm_mcp.sandbox.host.text import TextContext
from rlm_mcp.sandbox.types import CallHandler, CellError, CellResult, Variable, VariableText

NOTHING = CellResult("", 0, 0.0)


class Nobody:
    async def complete(self, request: ChatRequest) -> ChatReply:
        raise NotImplementedError


@dataclass
class OneCellRepl:
    """A REPL that answers each cell in the same way."""

    result: CellResult | None = NOTHING
    cells: list[str] = field(default_factory=list[str])

    async def execute(
        self, code: str, *, timeout_seconds: float, on_call: CallHandler
    ) -> CellResult:
        await anyio.lowlevel.checkpoint()
        self.cells.append(code)
        if self.result is None:
            raise SandboxDiedError("gone")
        return self.result

    async def variables(self) -> list[Variable]:
        raise NotImplementedError

    async def read_variable(
        self, name: str, *, start: int = 0, limit: int = 4000, whole: bool = False
    ) -> VariableText:
        raise NotImplementedError


def an_opening(question: str = "Where?", text: str = "It is here.", **config: Any) -> Opening:
    async def emit(*_: RLMEvent) -> None:
        raise NotImplementedError

    settings = RLMConfig(**config)
    engine = Engine(Nobody(), Nobody(), ProcessSandbox(), settings, Budget(settings), emit)
    return Opening(question, TextContext.of(text), engine, variant_of(settings))


async def test_a_strong_model_looks_for_itself() -> None:
    repl = OneCellRepl()
    assert await an_opening().look(repl) is None
    assert repl.cells == []


async def test_a_question_of_any_characters_is_searched_for_as_it_is() -> None:
    question = 'Where\'s "it"?\n\ud83d\\'
    repl = OneCellRepl(CellResult("[at 7] here\n", 12, 0.0))
    opening = an_opening(question, prompt_variant="small_context")
    assert await opening.look(repl) == ContextPreview(matches="[at 7] here")
    cell = repl.cells[-1]
    assert cell.isascii()
    found: list[str] = []

    def search(words: str, k: int, around: int) -> None:
        found.append(words * (k > 0 < around))

    exec(cell, {"search": search})
    assert found == [question]


async def test_what_a_search_finds_is_cut_like_any_output() -> None:
    repl = OneCellRepl(CellResult("x" * 9000, 9000, 0.0))
    preview = await an_opening(prompt_variant="small_context", metadata_prefix_chars=200).look(repl)
    assert preview is not None
    assert 200 <= len(preview.matches) < 300


@pytest.mark.parametrize(
    "result", [None, NOTHING, CellResult("half", 4, 0.0, CellError("E", "m", "t"))]
)
async def test_a_search_that_gives_nothing_leaves_nothing_in_the_message(
    result: CellResult | None,
) -> None:
    opening = an_opening(prompt_variant="small_context")
    preview = await opening.look(OneCellRepl(result))
    turn = TurnInfo(1, 25)
    assert opening.conversation(turn, preview) == opening.conversation(turn)


async def test_a_short_text_is_shown_and_nothing_is_searched_in_it() -> None:
    repl = OneCellRepl()
    preview = await an_opening(prompt_variant="small_context", direct_max_chars=11).look(repl)
    assert preview is not None
    assert "It is here." in preview.whole
    assert not any("search(" in cell for cell in repl.cells)


def test_a_text_that_takes_more_than_half_of_the_window_is_not_shown_whole() -> None:
    # Of 8,000 tokens 2,000 are kept for the reply, and half of the rest is 12,000 characters.
    texts = {"x" * 12_000: True, "x" * 12_001: False, "好" * 3_300: True, "好" * 3_400: False}
    for text, is_direct in texts.items():
        opening = an_opening(text=text, direct_max_chars=50_000, root_context_tokens=8_000)
        assert opening.is_direct == is_direct
