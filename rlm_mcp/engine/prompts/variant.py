"""How a root model is addressed, and how far it is trusted: one object for each kind of model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from rlm_mcp.engine.config import RLMConfig
from rlm_mcp.engine.prompts.asked import YES_OR_NO
from rlm_mcp.engine.prompts.cell_output import cut_middle
from rlm_mcp.engine.prompts.examples import WORKED_SESSIONS, WorkedSession
from rlm_mcp.engine.prompts.first_look import TextShape
from rlm_mcp.engine.prompts.messages import remind_of_output, schema_instructions, show_outputs
from rlm_mcp.engine.prompts.nudges import WHAT_WAS_WRONG, NudgeReason
from rlm_mcp.engine.prompts.opening import (
    ContextPreview,
    TurnInfo,
    small_system_prompt,
    system_prompt,
)
from rlm_mcp.events import Message

_MAX_DETAIL_CHARS = 2_000


def variant_of(config: RLMConfig) -> PromptVariant:
    """Choose the variant that a configuration names."""
    kind = SmallModelPrompts if config.prompt_variant == "small_context" else DefaultPrompts
    return kind(config)


class PromptVariant(ABC):
    """The messages to one kind of model, and the rules of the loop that depend on it."""

    is_for_weak_models: ClassVar[bool]
    """Whether the loop guards against what weak models do: they write several blocks with invented
    output between them, repeat earlier replies, and answer with values that nothing printed."""

    max_start_chars: ClassVar[int | None] = None
    """Characters of the text's beginning that are shown at most."""

    _separator: ClassVar[str] = "\n\n"

    def __init__(self, config: RLMConfig) -> None:
        self.config = config

    @abstractmethod
    def system_prompt(self, *, recursion: bool = False, has_sub_model: bool = False) -> str:
        """Write the system message; see `opening.system_prompt`."""

    def worked_example(self, shape: TextShape = "lines") -> tuple[Message, ...]:
        """Return turns to show between system message and question; the assistant's is the last.

        Args:
            shape: of the text, which decides what is shown.
        """
        del shape
        return ()

    def first_message(
        self,
        question: str,
        description: str,
        *,
        turn: TurnInfo | None = None,
        schema: Mapping[str, Any] | None = None,
        preview: ContextPreview | None = None,
    ) -> str:
        """Ask the question.

        Args:
            question: the user's, as it is.
            description: what `describe_context` returned.
            turn: what is left; None shows nothing.
            schema: the JSON Schema that the answer must fit.
            preview: more of the text, where code looked at it.
        """
        seen = preview or ContextPreview()
        matches = f"Places that match the question:\n{seen.matches}" if seen.matches.strip() else ""
        left = f"{turn} " if turn else ""
        asked = self._ask_after_reading() if seen.whole else self._ask_for_code()
        parts = (
            *(self._heading(), seen.before, f"Question: {question}"),
            *(seen.whole or description, matches),
            schema_instructions(schema) if schema is not None else "",
            left + asked,
        )
        return self._separator.join(part for part in parts if part)

    def feedback(
        self,
        question: str,
        shown_cells: Sequence[str],
        turn: TurnInfo,
        *,
        has_failed: bool = False,
    ) -> str:
        """Show the output of the last turn's cells and ask for the next turn.

        Args:
            question: the user's; weak models are asked it again.
            shown_cells: outputs.
            turn: what is left.
            has_failed: whether the last cell raised.
        """
        closing = self.closing(question, turn, has_failed=has_failed)
        return f"{show_outputs(shown_cells)}\n{closing}"

    @abstractmethod
    def closing(self, question: str, turn: TurnInfo, *, has_failed: bool = False) -> str:
        """End a message: what is left, and what to write now."""

    def nudge(
        self,
        reason: NudgeReason,
        question: str,
        turn: TurnInfo,
        *,
        detail: str = "",
        shown_cells: Sequence[str] = (),
    ) -> str:
        """Say what was wrong with a reply, show the form to use, and what is left.

        Args:
            reason: what the parser or the loop found wrong.
            question: the user's; weak models are asked it again.
            turn: what is left.
            detail: the particulars, e.g. the syntax error with line and caret.
            shown_cells: outputs of the blocks that ran all the same.
        """
        parts = (
            *(show_outputs(shown_cells) if shown_cells else "", WHAT_WAS_WRONG[reason]),
            *(cut_middle(detail, _MAX_DETAIL_CHARS), self._form(turn)),
            self.closing(question, turn),
        )
        return "\n".join(part for part in parts if part)

    def went_in_circles(self, printed: str, turn: TurnInfo) -> str:
        """Tell a model that starts over, without the turns before, what those printed."""
        asked = "call FINAL now"
        if not turn.is_last:
            asked = "call FINAL with the answer, or try another way"
        return f"{remind_of_output(printed)}{turn} The same code gives the same output: {asked}."

    def best_answer_request(self, question: str, reason: str) -> str:
        """Ask for the best answer from what is known.

        Args:
            question: the user's.
            reason: why there are no more turns, e.g. "The last turn is over."
        """
        return (
            f"Question: {question}\nNo more code will run: {reason.rstrip('.')}. "
            f"{self._best_answer_form()}"
        )

    def reopened(self, question: str, turn: TurnInfo) -> str:
        """Say that the run was resumed after it had ended, with everything still there."""
        return (
            "The work continues: there is room again, code runs again, and your variables are as "
            "you left them. If your last answer is complete and supported by output, give it again;"
            f" otherwise continue.\n{self.closing(question, turn)}"
        )

    def _heading(self) -> str:
        return ""

    @abstractmethod
    def _form(self, turn: TurnInfo) -> str: ...

    @abstractmethod
    def _ask_for_code(self) -> str: ...

    @abstractmethod
    def _best_answer_form(self) -> str: ...

    def _ask_after_reading(self) -> str:
        return (
            "The text is short, so you have read all of it. If reading is enough, answer now with "
            "FINAL(...) on a line of its own. Whatever has to be counted or computed, do in a "
            f"{self._fence} block."
        )

    _fence: ClassVar[str]


