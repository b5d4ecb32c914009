"""What a run's log holds of its work, so that the run can be taken up where the log ends."""

from __future__ import annotations

import hashlib
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field

from rlm_mcp.engine.models.chat import ChatReply
from rlm_mcp.events import (
    ATTEMPT_NAME,
    Change,
    Cited,
    CodeExecuted,
    CodeGenerated,
    EventDetail,
    FinalAnswer,
    FinalValue,
    IterationStart,
    LoggedEvent,
    LoopState,
    Message,
    Raised,
    RunFinished,
    RunWarning,
    SubCall,
    SubCallsFinished,
    inner_path,
    read_detail,
)
from rlm_mcp.sandbox.types import CellError, CellResult, Citation, Final

MAX_PRINTED_CHARS = 200  # more is known as it was shown


@dataclass(frozen=True)
class RecordedCall:
    """A sub-call that came to its end; `text` is None where it is longer than a log keeps."""

    key: str
    text: str | None
    error: str | None = None


@dataclass(frozen=True)
class RecordedCell:
    """A cell that ran: how it was shown, and what answered its calls."""

    code: str
    shown: str
    result: CellResult
    iteration: int = 0
    calls: tuple[RecordedCall, ...] = ()
    balances: tuple[str, ...] = ()
    is_callers: bool = False


@dataclass
class RecordedTurn:
    """A turn that was begun.

    `changes` are those of the conversation up to its being sent, the last time if it was sent
    again because it was too long; `standing` is from before it; `reply` is None while the model
    has not answered.
    """

    iteration: int
    prompt_sha256: str
    is_direct: bool
    is_last_word: bool
    standing: LoopState
    reply: ChatReply | None = None
    changes: list[Change] = field(default_factory=list[Change])
    cells: list[RecordedCell] = field(default_factory=list[RecordedCell])


@dataclass(frozen=True)
class Recording:
    """A run as far as its log goes; an empty one is a run that begins.

    Args:
        turns: those that were begun, in order.
        cells: all that ran in the REPL, in order, a caller's own among them.
        loose: sub-calls that ended in a cell which did not.
        final: the final answer that was recorded after the last turn.
        ended_as: the status with which the run ended last; empty while it has not.
        inner: the runs inside it, by name.
        before: cells of earlier runs, whose REPL this one began with.
        is_repl_live: whether the REPL still holds what all those cells did.
    """

    turns: Sequence[RecordedTurn] = ()
    cells: Sequence[RecordedCell] = ()
    loose: Sequence[RecordedCall] = ()
    final: FinalAnswer | None = None
    ended_as: str = ""
    inner: Mapping[str, Recording] = field(default_factory=dict[str, "Recording"])
    before: Sequence[RecordedCell] = ()
    is_repl_live: bool = False

    @property
    def repl_cells(self) -> Sequence[RecordedCell]:
        """The cells of the run's own REPL; of several attempts, the first one works in it."""
        first = self.inner.get(f"{ATTEMPT_NAME}1")
        return (*(first.cells if first else ()), *self.cells)

    @property
    def ended_calls(self) -> Iterator[str]:
        """The key of every sub-call that ended, as often as it did."""
        for cell in self.cells:
            yield from (call.key for call in cell.calls)
        yield from (call.key for call in self.loose)

    @property
    def is_answered(self) -> bool:
        """Whether nothing but the end of the run is missing."""
        return self.final is not None and self.final.status == "completed"

    @property
    def is_whole(self) -> bool:
        """Whether the log holds all messages to the model; logs of the first versions do not."""
        return all(turn.prompt_sha256 for turn in self.turns)

    @property
    def is_judged(self) -> bool:
        """Whether the last turn came to its end, so that the model must be asked to continue."""
        if not self.turns or self.turns[-1].reply is None:
            return False
        return self.final is not None or self.ended_as in {"exhausted", "failed"}


class PendingTurn:
    """The incomplete turn that a recording ends in, played once; empty for a run that begins."""

    def __init__(self, recording: Recording) -> None:
        is_open = bool(recording.turns) and not recording.is_judged
        self._turn = recording.turns[-1] if is_open else None
        self._cells: deque[RecordedCell] = deque()
        self.is_playing = False

    @property
    def is_mid_turn(self) -> bool:
        """Whether a recorded reply is still to be acted on, in a turn that was not the last."""
        turn = self._turn
        return turn is not None and turn.reply is not None and not turn.is_last_word

    @property
    def is_last_word(self) -> bool:
        """Whether the next turn was already asked for the best answer."""
        return self._turn is not None and self._turn.is_last_word

    def take_reply(self) -> ChatReply | None:
        """Return the reply that the model gave already, if it did."""
        turn, self._turn = self._turn, None
        self.is_playing = turn is not None and turn.reply is not None
        self._cells = deque(turn.cells if turn is not None and self.is_playing else ())
        return turn.reply if turn is not None else None

    def take_cell(self, code: str) -> RecordedCell | None:
        """Return what a cell of that reply did, where it was run already."""
        if not self._cells or self._cells[0].code != code:
            self._cells.clear()
            return None
        return self._cells.popleft()


