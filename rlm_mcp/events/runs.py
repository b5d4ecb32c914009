"""How a run starts and ends, and what it reports on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from rlm_mcp.events.event import Change, EventDetail, EventType, LeftOut, Record

FORMAT_VERSION = 1
ATTEMPT_NAME = "attempt."
"""What the name of an attempt in the log begins with; its number follows."""


@dataclass(frozen=True)
class RunStarted(EventDetail):
    """A run begins or continues: a resumed run has one such event for each start.

    So has an inner run, with its question alone and its place in the run around it.

    Args:
        version: of the format of the events that follow.
        question: what is asked; a run of rlm_exec has none.
        contexts: handles of the texts.
        options: every option of the run.
        isolation: what stands between model code and the host.
        resumed: the status that the run had before it continued.
        documents: how many; this and the next two are written by the library, which has no handles.
        chars: of all documents.
        models: names of root and sub model.
        batch: of an inner run: the batch of the call that began it.
        n: of an inner run: the place of that call in the batch.
        attempt: of one of several attempts, which are logged as inner runs: its number, from 1.
    """

    type: ClassVar[EventType] = "run_started"

    version: int = 0
    question: LeftOut[str] = None
    contexts: LeftOut[tuple[str, ...]] = None
    options: LeftOut[Mapping[str, Any]] = None
    isolation: LeftOut[Mapping[str, Any]] = None
    resumed: LeftOut[str] = None
    documents: LeftOut[int] = None
    chars: LeftOut[int] = None
    models: LeftOut[tuple[str, ...]] = None
    batch: LeftOut[int] = None
    n: LeftOut[int] = None
    attempt: LeftOut[int] = None


@dataclass(frozen=True)
class RunWarning(EventDetail):
    """Something that a reader of the run should know; only what applies is there.

    Args:
        change: of the conversation, when it was shortened.
        direct: whether the first message still holds the whole text.
        summed_up: the last of the turns that gave way to a summary.
        kept: how many turns stayed whole.
        differing_turns: turns whose code did not do the same when it ran again.
        code: of the error that was worked around.
        limit: of the budget that was reached.
    """

    type: ClassVar[EventType] = "warning"

    change: LeftOut[Change] = None
    direct: LeftOut[bool] = None
    summed_up: LeftOut[int] = None
    kept: LeftOut[int] = None
    differing_turns: LeftOut[tuple[int, ...]] = None
    code: LeftOut[str] = None
    limit: LeftOut[str] = None


@dataclass(frozen=True)
class CheckedCitation(Record):
    """A passage that supports the answer, and whether it was found in the text.

    Args:
        quote: its words, as they were cited.
        verified: whether the text holds them.
        how: "exact", "normalised" (white space, marks, case or ligatures differ, or an ellipsis
            stands for words), "not found", or "not looked for" where the time was up.
        cited: whether the run cited it; otherwise it is a quotation in the answer.
        handle: of the text; this and the following say where it was found, else they are null.
        document: its number within that text.
        name: of the document.
        start: its first character in the document.
        end: the character after it.
        page: the label of the page, sheet or slide.
    """

    quote: str = ""
    verified: bool = False
    how: str = ""
    cited: bool = True
    handle: str | None = None
    document: int | None = None
    name: str | None = None
    start: int | None = None
    end: int | None = None
    page: str | None = None


@dataclass(frozen=True)
class Support(Record):
    """How the answer came about.

    Args:
        origin: "output": code gave it, or it was given after output was seen; "guess": before;
            "direct": read from a text that was shown whole; "best_effort": asked for at the end
            of a budget.
        citations: how many passages were cited or quoted.
        verified: how many of them stand in the text.
        agreement: how many of several attempts agree, as in "2 of 3".
    """

    origin: str = ""
    citations: int = 0
    verified: int = 0
    agreement: str | None = None


@dataclass(frozen=True)
class FinalAnswer(EventDetail):
    """The run has an answer. `data` is it as JSON, `origin` says where it was taken from.

    `citations` are the passages behind it, `support` says how it came about.
    """

    type: ClassVar[EventType] = "final_answer"

    answer: str = ""
    data: Any = None
    origin: str | None = None
    status: str = ""
    direct: bool = False
    citations: LeftOut[tuple[CheckedCitation, ...]] = None
    support: LeftOut[Support] = None


@dataclass(frozen=True)
class RunFinished(EventDetail):
    """The run ended; `error` is `{code, message, retryable, fix}`.

    Version 0.1.0 wrote no status at the end of rlm_exec's runs, which had completed. `answer` is
    written by the library; a stored run has its answer in its row. `usage_by_model` has
    `{model, calls, input_tokens, cached_input_tokens, output_tokens, cost_usd, cost_is}` for each
    model that answered, earlier stretches of the run included.
    """

    type: ClassVar[EventType] = "run_finished"

    status: str = "completed"
    error: Mapping[str, Any] | None = None
    answer: LeftOut[str] = None
    usage_by_model: LeftOut[tuple[Mapping[str, Any], ...]] = None