class DefaultPrompts(PromptVariant):
    """For models that follow a description; the variant `cost_warning` differs by one chapter."""

    is_for_weak_models = False
    _fence = "```repl"

    def system_prompt(self, *, recursion: bool = False, has_sub_model: bool = False) -> str:
        """Write the system message; see `opening.system_prompt`."""
        return system_prompt(self.config, recursion=recursion, has_sub_model=has_sub_model)

    def closing(self, question: str, turn: TurnInfo, *, has_failed: bool = False) -> str:
        """End a message: what is left, and what to write now."""
        del has_failed  # it has seen the error
        last = " This is the last turn: answer now with FINAL or FINAL_VAR." if turn.is_last else ""
        return f"\n{turn}{last}"

    def _form(self, turn: TurnInfo) -> str:
        if turn.is_last:
            return ""
        return (
            "Put code into a fenced block that begins with ```repl and ends with ```; put the "
            "answer into FINAL(...) or FINAL_VAR(...) at the start of a line."
        )

    def _ask_for_code(self) -> str:
        return "Look at the text first: write a ```repl block."

    def _best_answer_form(self) -> str:
        return (
            "Give the best answer that the output so far supports, as FINAL(...), or as "
            "FINAL_VAR(...) if a variable holds it. If it is incomplete or uncertain, say so in it."
        )


class SmallModelPrompts(PromptVariant):
    """For weak models with small windows: short, by example, the question again in each turn."""

    is_for_weak_models = True
    # Reading slows weak models down and distracts them.
    max_start_chars = 300
    _separator = "\n"
    _fence = "```python"

    def system_prompt(self, *, recursion: bool = False, has_sub_model: bool = False) -> str:
        """Write the system message, which does not say who answers sub-calls."""
        return small_system_prompt(self.config, recursion=recursion)

    def worked_example(self, shape: TextShape = "lines") -> tuple[Message, ...]:
        """Return turns to show between system message and question; the assistant's is the last."""
        if shape == "items" and not self.config.enable_sub_calls:
            shape = "lines"
        sessions = WORKED_SESSIONS[shape]
        return tuple(message for session in sessions for message in self._turns_of(session))

    def closing(self, question: str, turn: TurnInfo, *, has_failed: bool = False) -> str:
        """End a message: the question again, what is left, and what to write now."""
        asked = (
            f"Write one ```python block for turn {turn.iteration}, or call FINAL with the answer."
        )
        if turn.is_last:
            asked = "This is the last turn: call FINAL with the answer now, in one ```python block."
        elif has_failed:  # else it answers with a value that it made up
            asked = "The code failed and gave nothing. Write it again, corrected."
        return f"Question: {question}\n{turn} {asked}{_form_of_answer(question)}"

    def _turns_of(self, session: WorkedSession) -> tuple[Message, ...]:
        first, second = session.turns(self.config.enable_sub_calls)
        return (
            _asked(self.first_message(session.question, session.description, turn=first)),
            _wrote(session.code),
            _asked(self.feedback(session.question, [session.output], second)),
            _wrote(session.answer),
        )

    def _heading(self) -> str:
        return "New session."

    def _form(self, turn: TurnInfo) -> str:  # the same in every turn
        return "Write one block like this:\n```python\nprint(context[:300])\n```"

    def _ask_for_code(self) -> str:
        return "Write the code for turn 1."

    def _best_answer_form(self) -> str:
        return "Write the answer as FINAL(...), with nothing else."


def _form_of_answer(question: str) -> str:
    """Repeat the form of the answer, else a weak model answers with the words it looked for."""
    return " The answer is yes or no." if YES_OR_NO.search(question) else ""


def _asked(content: str) -> Message:
    return {"role": "user", "content": content}


def _wrote(code: str) -> Message:
    return {"role": "assistant", "content": f"```python\n{code}\n```"}
