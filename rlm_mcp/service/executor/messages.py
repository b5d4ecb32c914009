"""What crosses between the server and its workers: plain frozen values that can be pickled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlm_mcp import errors
from rlm_mcp.errors import RLMError, StoreError

if TYPE_CHECKING:
    from rlm_mcp.engine.pricing import Pricing
    from rlm_mcp.sandbox.types import ContextSource, Isolation, ReplCall, ReplOptions
    from rlm_mcp.service.runs.execution import RunSpec
    from rlm_mcp.store.runs.records import NewEvent, Outcome, SavedVariable
    from rlm_mcp.values import Usage


Place = tuple[str, int]
"""Names a REPL that a worker holds: the run that it was opened for and the attempt, or a number."""


@dataclass(frozen=True)
class TextLabel:
    """All that is told of a text but the text itself; names are those of `ContextSource`."""

    key: str
    names: Sequence[str]
    byte_lengths: Sequence[int]
    char_lengths: Sequence[int]
    is_list: bool
    prefix: str

    @classmethod
    def of(cls, source: ContextSource) -> TextLabel:
        """Describe a text."""
        return cls(
            source.key,
            source.names,
            source.byte_lengths,
            source.char_lengths,
            source.is_list,
            source.prefix,
        )


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run for a worker to work on, with what was spent on it before.

    `repl` is the REPL that the worker holds of it, if any. No key of a model is in it: Ray keeps
    arguments of actors where others can read them.
    """

    spec: RunSpec
    caller: str
    text: TextLabel
    pricing: Pricing
    spent: Usage
    spent_seconds: float = 0.0
    repl: Place | None = None


@dataclass(frozen=True, kw_only=True)
class WantedRepl:
    """A REPL for a worker to open, and the saved variables that it begins with."""

    caller: str
    text: TextLabel
    handles: Sequence[str]
    options: ReplOptions
    variables: Sequence[SavedVariable]


@dataclass(frozen=True)
class Lines:
    """Lines for the log of a run; answered with what its caller has used today, once they last.

    `is_awaited`: the worker waits for that. It learns of no other lines that they were refused, so
    none may follow them then.
    """

    events: Sequence[NewEvent]
    is_awaited: bool = True


@dataclass(frozen=True)
class Earlier:
    """Asks for the record of another run of the same caller."""

    run_id: str


@dataclass(frozen=True)
class FindReplies:
    """Asks for the replies that are kept under these keys."""

    keys: Sequence[str]


@dataclass(frozen=True)
class KeepReplies:
    """Replies to keep, by key."""

    texts: Mapping[str, str]


@dataclass(frozen=True)
class TextPart:
    """Asks for the chunks of the text that begin in a range of bytes, each after its place."""

    start: int
    end: int


@dataclass(frozen=True)
class Passage:
    """Asks for some characters of a document."""

    document: int
    start: int
    end: int


@dataclass(frozen=True)
class PlaceOfPassage:
    """Asks for handle, number, name and page of a character of a document."""

    document: int
    start: int


@dataclass(frozen=True)
class Piece:
    """A piece of what the root model writes at this moment."""

    text: str


@dataclass(frozen=True)
class Ended:
    """How a worker's part of a run ended, what it used, and what its REPL held.

    `holds_repl`: the worker holds the REPL for cells of the caller.
    """

    outcome: Outcome
    usage: Usage
    variables: Sequence[SavedVariable] | None
    holds_repl: bool = False


@dataclass(frozen=True)
class Crowded:
    """A provider refused a call: it is to be left alone by all workers; of no run.

    `table` names its model's table; empty for the default endpoint.
    """

    table: str
    seconds: float


@dataclass(frozen=True)
class Demand:
    """Model calls of a worker: those under way, and those that wait for their turn."""

    under_way: int
    waiting: int


@dataclass(frozen=True)
class CellCall:
    """A call that a cell of the caller makes: the server answers it."""

    call: ReplCall


@dataclass(frozen=True)
class ReplGone:
    """Says that the worker holds a REPL no longer."""


TextQuestion = TextPart | Passage | PlaceOfPassage
Question = (
    Lines | Earlier | FindReplies | KeepReplies | TextQuestion | Piece | Ended | CellCall | ReplGone
)


NOBODY = 0
"""Numbers what is told: nobody waits for an answer."""


@dataclass(frozen=True, eq=False)
class Ask:
    """One question of a worker, asked for an attempt at a run, or for a REPL by its `Place`.

    Something to tell all workers is asked for neither. What is only told is numbered `NOBODY`.
    """

    number: int
    run_id: str
    attempt: int
    question: Question | Crowded


@dataclass(frozen=True)
class Refused:
    """An error of ours as a value: exceptions with keyword arguments do not survive pickling."""

    kind: str
    message: str
    fix: str = ""

    @classmethod
    def of(cls, error: RLMError) -> Refused:
        """Describe an error."""
        return cls(type(error).__name__, error.message, error.fix)

    def as_error(self) -> RLMError:
        """Make the error again; one that takes more than a message becomes a `StoreError`."""
        kind = getattr(errors, self.kind, StoreError)
        try:
            return kind(self.message, fix=self.fix)
        except TypeError:
            return StoreError(self.message, fix=self.fix)


@dataclass(frozen=True)
class Answer:
    """The answer to one `Ask`: a value, or an error in `value` as `Refused`."""

    number: int
    value: Any = None


def given(value: Any) -> Any:
    """Return what was answered.

    Raises:
        RLMError: it was refused.
    """
    if isinstance(value, Refused):
        raise value.as_error()
    return value


@dataclass(frozen=True)
class WorkerStatus:
    """A worker as it describes itself."""

    version: str
    python: str
    pid: int
    places: int
    isolation: Isolation
