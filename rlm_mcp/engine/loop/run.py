"""One run at work: its conversation, its REPL, and what it tells while it goes on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import anyio

from rlm_mcp.engine.budget import SCARCE_SHARE, Scarce
from rlm_mcp.engine.conversation.compaction import summarize
from rlm_mcp.engine.conversation.conversation import Conversation
from rlm_mcp.engine.conversation.memory import Recall
from rlm_mcp.engine.conversation.opening import Opening
from rlm_mcp.engine.conversation.restore import Tape, recall
from rlm_mcp.engine.conversation.root_dialogue import Dialogue
from rlm_mcp.engine.loop.replay import difference, replay
from rlm_mcp.engine.models.chat import ChatReply
from rlm_mcp.engine.parsing.reply import CodeBlock
from rlm_mcp.engine.prompts import Glimpse, TurnInfo, finish_soon, is_small, reopened
from rlm_mcp.engine.recording import Recording, prompt_digest
from rlm_mcp.engine.run_context import Engine
from rlm_mcp.engine.subcalls.sub_caller import SubCaller
from rlm_mcp.engine.types import HistoryEntry, RLMEvent
from rlm_mcp.errors import SandboxError
from rlm_mcp.events import (
    Change,
    CodeGenerated,
    EventDetail,
    IterationStart,
    LoopState,
    RunWarning,
)
from rlm_mcp.sandbox.types import CellResult, ContextSource, Repl
from rlm_mcp.text import preview

LOOK_SECONDS = 10.0
MAX_TOLD_CHARS = 100_000  # a longer message holds the text itself, and is made again from that


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
        self.is_direct = False
        self._is_last_word = False
        self._is_urged = False
        self._recall = Recall()
        self.calls = calls
        self._history: list[HistoryEntry] = []
        self._opening = Opening(question, source, engine)
        self._glimpse = Glimpse()
        self._first_turn = self.next_turn()
        self._opened = self._opening.conversation(self._first_turn)
        self._dialogue = Dialogue(engine, self._opened)
        self.tape = Tape(engine.recording)

    async def begin(self) -> None:
        """Begin the conversation, or take it up where the run's log ends.

        Raises:
            SandboxError: the REPL is gone for good.
        """
        recording = self.engine.recording
        await self._look()
        if recording.turns:
            await self._take_up()
        if not recording.is_repl_live:
            await self._replay(recording)

    async def _look(self, *, may_be_whole: bool = True) -> None:
        """Take the look at the text that the first message shows, if it shows any."""
        glimpse = await self._opening.glimpse(self.repl, may_be_whole=may_be_whole)
        self._glimpse = glimpse or Glimpse()
        self.is_direct = bool(self._glimpse.whole)
        self._opened = self._opening.conversation(self._first_turn, glimpse)
        conversation = self._dialogue.conversation
        self._dialogue.conversation = replace(conversation, head=self._opened.head)

    async def _take_up(self) -> None:
        recording = self.engine.recording
        past = recall(self._opened, recording)
        self._opened = past.opened
        self._dialogue.take_up(past.conversation, past.last_reply)
        self._history = list(past.history)
        self._recall = past.recall
        self.iteration = past.iteration
        self.is_direct = past.is_direct
        self.has_run_code = any(turn.cells for turn in recording.turns)
        self._stand(past.standing)
        if self.engine.depth == 0:
            self.engine.budget.take_up(past.iteration)
        if not past.is_faithful:
            line = "The conversation could not be rebuilt as it was; it is sent anew."
            await self.emit(RunWarning(), line)
        if recording.is_judged:
            self._tell_reopened()

    async def _replay(self, recording: Recording) -> None:
        await replay(self.repl, recording.before, self.calls, self.config)
        different = await replay(self.repl, recording.cells, self.calls, self.config)
        await self.calls.end_cell()
        if different:
            line, turns = difference(different, recording.cells)
            await self.emit(RunWarning(differing_turns=tuple(turns)), line)

    def _stand(self, standing: LoopState) -> None:
        self.fruitless = standing.fruitless
        self.repairs = standing.repairs
        self.guesses_doubted = standing.doubts
        self.has_started_over = standing.has_started_over
        self._is_urged = standing.is_urged
        self.guess = standing.guess

    @property
    def is_mid_turn(self) -> bool:
        """Whether the next turn was begun before this process took the run up."""
        return self.tape.is_mid_turn

    @property
    def history(self) -> tuple[HistoryEntry, ...]:
        """The trace so far: the root's turns and outputs, and sub-calls, by iteration."""
        entries = [*self._history, *self.calls.history]
        return tuple(sorted(entries, key=lambda entry: entry.iteration))

    @property
    def shown(self) -> str:
        """What the root has seen of the text and of outputs, without what it was told besides."""
        outputs = [each.truncated_content for each in self._history if each.role == "repl_output"]
        return "\n".join((*self._opening.shown(self._glimpse), *outputs))

    @property
    def printed(self) -> str:
        """What the latest cells printed that did not fail."""
        return self._recall.printed

    @property
    def found(self) -> str:
        """What was printed, or else the places that match the question."""
        return self.printed or self._glimpse.matches

    def note_reply(self, text: str) -> bool:
        """Remember a reply; gives whether it is the last one again, of a small model any again."""
        return self._recall.note_reply(text, any_earlier=is_small(self.config))

    def begin_again(self, text: str) -> None:
        """Let go of all turns, since a small model copies what it wrote before."""
        self._recall.restarts += 1
        self._dialogue.conversation = self._opened.told(text)

    def start_over(self, text: str) -> None:
        """Forget the question too, so that `text` alone is answered."""
        self.has_started_over = True
        self._dialogue.conversation = Conversation(({"role": "user", "content": text},))

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
        told = "\n\n".join(text for text in texts if text)
        self._dialogue.conversation = self._dialogue.conversation.told(told)

    def begin_last_word(self) -> bool:
        """Let the next turn be the last; gives whether the model is still to be told so."""
        self._is_last_word = True
        return not self.tape.is_last_word

    async def emit(self, detail: EventDetail, line: str) -> None:
        """Emit one event, with the figures after it; `line` is its preview."""
        engine = self.engine
        usage = engine.budget.snapshot()
        await engine.emit(
            RLMEvent.of(detail, self.iteration, line, depth=engine.depth, usage=usage)
        )

    async def ask(self) -> ChatReply:
        """Take one turn of the root model.

        Raises:
            BudgetExceededError: there is no room for it.
            ModelError: there is no reply.
        """
        is_reopened = self.tape.is_last_word and not self._is_last_word
        reply = self.tape.reply()
        if is_reopened:
            reply = self._reopen(reply)
        self._count_turn()
        if reply is None:
            await self._begin_turn()
            reply = await self._dialogue.complete(
                self._make_room, self._recall.temperature(self.config.temperature)
            )
        self._hear(reply)
        return reply

    def _reopen(self, reply: ChatReply | None) -> ChatReply | None:
        """Go on where the best answer was asked for, since there is room again."""
        if reply is not None:
            self._count_turn()
            self._hear(reply)
        self._is_urged = False
        self._tell_reopened()
        return self.tape.reply()

    def _tell_reopened(self) -> None:
        told = reopened(self.question, self.next_turn(), self.config)
        if self.has_started_over:  # the question is no longer in the conversation
            self.has_started_over = False
            self.begin_again(told)
        else:
            self.tell(told)

    def _count_turn(self) -> None:
        self.iteration += 1
        self.calls.iteration = self.iteration
        if self.engine.depth == 0:
            self.engine.budget.count_iteration()

    def _hear(self, reply: ChatReply) -> None:
        self._dialogue.hear(reply)
        self._history.append(HistoryEntry("root", reply.text, reply.text, self.iteration))

    async def _begin_turn(self) -> None:
        """Put the turn on record before it is asked for: what is told, and how the run stands."""
        self._urge()
        turn = IterationStart(
            of=self.config.max_iterations,
            prompt_chars=self._dialogue.chars,
            prompt_sha256=prompt_digest(self._dialogue.conversation.messages),
            change=self._change(),
            direct=self.is_direct,
            last_word=self._is_last_word,
            standing=self._standing,
        )
        await self.emit(turn, f"turn {self.iteration} of {self.config.max_iterations}")

    def _change(self) -> Change:
        """What is new in the conversation since it was last put on record."""
        is_opening = self._dialogue.conversation.head == self._opened.head
        is_long = is_opening and self._opened.head_chars > MAX_TOLD_CHARS
        return self._dialogue.change(without_head=is_long)

    @property
    def _standing(self) -> LoopState:
        return LoopState(
            fruitless=self.fruitless,
            repairs=self.repairs,
            doubts=self.guesses_doubted,
            restarts=self._recall.restarts,
            has_started_over=self.has_started_over,
            is_urged=self._is_urged,
            guess=self.guess,
        )

    def _urge(self) -> None:
        """Say once, before the end of a limit, that it is time to finish."""
        if self._is_urged or self._is_last_word or self.iteration == 1:
            return
        done, turns = self.iteration - 1, self.config.max_iterations
        scarce = self.engine.budget.scarce
        if scarce is None and done >= SCARCE_SHARE * turns:
            scarce = Scarce("iterations", done, turns)
        if scarce is not None:
            self._is_urged = True
            self.tell(finish_soon(str(scarce)))

    async def _make_room(self, chars: int, *, is_refused: bool) -> bool:
        """Make the conversation shorter; gives whether it could be.

        Args:
            chars: what it may have, about.
            is_refused: it was sent, and was too long.
        """
        if not self.is_direct or not is_refused:
            return await self._sum_up(chars)
        await self._look(may_be_whole=False)
        line = "The text does not fit the window beside the rest: it is no longer shown whole."
        await self.emit(RunWarning(direct=False, change=self._change()), line)
        return True

    async def _sum_up(self, chars: int) -> bool:
        """Let the oldest turns give way to a summary; gives whether any could."""
        conversation = self._dialogue.conversation
        room = max(0, chars - conversation.head_chars)
        kept = conversation.turns_within(room * 3 // 4)
        if kept is None:
            return False
        last = self.iteration - 1 - kept
        summary = summarize(self._history, last, await self.variables(), max(room // 4, 1000))
        self._dialogue.conversation = conversation.without_oldest(kept, summary)
        line = f"The conversation outgrew the window: turns 1 to {last} were summed up."
        await self.emit(RunWarning(summed_up=last, kept=kept, change=self._change()), line)
        return True

    async def tell_code(self, reply: ChatReply, blocks: Sequence[CodeBlock]) -> None:
        """Tell of the reply that came and of the code in it."""
        if self.tape.is_playing:
            return
        code = "\n\n".join(block.code for block in blocks)
        generated = CodeGenerated(
            code=code,
            reply=reply.text,
            reasoning=reply.reasoning,
            finish_reason=reply.finish_reason,
            input_tokens=reply.input_tokens,
            output_tokens=reply.output_tokens,
            usage_estimated=reply.usage_estimated,
        )
        await self.emit(generated, preview(code or reply.text))

    def note_cell(self, whole: str, result: CellResult, shown: str) -> None:
        """Remember what a cell did: all it printed, its result, and how it was shown."""
        self.has_run_code = True
        self._recall.note_cell(result, shown)
        self._history.append(HistoryEntry("repl_output", whole, shown, self.iteration))

    async def variables(self) -> dict[str, str]:
        """Give a preview of every variable; none when the REPL cannot say."""
        found: dict[str, str] = {}
        with anyio.move_on_after(LOOK_SECONDS):
            with suppress(SandboxError):
                found = {each.name: each.preview for each in await self.repl.variables()}
        return found
