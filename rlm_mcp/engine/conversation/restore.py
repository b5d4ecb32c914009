"""What a run that is taken up remembers, read from its recording. Pure: values in, values out."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

from rlm_mcp.engine.conversation.conversation import Conversation
from rlm_mcp.engine.conversation.diff import changed
from rlm_mcp.engine.conversation.memory import Recall
from rlm_mcp.engine.models.chat import ChatReply
from rlm_mcp.engine.recording import RecordedCell, RecordedTurn, Recording, prompt_digest
from rlm_mcp.engine.types import HistoryEntry
from rlm_mcp.events import LoopState


@dataclass(frozen=True)
class Past:
    """A run as it stood after its last turn that came to an end.

    Args:
        opened: the conversation as it was before the first turn.
        conversation: as it was sent last, or as the model is to be asked again.
        history: the trace of the turns that ended.
        recall: what the run remembers of them.
        iteration: how many of them there are.
        standing: what is remembered besides.
        last_reply: the root's last one, with the characters of its prompt.
        is_direct: whether the first message holds the whole text.
        is_faithful: whether the last prompt came out byte for byte as it was sent.
    """

    opened: Conversation
    conversation: Conversation
    history: tuple[HistoryEntry, ...]
    recall: Recall
    iteration: int
    standing: LoopState
    last_reply: tuple[int, ChatReply] | None
    is_direct: bool
    is_faithful: bool


def recall(opening: Conversation, recording: Recording) -> Past:
    """Say again what was said.

    Args:
        opening: the conversation as a run over the same text begins it now.
        recording: at least one turn.
    """
    conversation = Conversation(opening.head[:-1])
    opened, last_reply, is_faithful = opening, None, True
    history: list[HistoryEntry] = []
    remembered = Recall(restarts=recording.turns[-1].standing.restarts)
    for turn in recording.turns:
        conversation = changed(conversation, turn.changes[0], opening)
        is_faithful = prompt_digest(conversation.messages) == turn.prompt_sha256
        opened = opened if history else conversation
        for change in turn.changes[1:]:
            conversation = changed(conversation, change, opening)
            opened = Conversation(conversation.head) if change.has_new_head else opened
        is_open = turn is recording.turns[-1] and not recording.is_judged
        if turn.reply is not None and not is_open:
            last_reply = (conversation.chars, turn.reply)
            conversation = conversation.replied(turn.reply.text)
            history += _trace(turn, turn.reply)
            _remember(remembered, turn, turn.reply)
    last = recording.turns[-1]
    return Past(
        opened,
        conversation,
        tuple(history),
        remembered,
        iteration=last.iteration if recording.is_judged else last.iteration - 1,
        standing=_standing(last, recording),
        last_reply=last_reply,
        is_direct=last.is_direct,
        is_faithful=is_faithful,
    )


def _remember(remembered: Recall, turn: RecordedTurn, reply: ChatReply) -> None:
    remembered.note_reply(reply.text, any_earlier=False)
    for cell in turn.cells:
        remembered.note_cell(cell.result, cell.shown)


def _trace(turn: RecordedTurn, reply: ChatReply) -> list[HistoryEntry]:
    root = HistoryEntry("root", reply.text, reply.text, turn.iteration)
    shown = [cell.shown for cell in turn.cells]
    return [root, *(HistoryEntry("repl_output", text, text, turn.iteration) for text in shown)]


def _standing(last: RecordedTurn, recording: Recording) -> LoopState:
    if not recording.is_judged:
        return last.standing
    guess = recording.final.answer if recording.final else last.standing.guess
    return replace(last.standing, fruitless=0, repairs=0, is_urged=False, guess=guess)


class Tape:
    """Plays, once, the turn that a log ends in; empty for a run that begins."""

    def __init__(self, recording: Recording) -> None:
        is_open = bool(recording.turns) and not recording.is_judged
        self._turn = recording.turns[-1] if is_open else None
        self._cells: deque[RecordedCell] = deque()
        self.is_playing = False

    @property
    def is_mid_turn(self) -> bool:
        """Whether a reply waits to be acted on, in a turn that was not the last."""
        turn = self._turn
        return turn is not None and turn.reply is not None and not turn.is_last_word

    @property
    def is_last_word(self) -> bool:
        """Whether the turn that is next was asked for the best answer."""
        return self._turn is not None and self._turn.is_last_word

    def reply(self) -> ChatReply | None:
        """Give the reply that the model gave already, if it did."""
        turn, self._turn = self._turn, None
        self.is_playing = turn is not None and turn.reply is not None
        self._cells = deque(turn.cells if turn is not None and self.is_playing else ())
        return turn.reply if turn is not None else None

    def cell(self, code: str) -> RecordedCell | None:
        """Give what came of a cell of that reply, where it was run already."""
        if not self._cells or self._cells[0].code != code:
            self._cells.clear()
            return None
        return self._cells.popleft()
