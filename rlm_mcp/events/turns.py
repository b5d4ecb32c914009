"""One turn of the root model: what it is sent, what it replies, what its code does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from rlm_mcp.events.event import NO_CHANGE, Change, EventDetail, EventType, LeftOut, Record
from rlm_mcp.events.runs import CheckedCitation


@dataclass(frozen=True)
class LoopState(Record):
    """What a run remembers between turns besides its conversation.

    Args:
        fruitless: turns in a row that held neither new code nor an answer.
        repairs: answers in a row that did not fit the schema.
        doubts: guesses that were questioned.
        restarts: how often the conversation was started over.
        has_started_over: the question is no longer in the conversation.
        is_urged: the model was asked to finish soon.
        guess: the best answer so far.
    """

    fruitless: int = 0
    repairs: int = 0
    doubts: int = 0
    restarts: int = 0
    has_started_over: bool = False
    is_urged: bool = False
    guess: str | None = None


@dataclass(frozen=True)
class IterationStart(EventDetail):
    """A turn is about to be sent to the root model.

    Args:
        of: the turns that the run may take.
        prompt_chars: of the whole prompt.
        prompt_sha256: of the whole prompt, by which one that was rebuilt is checked.
        change: of the conversation since the turn before.
        direct: whether the first message holds the whole text.
        last_word: whether the model is asked for its best answer, as the last turn.
        standing: what the run remembers, as of before the turn.
    """

    type: ClassVar[EventType] = "iteration_start"

    of: int = 0
    prompt_chars: int = 0
    prompt_sha256: str = ""
    change: Change = NO_CHANGE
    direct: bool = False
    last_word: bool = False
    standing: LoopState = LoopState()


@dataclass(frozen=True)
class CodeGenerated(EventDetail):
    """The root model replied. Code that a caller ran by rlm_exec has only `code`.

    `seconds` is how long the model was waited for, `first_token_seconds` how long for the first
    piece of a streamed reply; `retries` counts the requests that failed before. `model` is the name
    of the model that answered, `cost_usd` what the reply cost where that is known.
    """

    type: ClassVar[EventType] = "code_generated"

    code: str = ""
    reply: LeftOut[str] = None
    reasoning: LeftOut[str] = None
    finish_reason: LeftOut[str] = None
    input_tokens: LeftOut[int] = None
    output_tokens: LeftOut[int] = None
    usage_estimated: LeftOut[bool] = None
    seconds: LeftOut[float] = None
    first_token_seconds: LeftOut[float] = None
    retries: LeftOut[int] = None
    model: LeftOut[str] = None
    cached_input_tokens: LeftOut[int] = None
    cost_usd: LeftOut[float] = None


@dataclass(frozen=True)
class Raised(Record):
    """What model code raised; `line` is that of the cell."""

    type: str = ""
    message: str = ""
    line: int | None = None


@dataclass(frozen=True)
class FinalValue(Record):
    """A value that a cell gave as the answer: as text, and as JSON where it is JSON-like."""

    text: str = ""
    type: str = ""
    json: str | None = None


@dataclass(frozen=True)
class Cited(Record):
    """A passage that a cell cited, and where the REPL found it; `document` is null where not."""

    quote: str = ""
    document: int | None = None
    start: int = 0
    end: int = 0


@dataclass(frozen=True)
class CodeExecuted(EventDetail):
    """A cell ran.

    Args:
        code: None where it is that of the reply before, as the first logs had it.
        output: as it was shown to the model.
        printed: the beginning of what was printed.
        output_chars: of all that was printed.
        error: the traceback.
        raised: the error itself.
        final: the answer that the cell gave.
        elapsed_seconds: without the time that it waited for sub-calls.
        timed_out: it was stopped at its time limit.
        lost_variables: its REPL had to be replaced.
        balances: what `budget()` returned to it, in order.
        by: "caller" for a cell of rlm_exec.
        wall_seconds: with the time that it waited for sub-calls.
        cited: the passages that it cited, as the REPL says; not checked yet.
        citations: of a cell of rlm_exec: what it cited, and what its answer quotes, checked.
    """

    type: ClassVar[EventType] = "code_executed"

    code: LeftOut[str] = None
    output: str = ""
    printed: str = ""
    output_chars: int = 0
    error: str | None = None
    raised: Raised | None = None
    final: FinalValue | None = None
    elapsed_seconds: float = 0.0
    timed_out: bool = False
    lost_variables: bool = False
    balances: tuple[str, ...] = ()
    by: LeftOut[Literal["caller"]] = None
    wall_seconds: LeftOut[float] = None
    cited: LeftOut[tuple[Cited, ...]] = None
    citations: LeftOut[tuple[CheckedCitation, ...]] = None
