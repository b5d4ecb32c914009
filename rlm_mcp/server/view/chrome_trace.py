"""A run in Chrome's trace format, which Perfetto and chrome://tracing open."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rlm_mcp.events import (
    CodeExecuted,
    CodeGenerated,
    IterationStart,
    SubCallsFinished,
    SubCallsStarted,
    inner_path,
    read_detail,
)
from rlm_mcp.events.drawn import MAX_TEXT_CHARS
from rlm_mcp.store.runs.records import Event

# The row below that of a run's model is the one of its code.
MODEL_ROW, INNER_ROW, CALLS_ROW = 1, 100, 1000
_PROCESS = 1
_MICROSECONDS = 1_000_000


async def trace_pieces(
    pages: AsyncGenerator[Sequence[Event]], left_out: str | None = None
) -> AsyncGenerator[str]:
    """Yield the JSON of a trace, piece by piece; it begins with what is left out of it."""
    trace = _Trace()
    told = f'"otherData":{json.dumps({"left_out": left_out})},' if left_out else ""
    yield f'{{"displayTimeUnit":"ms",{told}"traceEvents":['
    yield json.dumps(_name("process_name", 0, "rlm-mcp run"))
    async for events in pages:
        for event in events:
            for entry in trace.read(event):
                yield "," + json.dumps(entry)
    yield "]}"


@dataclass
class _Level:
    """One run: the one that is asked about, or one inside it."""

    row: int
    turn_began: float | None = None
    code_began: float | None = None
    batches: dict[int, tuple[float, str]] = field(default_factory=dict[int, tuple[float, str]])


class _Trace:
    """Reads a log from its first event."""

    def __init__(self) -> None:
        self._start: float | None = None
        self._levels: dict[str, _Level] = {}
        self._named: set[int] = set()

    def read(self, event: Event) -> Iterator[dict[str, Any]]:
        """Yield what one event adds."""
        at = datetime.fromisoformat(event.at).timestamp()
        self._start = at if self._start is None else self._start
        now, level = at - self._start, self._level(event)
        match read_detail(event):
            case IterationStart():
                level.turn_began = now
            case CodeGenerated() as generated:
                yield from self._turn(event, generated, level, now)
                level.code_began = now if generated.code else None
            case CodeExecuted() as executed:
                yield from self._code(event, executed, level, now)
            case SubCallsStarted(batch=batch, name=name):
                level.batches[batch or 0] = now, name
            case SubCallsFinished() as finished:
                yield from self._calls(finished, level)
            case _:
                pass

    def _level(self, event: Event) -> _Level:
        key = "/".join(inner_path(event.detail))
        if key not in self._levels:
            row = MODEL_ROW if event.depth == 0 else INNER_ROW + 2 * len(self._levels)
            self._levels[key] = _Level(row)
        return self._levels[key]

    def _turn(
        self, event: Event, generated: CodeGenerated, level: _Level, now: float
    ) -> Iterator[dict[str, Any]]:
        began, level.turn_began = level.turn_began, None
        if began is None:
            return
        yield from self._row(level.row, "model" if event.depth == 0 else "inner run: model")
        args = {
            "input_tokens": generated.input_tokens,
            "output_tokens": generated.output_tokens,
            "first_token_seconds": generated.first_token_seconds,
            "retries": generated.retries,
        }
        args = {key: value for key, value in args.items() if value is not None}
        yield _span(f"turn {event.iteration}", "model", (began, now), level.row, args)

    def _code(
        self, event: Event, executed: CodeExecuted, level: _Level, now: float
    ) -> Iterator[dict[str, Any]]:
        wall = executed.wall_seconds
        began = now - wall if wall is not None else level.code_began
        level.code_began = None
        if began is None:
            return
        row = level.row + 1
        yield from self._row(row, "code" if event.depth == 0 else "inner run: code")
        name = "error" if executed.error else "code"
        yield _span(name, "code", (max(0.0, began), now), row, {})

    def _calls(self, finished: SubCallsFinished, level: _Level) -> Iterator[dict[str, Any]]:
        """Calls with their times; those of old logs have none and are left out."""
        started = level.batches.get(finished.batch or 0)
        for call in finished.items:
            if started is None or call.began is None or call.ended is None:
                continue
            start, name = started
            slot = call.slot or 0
            yield from self._row(CALLS_ROW + slot, f"sub-calls {slot + 1}")
            args = {
                "prompt": call.prompt[:MAX_TEXT_CHARS],
                "input_tokens": call.input_tokens,
                "output_tokens": call.output_tokens,
                "cached": call.cached,
                "queued_seconds": call.queued or 0,
                "error": call.error,
            }
            times = (start + call.began, start + call.ended)
            yield _span(name, "sub-call", times, CALLS_ROW + slot, args)

    def _row(self, row: int, name: str) -> Iterator[dict[str, Any]]:
        if row not in self._named:
            self._named.add(row)
            yield _name("thread_name", row, name)
            yield {**_name("thread_sort_index", row, ""), "args": {"sort_index": row}}


def _span(
    name: str, category: str, times: tuple[float, float], row: int, args: Mapping[str, Any]
) -> dict[str, Any]:
    began, ended = times
    return {
        "name": name,
        "cat": category,
        "ph": "X",
        "ts": round(began * _MICROSECONDS),
        "dur": max(1, round((ended - began) * _MICROSECONDS)),
        "pid": _PROCESS,
        "tid": row,
        "args": args,
    }


def _name(kind: str, row: int, name: str) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": _PROCESS, "tid": row, "args": {"name": name}}