def prompt_digest(messages: Iterable[Message]) -> str:
    """Digest a prompt, so that a rebuilt one can be compared with the one that was sent."""
    digest = hashlib.sha256()
    for message in messages:
        digest.update(f"{message['role']}\0{message['content']}\0".encode("utf-8", "replace"))
    return digest.hexdigest()


def cell_record(result: CellResult, shown: str) -> CodeExecuted:
    """Write down what came of a cell: all that anything follows from, and its output as shown."""
    error, final = result.error, result.final
    return CodeExecuted(
        output=shown,
        printed=result.output[:MAX_PRINTED_CHARS],
        output_chars=result.output_chars,
        error=error.traceback if error else None,
        raised=Raised(error.type, error.message, error.line) if error else None,
        final=FinalValue(final.text, final.type, final.json) if final else None,
        elapsed_seconds=round(result.elapsed_seconds, 3),
        timed_out=result.timed_out,
        lost_variables=result.lost_variables,
        cited=tuple(Cited(*astuple(one)) for one in result.citations) or None,
    )


def read_recording(events: Iterable[LoggedEvent], depth: int = 0) -> Recording:
    """Read a log, from its first event."""
    reader = _Reader()
    inner: defaultdict[str, list[LoggedEvent]] = defaultdict(list)
    for event in events:
        path = inner_path(event.detail)
        if event.depth == depth:
            reader.read(event.iteration, read_detail(event))
        elif len(path) > depth:
            inner[path[depth]].append(event)
    runs = {name: read_recording(its_events, depth + 1) for name, its_events in inner.items()}
    return reader.recording(runs)


class _Reader:
    """Reads the events of one run, without those of the runs inside it."""

    def __init__(self) -> None:
        self._turns: list[RecordedTurn] = []
        self._cells: list[RecordedCell] = []
        self._calls: list[RecordedCall] = []
        self._code = ""
        self._final: FinalAnswer | None = None
        self._ended_as = ""

    def read(self, iteration: int, detail: EventDetail) -> None:
        match detail:
            case IterationStart():
                self._begin_turn(iteration, detail)
            case CodeGenerated():
                self._calls.clear()
                self._code = detail.code
                if detail.reply is not None and self._turns:
                    self._turns[-1].reply = _reply(detail, detail.reply)
            case CodeExecuted():
                self._end_cell(iteration, detail)
            case SubCallsFinished():
                self._calls += (_call(item) for item in detail.items if not item.cut_off)
            case RunWarning(change=Change() as change) if self._turns:
                turn = self._turns[-1]
                turn.changes.append(change)
                turn.is_direct = turn.is_direct if detail.direct is None else detail.direct
            case FinalAnswer():
                self._final = detail
            case RunFinished():
                # The first of several: a run may be resumed and end before its next turn.
                self._ended_as = self._ended_as or detail.status
            case _:
                pass

    def recording(self, inner: Mapping[str, Recording]) -> Recording:
        return Recording(
            tuple(self._turns),
            tuple(self._cells),
            tuple(self._calls),
            self._final,
            self._ended_as,
            inner,
        )

    def _begin_turn(self, iteration: int, detail: IterationStart) -> None:
        self._final, self._ended_as = None, ""
        self._calls.clear()
        turn = RecordedTurn(
            iteration=iteration,
            changes=[detail.change],
            prompt_sha256=detail.prompt_sha256,
            is_direct=detail.direct,
            is_last_word=detail.last_word,
            standing=detail.standing,
        )
        self._turns.append(turn)

    def _end_cell(self, iteration: int, detail: CodeExecuted) -> None:
        is_callers = detail.by == "caller"
        cell = RecordedCell(
            code=self._code if detail.code is None else detail.code,
            shown=detail.output,
            result=_result(detail),
            iteration=iteration,
            calls=tuple(self._calls),
            balances=detail.balances,
            is_callers=is_callers,
        )
        self._calls.clear()
        self._cells.append(cell)
        if self._turns and not is_callers:
            self._turns[-1].cells.append(cell)


def _reply(detail: CodeGenerated, text: str) -> ChatReply:
    return ChatReply(
        text,
        detail.finish_reason or "",
        detail.input_tokens or 0,
        detail.output_tokens or 0,
        detail.usage_estimated or False,
        detail.reasoning or "",
    )


def _call(item: SubCall) -> RecordedCall:
    is_whole = len(item.reply) == item.reply_chars
    return RecordedCall(item.key, item.reply if is_whole else None, item.error)


def _result(detail: CodeExecuted) -> CellResult:
    """A cell's result as far as anything follows from it; its output is kept as it was shown."""
    raised, final = detail.raised, detail.final
    is_short = detail.output_chars <= MAX_PRINTED_CHARS
    traceback = detail.error or ""
    return CellResult(
        output=detail.printed if is_short else detail.output,
        output_chars=detail.output_chars,
        elapsed_seconds=detail.elapsed_seconds,
        error=CellError(raised.type, raised.message, traceback, raised.line) if raised else None,
        final=Final(final.text, final.type, final.json) if final else None,
        timed_out=detail.timed_out,
        lost_variables=detail.lost_variables,
        citations=tuple(Citation(*astuple(one)) for one in detail.cited or ()),
    )
