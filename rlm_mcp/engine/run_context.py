"""What a run works with, handed in by whoever starts it, and how it reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import anyio

from rlm_mcp.engine.budget import Budget
from rlm_mcp.engine.cache import SubCallCache
from rlm_mcp.engine.config import RLMConfig
from rlm_mcp.engine.models.chat import ChatModel, ChatReply, OnDelta, describe_cut_prompt
from rlm_mcp.engine.recording import Recording
from rlm_mcp.engine.telemetry import find_tracer
from rlm_mcp.engine.types import RLMResponse
from rlm_mcp.events import EventDetail, EventType, RunWarning
from rlm_mcp.sandbox.types import ReplOptions, Sandbox
from rlm_mcp.values import NO_USAGE, Usage

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer


MAX_CALL_WINDOW = 1024


@dataclass(frozen=True)
class RLMEvent:
    """One line of a run's log.

    Args:
        type: what happened.
        iteration: the root's turn, from 1; 0 before the first.
        preview: one short line for people.
        detail: everything, by type; JSON-like.
        depth: 0 for the run itself, more for runs inside it.
        usage: the figures after this event.
        response: the outcome, in the last event that `astream_generate` yields.
    """

    type: EventType
    iteration: int
    preview: str
    detail: Mapping[str, Any] = field(default_factory=dict[str, Any])
    depth: int = 0
    usage: Usage = NO_USAGE
    response: RLMResponse | None = None

    @classmethod
    def of(
        cls,
        detail: EventDetail,
        iteration: int,
        preview: str,
        *,
        depth: int = 0,
        usage: Usage = NO_USAGE,
    ) -> RLMEvent:
        """Make the event that a detail belongs to."""
        return cls(detail.type, iteration, preview, detail.to_detail(), depth, usage)


class EventSink(Protocol):
    """Takes events in order; those that come together are kept together."""

    async def __call__(self, *events: RLMEvent) -> None:
        """Take events, all of which are kept once this returns."""
        ...


def _always() -> bool:
    return True


def _nowhere(_name: str) -> str:
    return ""


@dataclass(frozen=True)
class Engine:
    """What one run needs.

    Args:
        root: writes the code.
        sub: answers `llm_query`, and is the root of inner runs.
        sandbox: where inner runs get their REPLs.
        config: limits and options.
        budget: shared by the whole tree of the run.
        emit: called with every event, in order.
        cache: replies to sub-calls that need not be asked again.
        model_names: names that `llm_query(model=…)` may ask for; the last is the one asked
            without a name. Empty: no other model may be asked.
        answer_schema: JSON Schema that the answer must fit.
        on_root_delta: awaited with pieces of the root's replies as they arrive.
        hears_root: says before each turn whether such pieces are wanted of it.
        depth: 0 for the run itself, more for runs inside it.
        attempt: which of several attempts this run is, from 1; 0 where there is one alone.
        recording: the run as far as its log goes, where it is resumed.
        before: what the first message says of earlier questions over the same REPL.
        place_of: says where the model of a name answers, which tells apart those that have one name
            at several places; empty where models have none.
        lists_variables: whether the response holds the variables, for which the REPL is asked.
        tracer: takes spans; by default the one that the process was set up with, if any.
    """

    root: ChatModel
    sub: ChatModel
    sandbox: Sandbox
    config: RLMConfig
    budget: Budget
    emit: EventSink
    cache: SubCallCache | None = None
    model_names: tuple[str, ...] = ()
    answer_schema: Mapping[str, Any] | None = None
    on_root_delta: OnDelta | None = None
    hears_root: Callable[[], bool] = _always
    depth: int = 0
    attempt: int = 0
    recording: Recording = field(default_factory=Recording)
    before: str = ""
    place_of: Callable[[str], str] = _nowhere
    lists_variables: bool = True
    tracer: Tracer | None = field(default_factory=find_tracer)

    @property
    def root_name(self) -> str:
        """Name of the model that writes the code; empty where models have none."""
        return self.model_names[0 if self.depth == 0 else -1] if self.model_names else ""

    @property
    def sub_name(self) -> str:
        """Name of the model that answers sub-calls; empty where models have none."""
        return self.model_names[-1] if self.model_names else ""

    @property
    def can_recurse(self) -> bool:
        """Whether a run inside this one is allowed."""
        return self.config.enable_sub_calls and self.depth + 1 < self.config.max_recursion_depth


class RunLog:
    """Emits the events of one run, each with its turn and with the figures after it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.turn = 0
        self._has_warned_of_cut = False
        self._held: tuple[RLMEvent, ...] = ()  # it goes with the next one

    async def warn_of_cut_prompt(self, reply: ChatReply, prompt_chars: int) -> None:
        """Emit a warning, once, if the provider read only a part of a prompt."""
        if reply.is_prompt_cut and not self._has_warned_of_cut:
            self._has_warned_of_cut = True
            await self.emit(RunWarning(), describe_cut_prompt(reply, prompt_chars))

    async def emit(self, detail: EventDetail, line: str, *, is_followed: bool = False) -> None:
        """Emit one event; `line` is its preview.

        Args:
            is_followed: nothing is awaited until the next event or `end`, with which it is kept:
                one write in place of two.
        """
        engine = self.engine
        usage = engine.budget.snapshot()
        event = RLMEvent.of(detail, self.turn, line, depth=engine.depth, usage=usage)
        held, self._held = self._held, ()
        if is_followed:
            self._held = (*held, event)
        elif held:
            with anyio.CancelScope(shield=True):  # a run whose time is over goes on with its log
                await engine.emit(*held, event)
        else:
            await engine.emit(event)

    async def end(self) -> None:
        """Emit what no other event has followed."""
        held, self._held = self._held, ()
        if held:
            await self.engine.emit(*held)


def repl_options(config: RLMConfig, *, seed: int | None = None) -> ReplOptions:
    """Make the options of a run's REPL; `rlm_query` falls back to `llm_query` at the last level."""
    return ReplOptions(
        sub_calls=config.enable_sub_calls,
        recursion=config.enable_sub_calls and config.max_recursion_depth > 1,
        # Half of them in flight, half ready for when one is answered.
        call_window=min(2 * config.max_concurrent_calls, MAX_CALL_WINDOW),
        seed=seed,
        # What is asked of a weak model often stands beside the line that its words find.
        search_around=2 if config.prompt_variant == "small_context" else 0,
    )
