"""A run in Chrome's trace format, which Perfetto and chrome://tracing open."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rlm_mcp.events import inner_path
from rlm_mcp.events.drawn import MAX_TEXT_CHARS
from rlm_mcp.store.runs.records import Event

MODEL_ROW, CODE_ROW, INNER_ROW, CALLS_ROW = 1, 2, 100, 1000
_PROCESS = 1
_MICROSECONDS = 1_000_000


async def trace_pieces(pages: AsyncGenerator[Sequence[Event]]) -> AsyncGenerator[str]:
    """Yield the JSON of a trace, piece by piece."""
    trace = _Trace()
    yield '{"displayTimeUnit":"ms","traceEvents":['
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
    batches: dict[int, float] = field(default_factory=dict[int, float])


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
        now, detail = at - self._start, event.detail
        level = self._level(event)
        match event.type:
            case "iteration_start":
                level.turn_began = now
            case "code_generated":
                yield from self._turn(event, level, now)
                level.code_began = now if detail.get("code") else None
            case "code_executed":
                yield from self._code(event, level, now)
            case "sub_calls_started":
                level.batches[detail.get("batch", 0)] = now
            case "sub_calls_finished":
                yield from self._calls(detail, level)
            case _:
                pass

    def _level(self, event: Event) -> _Level:
        key = "/".join(inner_path(event.detail))
        if key not in self._levels:
            row = MODEL_ROW if event.depth == 0 else INNER_ROW + 2 * len(self._levels)
            self._levels[key] = _Level(row)
        return self._levels[key]

    def _turn(self, event: Event, level: _Level, now: float) -> Iterator[dict[str, Any]]:
        began, level.turn_began = level.turn_began, None
        if began is None:
            return
        yield from self._row(level.row, "model" if event.depth == 0 else "inner run: model")
        kept = ("input_tokens", "output_tokens", "first_token_seconds", "retries")
        args = {key: event.detail[key] for key in kept if key in event.detail}
        yield _span(f"turn {event.iteration}", "model", (began, now), level.row, args)

    def _code(self, event: Event, level: _Level, now: float) -> Iterator[dict[str, Any]]:
        wall = event.detail.get("wall_seconds")
        began = now - wall if wall is not None else level.code_began
        level.code_began = None
        if began is None:
            return
        row = level.row + 1
        yield from self._row(row, "code" if event.depth == 0 else "inner run: code")
        name = "error" if event.detail.get("error") else "code"
        yield _span(name, "code", (max(0.0, began), now), row, {})

    def _calls(self, detail: Mapping[str, Any], level: _Level) -> Iterator[dict[str, Any]]:
        """Calls with their times; those of old logs have none and are left out."""
        start = level.batches.get(detail.get("batch", 0))
        for item in detail.get("items", ()):
            if start is None or "ended" not in item:
                continue
            row = CALLS_ROW + item["slot"]
            yield from self._row(row, f"sub-calls {item['slot'] + 1}")
            args = {
                "prompt": item["prompt"][:MAX_TEXT_CHARS],
                "input_tokens": item["input_tokens"],
                "output_tokens": item["output_tokens"],
                "cached": item["cached"],
                "queued_seconds": item.get("queued", 0),
                "error": item["error"],
            }
            times = (start + item["began"], start + item["ended"])
            yield _span(item.get("name", "llm_query"), "sub-call", times, row, args)

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
