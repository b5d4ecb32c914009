"""One run at work: its conversation, its REPL, and what it tells while it goes on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from typing import Any

import anyio

from rlm_mcp.engine.chat import ChatReply, ChatRequest
from rlm_mcp.engine.compaction import summarize
from rlm_mcp.engine.conversation import Conversation
from rlm_mcp.engine.engine import Engine
from rlm_mcp.engine.evidence import assigns_context
from rlm_mcp.engine.metadata import preview, show_cell
from rlm_mcp.engine.opening import Opening
from rlm_mcp.engine.parser import CodeBlock
from rlm_mcp.engine.prompt import Glimpse, TurnInfo, context_replaced, is_small
from rlm_mcp.engine.recall import Recall
from rlm_mcp.engine.sub_caller import SubCaller
from rlm_mcp.engine.tracing import cell_span, chat_span
from rlm_mcp.engine.types import EventType, HistoryEntry, RLMEvent
from rlm_mcp.engine.window import Window
from rlm_mcp.errors import ContextLengthError, SandboxError
from rlm_mcp.sandbox.types import CellResult, ContextSource, Repl

LOOK_SECONDS = 10.0


@dataclass(frozen=True)
class Turn:
    """What the blocks of one reply did: results in order, and how each is shown."""

    cells: tuple[CellResult, ...] = ()
    shown: tuple[str, ...] = ()

    @property
    def has_failed(self) -> bool:
        """Whether the last cell raised."""
        return bool(self.cells) and self.cells[-1].error is not None


class Run:
    """What changes while one question is answered; `orchestrator.answer` makes and drives it."""

    def __init__(
        self, question: str, source: ContextSource, repl: Repl, engine: Engine, calls: SubCaller
    ) -> None:
        self.question = question
        self.repl = repl
        self.engine = engine
        self.config = engine.config
        self.iteration = 0
        self.fruitless = 0
        self.repairs = 0
        self.has_run_code = False
        self.has_started_over = False
        self.guess: str | None = None
        self.guesses_doubted = 0
        self._recall = Recall()
        self._calls = calls
        self._history: list[HistoryEntry] = []
        self._opening = Opening(question, source, engine)
        self._window = Window.of(engine.config)
        self.is_direct = False
        self._glimpse = Glimpse()
        self._first_turn = self.next_turn()
        self._opened = self._conversation = self._opening.conversation(self._first_turn)

    async def look(self, *, may_be_whole: bool = True) -> None:
        """Take the look at the text that the first message shows, if it shows any."""
        glimpse = await self._opening.glimpse(self.repl, may_be_whole=may_be_whole)
        self._glimpse = glimpse or Glimpse()
        self.is_direct = bool(self._glimpse.whole)
        self._opened = self._opening.conversation(self._first_turn, glimpse)
        self._conversation = replace(self._conversation, head=self._opened.head)

    @property
    def history(self) -> tuple[HistoryEntry, ...]:
        """The trace so far: the root's turns and outputs, and sub-calls, by iteration."""
        entries = [*self._history, *self._calls.history]
        return tuple(sorted(entries, key=lambda entry: entry.iteration))

    @property
    def shown(self) -> str:
        """What the root has seen of the text and of outputs, without what it was told besides."""
        outputs = [each.truncated_content for each in self._history if each.role == "repl_output"]
        return "\n".join((*self._opening.shown(self._glimpse), *outputs))

    @property
    def printed(self) -> str:
        """What the latest cells printed that did not fail; the matches where none did."""
        return self._recall.printed or self._glimpse.matches

    def note_reply(self, text: str) -> bool:
        """Remember a reply; gives whether it is the last one again, of a small model any again."""
        return self._recall.note_reply(text, any_earlier=is_small(self.config))

    def begin_again(self, text: str) -> None:
        """Let go of all turns, since a small model copies what it wrote before."""
        self._recall.restarts += 1
        self._conversation = self._opened.told(text)

    def start_over(self, text: str) -> None:
        """Forget the question too, so that `text` alone is answered."""
        self.has_started_over = True
        self._conversation = Conversation(({"role": "user", "content": text},))

    def next_turn(self) -> TurnInfo:
        """Say where the run stands before its next turn."""
        left = self.engine.budget.remaining()
        return TurnInfo(
            iteration=self.iteration + 1,
            max_iterations=self.config.max_iterations,
            sub_calls_left=left["sub_calls"] if self.config.enable_sub_calls else None,
            seconds_left=left.get("seconds"),
            usd_left=left.get("usd"),
            tokens_left=left.get("tokens"),
        )

    def tell(self, *texts: str) -> None:
        """Add to what the model is told before its next turn."""
        self._conversation = self._conversation.told("\n\n".join(text for text in texts if text))

    async def emit(self, type_: EventType, line: str, detail: dict[str, Any]) -> None:
        """Tell of one event, with the figures after it."""
        usage = self.engine.budget.snapshot()
        event = RLMEvent(type_, self.iteration, line, detail, self.engine.depth, usage)
        await self.engine.emit(event)

    async def ask(self) -> ChatReply:
        """Take one turn of the root model.

        Raises:
            BudgetExceededError: there is no room for it.
            ModelError: there is no reply.
        """
        self.iteration += 1
        self._calls.iteration = self.iteration
        if self.engine.depth == 0:
            self.engine.budget.count_iteration()
        of = f"turn {self.iteration} of {self.config.max_iterations}"
        chars = self._conversation.chars
        detail = {"of": self.config.max_iterations, "prompt_chars": chars, "direct": self.is_direct}
        await self.emit("iteration_start", of, detail)
        reply = await self._complete()
        self._conversation = self._conversation.replied(reply.text)
        self._history.append(HistoryEntry("root", reply.text, reply.text, self.iteration))
        return reply

    async def _complete(self) -> ChatReply:
        await self._fit_window()
        while True:
            try:
                with self._turn_budget() as settle:
                    reply = await self._ask_model()
                    settle(reply)
            except ContextLengthError:
                if not await self._shorten():
                    raise
            else:
                self._window.learn(self._conversation.chars, reply)
                return reply

    async def _ask_model(self) -> ChatReply:
        engine, request = self.engine, self._request()
        with chat_span(engine.tracer, engine.root_name, request) as span:
            reply = await engine.root.complete(request)
            span.reply(reply)
            return reply

    async def _fit_window(self) -> None:
        """Sum up older turns before the window is full: to half of it, so that it is not often."""
        if self._window.is_full(self._conversation.chars):
            await self._sum_up(self._window.chars // 2)

    async def _shorten(self) -> bool:
        """Make the conversation shorter than what was too long; gives whether it could be."""
        if not self.is_direct:
            return await self._sum_up(self._conversation.chars // 2)
        await self.look(may_be_whole=False)
        line = "The text does not fit the window beside the rest: it is no longer shown whole."
        await self.emit("warning", line, {"direct": False})
        return True

    async def _sum_up(self, chars: int) -> bool:
        """Let the oldest turns give way to a summary; gives whether any could."""
        room = max(0, chars - self._conversation.head_chars)
        kept = self._conversation.turns_within(room * 3 // 4)
        if kept is None:
            return False
        last = self.iteration - 1 - kept
        summary = summarize(self._history, last, await self.variables(), max(room // 4, 1000))
        self._conversation = self._conversation.without_oldest(kept, summary)
        line = f"The conversation outgrew the window: turns 1 to {last} were summed up."
        await self.emit("warning", line, {"summed_up": last, "kept": kept})
        return True

    def _turn_budget(self) -> AbstractContextManager[Any]:
        chars = self._conversation.chars
        if self.engine.depth == 0:
            return self.engine.budget.root_turn(chars)
        # To the tree, a turn of an inner run is a sub-call like any other.
        return self.engine.budget.sub_call(chars, self.config.root_max_tokens)

    def _request(self) -> ChatRequest:
        return ChatRequest(
            messages=self._conversation.messages,
            max_tokens=self._window.reply_tokens,
            temperature=self._recall.temperature(self.config.temperature),
            on_delta=self.engine.on_root_delta,
        )

    async def tell_code(self, reply: ChatReply, blocks: Sequence[CodeBlock]) -> None:
        """Tell of the reply that came and of the code in it."""
        code = "\n\n".join(block.code for block in blocks)
        detail = {
            "code": code,
            "reply": reply.text,
            "reasoning": reply.reasoning,
            "finish_reason": reply.finish_reason,
            "input_tokens": reply.input_tokens,
            "output_tokens": reply.output_tokens,
            "usage_estimated": reply.usage_estimated,
        }
        await self.emit("code_generated", preview(code or reply.text), detail)

    async def execute(self, blocks: Sequence[CodeBlock]) -> Turn:
        """Run blocks in order, until one fails or hands over the answer."""
        wanted = blocks[:1] if is_small(self.config) else blocks
        cells: list[CellResult] = []
        shown: list[str] = []
        for block in wanted:
            result, as_shown = await self.execute_one(block.code)
            cells.append(result)
            shown.append(as_shown)
            if result.error is not None or result.final is not None:
                break
        left = len(blocks) - len(cells)
        if left and cells and cells[-1].final is None:
            # A weak model invents the output of its first block in its second.
            why = "it failed" if cells[-1].error else "its output was not seen yet"
            shown.append(f"[{left} more code block(s) of your reply did not run, since {why}.]")
        return Turn(tuple(cells), tuple(shown))

    async def execute_one(self, code: str) -> tuple[CellResult, str]:
        """Run one cell; gives its result and how it is shown.

        Raises:
            SandboxError: the REPL is gone for good.
        """
        with cell_span(self.engine.tracer) as span:
            result = await self.repl.execute(
                code, timeout_seconds=self.config.sandbox_timeout, on_call=self._calls.handle
            )
            span.cell(result)
        await self._calls.end_cell()
        self.has_run_code = True
        limit, fold = self.config.metadata_prefix_chars, is_small(self.config)
        shown = show_cell(result, limit, fold=fold)
        if result.output.strip() and result.error is None:
            self._recall.note_output(shown)
        if assigns_context(code):
            shown = f"{shown}\n{context_replaced()}"
        whole = result.output + (result.error.traceback if result.error else "")
        self._history.append(HistoryEntry("repl_output", whole, shown, self.iteration))
        detail = {
            "output": shown,
            "output_chars": result.output_chars,
            "error": result.error.traceback if result.error else None,
            "elapsed_seconds": round(result.elapsed_seconds, 3),
            "timed_out": result.timed_out,
            "lost_variables": result.lost_variables,
        }
        problem = f"{result.error.type}: {result.error.message}" if result.error else ""
        await self.emit("code_executed", preview(problem or result.output), detail)
        if result.lost_variables:
            await self.emit("warning", "The REPL was replaced; its variables are gone.", {})
        return result, shown

    async def variables(self) -> dict[str, str]:
        """Give a preview of every variable; none when the REPL cannot say."""
        found: dict[str, str] = {}
        with anyio.move_on_after(LOOK_SECONDS):
            with suppress(SandboxError):
                found = {each.name: each.preview for each in await self.repl.variables()}
        return found
