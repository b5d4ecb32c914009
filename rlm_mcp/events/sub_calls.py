"""Calls of models that code makes: one event when a batch starts, and some while its calls end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rlm_mcp.events.event import EventDetail, EventType, LeftOut, Record


@dataclass(frozen=True)
class SubCallsStarted(EventDetail):
    """Code calls a model.

    Args:
        calls: how many go out together.
        name: of the function that was called.
        model: that the code named; None for the run's own.
        batch: its number in this run, which the events of its calls name.
    """

    type: ClassVar[EventType] = "sub_calls_started"

    calls: int = 0
    name: str = ""
    model: str | None = None
    batch: LeftOut[int] = None


@dataclass(frozen=True)
class SubCall(Record):
    """One call that ended.

    Args:
        prompt: its beginning.
        prompt_chars: of the whole prompt and its documents.
        reply: its beginning.
        reply_chars: of the whole reply.
        error: why there is none.
        input_tokens: that were paid for.
        output_tokens: that were paid for.
        cached: whether the reply was on record already.
        key: digest of what was asked, of which model and how.
        n: how many calls of its batch began before it.
        slot: the lowest number that no other call under way in the whole tree of runs had.
        began: in seconds since the batch began.
        queued: seconds of it before it was sent to the model.
        ended: in seconds since the batch began.
        cut_off: it was cancelled, and is asked again when the run is resumed.
        model: that answered, where it is not the run's sub-model.
        cost_usd: what it cost, where that is known.
    """

    prompt: str = ""
    prompt_chars: int = 0
    reply: str = ""
    reply_chars: int = 0
    error: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cached: bool = False
    key: str = ""
    n: LeftOut[int] = None
    slot: LeftOut[int] = None
    began: LeftOut[float] = None
    queued: LeftOut[float] = None
    ended: LeftOut[float] = None
    cut_off: LeftOut[bool] = None
    model: LeftOut[str] = None
    cost_usd: LeftOut[float] = None


@dataclass(frozen=True)
class SubCallsFinished(EventDetail):
    """Calls of a batch ended: `items` are those since the last such event, `calls` their number.

    Args:
        calls: how many of them.
        finished: of the batch, so far.
        of: how many calls the batch has.
        failed: how many of `items`.
        cached: how many of `items`.
        input_tokens: of `items` together.
        output_tokens: of `items` together.
        cost_usd: of those `items` whose cost is known; None where none is.
        seconds: since the batch began.
        items: one for each call.
        batch: the number of the batch.
    """

    type: ClassVar[EventType] = "sub_calls_finished"

    calls: int = 0
    finished: int = 0
    of: int = 0
    failed: int = 0
    cached: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = None
    seconds: float = 0.0
    items: tuple[SubCall, ...] = ()
    batch: LeftOut[int] = None
