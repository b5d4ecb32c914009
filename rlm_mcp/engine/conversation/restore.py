"""What a run remembers of its turns, and how that is restored from its recording."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from rlm_mcp.engine.conversation.conversation import Conversation, changed
from rlm_mcp.engine.models.chat import ChatReply
from rlm_mcp.engine.parsing.evidence import assigns_context
from rlm_mcp.engine.recording import RecordedTurn, Recording, prompt_digest
from rlm_mcp.engine.types import HistoryEntry
from rlm_mcp.events import LoopState
from rlm_mcp.sandbox.types import CellResult

LATEST_PRINTED = 2


@dataclass
class Memory:
    """The trace of a run's turns, and what its cells printed without failing."""

    history: list[HistoryEntry] = field(default_factory=list[HistoryEntry])
    has_run_code: bool = False
    _printed: list[str] = field(default_factory=list[str])

    def add_reply(self, text: str, iteration: int) -> None:
        """Remember a reply of the root."""
        self.history.append(HistoryEntry("root", text, text, iteration))

    def add_cell(self, code: str, result: CellResult, shown: str, iteration: int) -> None:
        """Remember what a cell did, and how that was shown to the root."""
        whole = result.output + (result.error.traceback if result.error else "")
        self.add_recorded_cell(code, result, shown, iteration, whole=whole)

    def add_recorded_cell(
        self, code: str, result: CellResult, shown: str, iteration: int, *, whole: str | None = None
    ) -> None:
        """Remember a cell whose whole output is not known, only how it was shown."""
        self.has_run_code = True
        content = shown if whole is None else whole
        self.history.append(HistoryEntry("repl_output", content, shown, iteration))
        if result.output.strip() and result.error is None:
            # The note that `context` was restored follows the output, on a line of its own.
            printed = shown.rpartition("\n")[0] if assigns_context(code) else shown
            self._printed.append(printed)

    def is_repeated(self, text: str, *, any_earlier: bool) -> bool:
        """Whether the reply that was just added is the previous one again, or any earlier one."""
        earlier = [entry.content for entry in self.history if entry.role == "root"][:-1]
        return text in (earlier if any_earlier else earlier[-1:])

    @property
    def printed(self) -> str:
        """What the latest cells printed."""
        return "\n".join(dict.fromkeys(self._printed[-LATEST_PRINTED:]))

    @property
    def last_printed(self) -> str:
        """What the last cell printed that printed anything."""
        return self._printed[-1] if self._printed else ""

    @property
    def outputs(self) -> list[str]:
        """The output of every cell, as it was shown."""
        return [each.truncated_content for each in self.history if each.role == "repl_output"]


@dataclass(frozen=True)
class Past:
    """A run as it was after its last complete turn.

    Args:
        opened: the conversation as it was before the first turn.
        conversation: as it was sent last.
        iteration: how many turns are complete.
        state: what is remembered besides.
        last_reply: the root's last one, with the width of its prompt (`text.width`).
        is_direct: whether the first message holds the whole text.
        is_faithful: whether the last prompt is byte for byte the one that was sent.
    """

    opened: Conversation
    conversation: Conversation
    iteration: int
    state: LoopState
    last_reply: tuple[int, ChatReply] | None
    is_direct: bool
    is_faithful: bool


def restore(opening: Conversation, recording: Recording, memory: Memory) -> Past:
    """Rebuild the conversation and the memory of a run; no wording of today's prompts is needed.

    Args:
        opening: the conversation as a run over the same text begins it now.
        recording: at least one turn.
        memory: an empty one, which is filled.
    """
    conversation = Conversation(opening.head[:-1])
    opened, last_reply, is_faithful = opening, None, True
    for turn in recording.turns:
        conversation = changed(conversation, turn.changes[0], opening)
        is_faithful = prompt_digest(conversation.messages) == turn.prompt_sha256
        opened = opened if memory.history else conversation
        for change in turn.changes[1:]:
            conversation = changed(conversation, change, opening)
            opened = Conversation(conversation.head) if change.has_new_head else opened
        is_open = turn is recording.turns[-1] and not recording.is_judged
        if turn.reply is not None and not is_open:
            last_reply = (conversation.width, turn.reply)
            conversation = conversation.replied(turn.reply.text)
            _remember(memory, turn, turn.reply)
    last = recording.turns[-1]
    return Past(
        opened,
        conversation,
        iteration=last.iteration if recording.is_judged else last.iteration - 1,
        state=_state(last, recording),
        last_reply=last_reply,
        is_direct=last.is_direct,
        is_faithful=is_faithful,
    )


def _remember(memory: Memory, turn: RecordedTurn, reply: ChatReply) -> None:
    memory.add_reply(reply.text, turn.iteration)
    for cell in turn.cells:
        memory.add_recorded_cell(cell.code, cell.result, cell.shown, turn.iteration)


def _state(last: RecordedTurn, recording: Recording) -> LoopState:
    if not recording.is_judged:
        return last.standing
    guess = recording.final.answer if recording.final else last.standing.guess
    return replace(last.standing, fruitless=0, repairs=0, is_urged=False, guess=guess)
