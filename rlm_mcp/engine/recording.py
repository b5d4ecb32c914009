"""What a run's log holds of its work, so that the run can be taken up where the log ends."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from rlm_mcp.engine.models.chat import ChatReply, Message
from rlm_mcp.sandbox.types import CellError, CellResult, Final

MAX_PRINTED_CHARS = 200  # more is known as it was shown

INNER = "inner"
"""Names, in an event's detail, the inner run that it belongs to: keys by level, with `/`."""


class LoggedEvent(Protocol):
    """One line of a log, as the engine tells it and as the store gives it back."""

    @property
    def type(self) -> str:
        """What happened."""
        ...

    @property
    def iteration(self) -> int:
        """The root's turn, from 1."""
        ...

    @property
    def depth(self) -> int:
        """0 for the run itself."""
        ...

    @property
    def detail(self) -> Mapping[str, Any]:
        """Everything, by type."""
        ...


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


@dataclass(frozen=True)
class Standing:
    """What a run remembers between turns besides its conversation."""

    fruitless: int = 0
    repairs: int = 0
    doubts: int = 0
    restarts: int = 0
    has_started_over: bool = False
    is_urged: bool = False
    guess: str | None = None


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
    standing: Standing
    reply: ChatReply | None = None
    changes: list[Mapping[str, Any]] = field(default_factory=list[Mapping[str, Any]])
    cells: list[RecordedCell] = field(default_factory=list[RecordedCell])


@dataclass(frozen=True)
class Recording:
    """A run as far as its log goes; an empty one is a run that begins.

    Args:
        turns: those that were begun, in order.
        cells: all that ran in the REPL, in order, a caller's own among them.
        loose: sub-calls that ended in a cell which did not.
        final: the detail of a final answer that was recorded after the last turn.
        ended_as: the status with which the run ended last; empty while it has not.
        inner: the runs inside it, by name.
        before: cells of earlier runs, whose REPL this one began with.
        is_repl_live: whether the REPL still holds what all those cells did.
    """

    turns: Sequence[RecordedTurn] = ()
    cells: Sequence[RecordedCell] = ()
    loose: Sequence[RecordedCall] = ()
    final: Mapping[str, Any] | None = None
    ended_as: str = ""
    inner: Mapping[str, Recording] = field(default_factory=dict[str, "Recording"])
    before: Sequence[RecordedCell] = ()
    is_repl_live: bool = False

    @property
    def ended_calls(self) -> Iterator[str]:
        """The key of every sub-call that ended, as often as it did."""
        for cell in self.cells:
            yield from (call.key for call in cell.calls)
        yield from (call.key for call in self.loose)

    @property
    def is_answered(self) -> bool:
        """Whether nothing but the end of the run is missing."""
        return self.final is not None and self.final["status"] == "completed"

    @property
    def is_whole(self) -> bool:
        """Whether the log says all that was told; those of the first versions do not."""
        return all(turn.prompt_sha256 for turn in self.turns)

    @property
    def is_judged(self) -> bool:
        """Whether the last turn came to its end, so that the model must be told to go on."""
        if not self.turns or self.turns[-1].reply is None:
            return False
        return self.final is not None or self.ended_as in {"exhausted", "failed"}


def prompt_digest(messages: Iterable[Message]) -> str:
    """Digest a prompt, so that one that was rebuilt can be told from the one that was sent."""
    digest = hashlib.sha256()
    for message in messages:
        digest.update(f"{message['role']}\0{message['content']}\0".encode("utf-8", "replace"))
    return digest.hexdigest()


def cell_detail(result: CellResult, shown: str) -> dict[str, Any]:
    """Write down what came of a cell: all that anything follows from, and its output as shown."""
    error = result.error
    return {
        "output": shown,
        "printed": result.output[:MAX_PRINTED_CHARS],
        "output_chars": result.output_chars,
        "error": error.traceback if error else None,
        "raised": (
            {"type": error.type, "message": error.message, "line": error.line} if error else None
        ),
        "final": asdict(result.final) if result.final else None,
        "elapsed_seconds": round(result.elapsed_seconds, 3),
        "timed_out": result.timed_out,
        "lost_variables": result.lost_variables,
    }


