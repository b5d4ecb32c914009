"""One run at work: its conversation with the root model, its REPL, and its state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from rlm_mcp.engine.budget import SCARCE_SHARE
from rlm_mcp.engine.conversation.compaction import summarize
from rlm_mcp.engine.conversation.restore import restore
from rlm_mcp.engine.conversation.root_dialogue import Dialogue, Opening
from rlm_mcp.engine.loop.replay import Calls
from rlm_mcp.engine.loop.turn import Cells, Turn
from rlm_mcp.engine.models.chat import ChatReply
from rlm_mcp.engine.parsing.reply import CodeBlock, parse_reply
from rlm_mcp.engine.prompts.first_look import TextSample, TextShape, shape_of
from rlm_mcp.engine.prompts.messages import answer_from_output, finish_soon
from rlm_mcp.engine.prompts.opening import ContextPreview, TurnInfo
from rlm_mcp.engine.prompts.variant import variant_of
from rlm_mcp.engine.recording import prompt_digest
from rlm_mcp.engine.run_context import RunLog
from rlm_mcp.engine.spending import Scarce
from rlm_mcp.engine.types import HistoryEntry
from rlm_mcp.events import CodeGenerated, IterationStart, LoopState, RunWarning
from rlm_mcp.sandbox.types import ContextSource, Repl
from rlm_mcp.text import preview as one_line

RESTART_WARMTH = 0.3
MAX_WARMTH = 1.0


class Run:
    """What changes while one question is answered; `orchestrator.answer` makes and drives it.

    `is_direct` says that the first message holds the whole text. `state` is what the run remembers
    between turns besides its conversation; `judge` returns the next one.
    """

    def __init__(
        self,
        question: str,
        source: ContextSource,
        repl: Repl,
        log: RunLog,
        make_calls: Callable[[], Calls],
    ) -> None:
        self.question = question
        self.source = source
        self.log = log
        self.engine = log.engine
        self.prompts = variant_of(log.engine.config)
        self.state = LoopState()
        self.cells = Cells(repl, make_calls, log, self.prompts)
        self.is_direct = False
        self._opening = Opening(question, source, log.engine, self.prompts)
        self._first_turn = self.next_turn()
        self._preview = ContextPreview()
        self.dialogue = Dialogue(log.engine, self._opening.conversation(self._first_turn))
        self._is_last_word = False

    async def begin(self) -> None:
        """Begin the conversation, or continue it where the run's log ends.

        Raises:
            SandboxError: the REPL is gone for good.
        """
        recording = self.engine.recording
        await self._look()
        if recording.turns:
            await self._restore()
        await self.cells.replay(recording)

    async def _look(self, *, may_be_whole: bool = True) -> None:
        """Take the look at the text that the first message shows, if it shows any."""
        preview = await self._opening.look(self.cells.repl, may_be_whole=may_be_whole)
        self._preview = preview or ContextPreview()
        self.is_direct = bool(self._preview.whole)
        if preview is not None or not may_be_whole:  # else it begins as it was made
            self.dialogue.open_with(self._opening.conversation(self._first_turn, preview))

    async def _restore(self) -> None:
        recording = self.engine.recording
        past = restore(self.dialogue.opened, recording, self.cells.memory)
        self.dialogue.restore(past)
        self.is_direct = past.is_direct
        self.log.turn = past.iteration
        self.state = past.state
        if self.engine.depth == 0 and not self.engine.attempt:
            self.engine.budget.restore_iterations(past.iteration)
        if not past.is_faithful:
            line = "The conversation could not be rebuilt exactly; the model gets it as rebuilt."
            await self.log.emit(RunWarning(), line)
        if recording.is_judged:
            self._tell_reopened()

    @property
    def turn(self) -> int:
        """The turn of the root that was begun last, from 1."""
        return self.log.turn

    @property
    def history(self) -> tuple[HistoryEntry, ...]:
        """The trace so far: the root's turns and outputs, and sub-calls, by iteration."""
        entries = [*self.cells.memory.history, *self.cells.calls.history]
        return tuple(sorted(entries, key=lambda entry: entry.iteration))

    @property
    def shown(self) -> str:
        """What the root has seen of the text and of outputs, without other messages."""
        return "\n".join((*self._opening.shown(self._preview), *self.cells.memory.outputs))

    @property
    def sample(self) -> TextSample | None:
        """Some lines of the text, which a weak model was shown."""
        return self._preview.sample

    @property
    def shape(self) -> TextShape:
        """How the text is best worked on."""
        return shape_of(self.source, self.sample)

    @property
    def found(self) -> str:
        """What was printed, or else the places that match the question."""
        return self.cells.memory.printed or self._preview.matches

    def next_turn(self) -> TurnInfo:
        """Say what is left before the next turn."""
        config, left = self.engine.config, self.engine.budget.remaining()
        return TurnInfo(
            iteration=self.turn + 1,
            max_iterations=config.max_iterations,
            sub_calls_left=left["sub_calls"] if config.enable_sub_calls else None,
            seconds_left=left.get("seconds"),
            usd_left=left.get("usd"),
            tokens_left=left.get("tokens"),
        )

    def begin_last_word(self, reason: str) -> None:
        """Make the next turn the last one, which is asked for the best answer.

        Args:
            reason: why there are no more turns.
        """
        self._is_last_word = True
        if self.cells.pending.is_last_word:  # it was asked for before this process resumed the run
            return
        is_typed = self.engine.answer_schema is not None
        if self.prompts.is_for_weak_models and self.found and not is_typed:
            self.state = replace(self.state, has_started_over=True)
            self.dialogue.replace_question(answer_from_output(self.question, self.found))
        else:
            self.dialogue.tell(self.prompts.best_answer_request(self.question, reason))

    async def take_turn(self) -> Turn:
        """Ask the root for a reply and run the code in it.

        Raises:
            BudgetExceededError: the budget has no room for it.
            ModelError: there is no reply.
            SandboxError: the REPL is gone for good.
        """
        reply = await self._ask()
        parsed = parse_reply(reply.text, was_cut=reply.finish_reason == "length")
        is_repeated = self.cells.memory.is_repeated(
            reply.text, any_earlier=self.prompts.is_for_weak_models
        )
        await self._report_reply(reply, parsed.blocks)
        cells, shown = await self.cells.execute(parsed)
        return Turn(parsed, tuple(cells), tuple(shown), is_repeated)

    async def _ask(self) -> ChatReply:
        pending = self.cells.pending
        is_reopened = pending.is_last_word and not self._is_last_word
        reply = pending.take_reply()
        if is_reopened:
            reply = self._reopen(reply)
        self._count_turn()
        if reply is None:
            await self._begin_turn()
            reply = await self.dialogue.complete(self._make_room, self._temperature())
            await self.log.warn_of_cut_prompt(reply, self.dialogue.chars)
        self._hear(reply)
        return reply

    def _reopen(self, reply: ChatReply | None) -> ChatReply | None:
        """Continue where the best answer was asked for, because there is room again."""
        if reply is not None:
            self._count_turn()
            self._hear(reply)
        self.state = replace(self.state, is_urged=False)
        self._tell_reopened()
        return self.cells.pending.take_reply()

    def _tell_reopened(self) -> None:
        message = self.prompts.reopened(self.question, self.next_turn())
        if self.state.has_started_over:  # the question is no longer in the conversation
            self.state = replace(self.state, has_started_over=False)
            self.restart(message)
        else:
            self.dialogue.tell(message)

    def restart(self, message: str) -> None:
        """Begin the conversation again, with a message and without its turns."""
        self.state = replace(self.state, restarts=self.state.restarts + 1)
        self.dialogue.begin_again(message)

    def _temperature(self) -> float | None:
        """The temperature to ask for: warmer after each restart, for something new."""
        wanted, restarts = self.engine.config.temperature, self.state.restarts
        if wanted is None or not restarts:
            return wanted
        return max(wanted, min(MAX_WARMTH, wanted + RESTART_WARMTH * restarts))

    def _count_turn(self) -> None:
        self.log.turn += 1
        if self.engine.depth == 0:
            self.engine.budget.reach_iteration(self.log.turn)

    def _hear(self, reply: ChatReply) -> None:
        self.dialogue.hear(reply)
        self.cells.memory.add_reply(reply.text, self.turn)

    async def _begin_turn(self) -> None:
        """Log the turn before it is asked for: what the model is told, and the state."""
        self._urge()
        turns = self.engine.config.max_iterations
        started = IterationStart(
            of=turns,
            prompt_chars=self.dialogue.chars,
            prompt_sha256=prompt_digest(self.dialogue.conversation.messages),
            change=self.dialogue.take_change(),
            direct=self.is_direct,
            last_word=self._is_last_word,
            standing=self.state,
        )
        await self.log.emit(started, f"turn {self.turn} of {turns}")

    def _urge(self) -> None:
        """Say once, before the end of a limit, that it is time to finish."""
        if self.state.is_urged or self._is_last_word or self.turn == 1:
            return
        done, turns = self.turn - 1, self.engine.config.max_iterations
        scarce = self.engine.budget.scarce
        if scarce is None and done >= SCARCE_SHARE * turns:
            scarce = Scarce("iterations", done, turns)
        if scarce is not None:
            self.state = replace(self.state, is_urged=True)
            self.dialogue.tell(finish_soon(str(scarce)))

    async def _make_room(self, chars: int, *, is_refused: bool) -> bool:
        """Shorten the conversation to a width of about `chars`; returns whether it could."""
        if not self.is_direct or not is_refused:
            return await self._sum_up(chars)
        await self._look(may_be_whole=False)
        line = (
            "The text does not fit the window together with the rest: it is no longer shown whole."
        )
        await self.log.emit(RunWarning(direct=False, change=self.dialogue.take_change()), line)
        return True

    async def _sum_up(self, chars: int) -> bool:
        """Replace the oldest turns by a summary; returns whether there were any to replace."""
        conversation = self.dialogue.conversation
        room = max(0, chars - conversation.head_width)
        kept = conversation.turns_within(room * 3 // 4)
        if kept is None:
            return False
        last = self.turn - 1 - kept
        variables = await self.cells.variables()
        summary = summarize(self.cells.memory.history, last, variables, max(room // 4, 1000))
        self.dialogue.conversation = conversation.without_oldest(kept, summary)
        line = f"The conversation outgrew the window: turns 1 to {last} were summed up."
        change = self.dialogue.take_change()
        await self.log.emit(RunWarning(summed_up=last, kept=kept, change=change), line)
        return True

    async def _report_reply(self, reply: ChatReply, blocks: Sequence[CodeBlock]) -> None:
        if self.cells.pending.is_playing:
            return
        code = "\n\n".join(block.code for block in blocks)
        timing = reply.timing
        first = timing.first_token_seconds
        generated = CodeGenerated(
            code=code,
            reply=reply.text,
            reasoning=reply.reasoning,
            finish_reason=reply.finish_reason,
            input_tokens=reply.input_tokens,
            output_tokens=reply.output_tokens,
            usage_estimated=reply.usage_estimated,
            seconds=round(timing.seconds, 3),
            first_token_seconds=None if first is None else round(first, 3),
            retries=timing.retries,
            model=reply.model or None,
            cached_input_tokens=reply.cached_input_tokens or None,
            cost_usd=reply.cost_usd,
        )
        await self.log.emit(generated, one_line(code or reply.text))