def read_recording(events: Iterable[LoggedEvent], depth: int = 0) -> Recording:
    """Read a log, from its first event."""
    reader = _Reader()
    inner: defaultdict[str, list[LoggedEvent]] = defaultdict(list)
    for event in events:
        if event.depth == depth:
            reader.read(event)
        elif INNER in event.detail:
            inner[event.detail[INNER].split("/")[depth]].append(event)
    runs = {name: read_recording(its_events, depth + 1) for name, its_events in inner.items()}
    return reader.recording(runs)


class _Reader:
    """Reads the events of one run, without those of the runs inside it."""

    def __init__(self) -> None:
        self._turns: list[RecordedTurn] = []
        self._cells: list[RecordedCell] = []
        self._calls: list[RecordedCall] = []
        self._code = ""
        self._final: Mapping[str, Any] | None = None
        self._ended_as = ""

    def read(self, event: LoggedEvent) -> None:
        detail = event.detail
        match event.type:
            case "iteration_start":
                self._begin_turn(event)
            case "code_generated":
                self._calls.clear()
                self._code = detail["code"]
                if "reply" in detail and self._turns:
                    self._turns[-1].reply = _reply(detail)
            case "code_executed":
                self._end_cell(event)
            case "sub_calls_finished":
                self._calls += map(_call, detail["items"])
            case "warning" if "change" in detail and self._turns:
                self._turns[-1].changes.append(detail["change"])
                self._turns[-1].is_direct = detail.get("direct", self._turns[-1].is_direct)
            case "final_answer":
                self._final = detail
            case "run_finished":
                # The first of several: a run may be taken up and end before its next turn.
                # Version 0.1.0 wrote no status at the end of a run of rlm_exec.
                self._ended_as = self._ended_as or detail.get("status", "completed")
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

    def _begin_turn(self, event: LoggedEvent) -> None:
        detail = event.detail
        self._final, self._ended_as = None, ""
        self._calls.clear()
        turn = RecordedTurn(
            iteration=event.iteration,
            changes=[detail.get("change", {})],
            prompt_sha256=detail.get("prompt_sha256", ""),
            is_direct=detail["direct"],
            is_last_word=detail.get("last_word", False),
            standing=Standing(**detail.get("standing", {})),
        )
        self._turns.append(turn)

    def _end_cell(self, event: LoggedEvent) -> None:
        detail = event.detail
        is_callers = detail.get("by") == "caller"
        cell = RecordedCell(
            code=detail.get("code", self._code),
            shown=detail["output"],
            result=_result(detail),
            iteration=event.iteration,
            calls=tuple(self._calls),
            balances=tuple(detail.get("balances", ())),
            is_callers=is_callers,
        )
        self._calls.clear()
        self._cells.append(cell)
        if self._turns and not is_callers:
            self._turns[-1].cells.append(cell)


def _reply(detail: Mapping[str, Any]) -> ChatReply:
    return ChatReply(
        detail["reply"],
        detail["finish_reason"],
        detail["input_tokens"],
        detail["output_tokens"],
        detail["usage_estimated"],
        detail["reasoning"],
    )


def _call(item: Mapping[str, Any]) -> RecordedCall:
    is_whole = len(item["reply"]) == item["reply_chars"]
    return RecordedCall(item.get("key", ""), item["reply"] if is_whole else None, item["error"])


def _result(detail: Mapping[str, Any]) -> CellResult:
    """A cell's result as far as anything follows from it; its output is kept as it was shown."""
    raised, final = detail.get("raised"), detail.get("final")
    is_short = detail["output_chars"] <= MAX_PRINTED_CHARS
    error = CellError(**raised, traceback=detail["error"] or "") if raised else None
    return CellResult(
        output=detail.get("printed", "") if is_short else detail["output"],
        output_chars=detail["output_chars"],
        elapsed_seconds=detail["elapsed_seconds"],
        error=error,
        final=Final(**final) if final else None,
        timed_out=detail.get("timed_out", False),
        lost_variables=detail.get("lost_variables", False),
    )
