"""A run as one file: the page with the run in it, JSON, or a trace for Perfetto."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rlm_mcp.errors import RLMError
from rlm_mcp.events.drawn import without_texts
from rlm_mcp.server.sendable import sendable
from rlm_mcp.server.view.bundle import SCRIPT, STYLE, Bundle, inline_page, open_bundle
from rlm_mcp.server.view.chrome_trace import trace_pieces
from rlm_mcp.server.view.lines import line_view
from rlm_mcp.server.views import run_view, variable_view, variables_view
from rlm_mcp.store.runs.records import Event

if TYPE_CHECKING:
    from rlm_mcp.service.service import Service

FORMATS = {"html": "html", "json": "json", "trace": "trace.json"}
_KINDS = {"html": "text/html", "json": "application/json", "trace": "application/json"}
EVENTS_A_PIECE = 20
MAX_FULL_CHARS = 16_000_000  # of events; a browser holds a file of this size with ease
MAX_VALUES = 200
MAX_VALUE_CHARS = 20_000

LEFT_OUT = "(left out)"

Pieces = AsyncGenerator[str]


@dataclass(frozen=True)
class RunFile:
    """A file to be: its name, its kind, and its text piece by piece."""

    name: str
    media_type: str
    pieces: Pieces


async def run_file(
    service: Service, run_id: str, wanted: str, *, has_texts: bool = True
) -> RunFile:
    """Make a file of a run as it is now.

    Args:
        wanted: one of `FORMATS`.
        has_texts: with what came from texts and models; without it question, code, times, figures
            and the answer stay.

    Raises:
        NotFoundError: there is no such run.
    """
    await service.runs.state(run_id)
    if wanted == "trace":
        events = _events(service, run_id)
        told = _Counts(has_no_texts=not has_texts).told
        pieces = trace_pieces(events if has_texts else _without_texts(events), told)
    elif wanted == "json":
        pieces = _data(service, run_id, has_texts=has_texts)
    else:
        pieces = _html(service, run_id, has_texts=has_texts)
    return RunFile(f"{run_id}.{FORMATS[wanted]}", _KINDS[wanted], pieces)


async def _html(service: Service, run_id: str, *, has_texts: bool) -> Pieces:
    before, after = file_frame(await open_bundle())
    yield before
    async for piece in _data(service, run_id, has_texts=has_texts):
        # `<` begins whatever could end the element; in JSON it occurs only in strings.
        yield piece.replace("<", "\\u003c")
    yield after


def file_frame(bundle: Bundle) -> tuple[str, str]:
    """Return the parts of a saved page before its data, and after it."""
    policy = (
        f"default-src 'none'; script-src {bundle[SCRIPT].source}; "
        f"style-src {bundle[STYLE].source}; img-src data:; base-uri 'none'; form-action 'none'"
    )
    head = f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    before, after = inline_page("file", bundle, head)
    return f'{before}<script type="application/json" id="data">', f"</script>{after}"


async def _data(service: Service, run_id: str, *, has_texts: bool) -> Pieces:
    """Yield the JSON of a run: its state, its log, its variables and what is left out."""
    state = await service.runs.state(run_id)
    run = run_view(state).model_dump(mode="json")
    if not has_texts:
        run.pop("citations", None)  # which quote the texts
    run |= {"question": state.question, "contexts": state.contexts, "created_at": state.created_at}
    yield f'{{"run":{_json(run)},"events":['
    counts = _Counts()
    comma = ""
    async for events in _events(service, run_id):
        for event in events:
            yield comma + _json(_event(event, counts, has_texts=has_texts))
            comma = ","
    yield "]"
    async for piece in _variables(service, run_id, counts, has_texts=has_texts):
        yield piece
    yield f',"left_out":{_json(counts.told)}}}'


async def _events(service: Service, run_id: str) -> AsyncGenerator[Sequence[Event]]:
    after = 0
    while events := await service.runs.events(run_id, after, EVENTS_A_PIECE):
        yield events
        after = events[-1].seq


async def _without_texts(pages: AsyncGenerator[Sequence[Event]]) -> AsyncGenerator[Sequence[Event]]:
    async for events in pages:
        yield [replace(one, detail=without_texts(one.detail, LEFT_OUT)) for one in events]


@dataclass
class _Counts:
    """How much was written, and what was left out."""

    chars: int = 0
    short_events: int = 0
    cut_values: int = 0
    other_values: int = 0
    has_no_texts: bool = False

    @property
    def told(self) -> str | None:
        """One sentence for a reader; None where everything is there."""
        parts = [
            (self.has_no_texts, "prompts, replies, outputs and values, as was asked"),
            (self.short_events, f"the long texts of {_count(self.short_events, 'event')}"),
            (self.cut_values, f"the ends of {_count(self.cut_values, 'variable')}"),
            (self.other_values, f"the values of {_count(self.other_values, 'variable')}"),
        ]
        left_out = [text for is_so, text in parts if is_so]
        return f"Left out of this file: {'; '.join(left_out)}." if left_out else None


def _event(event: Event, counts: _Counts, *, has_texts: bool) -> dict[str, Any]:
    if not has_texts:
        counts.has_no_texts = True
        line = line_view(event)
        return {**line, "preview": "", "detail": without_texts(line["detail"], LEFT_OUT)}
    if counts.chars > MAX_FULL_CHARS:
        counts.short_events += 1
        return line_view(event)
    full = {**line_view(event), "preview": event.preview, "detail": dict(event.detail)}
    counts.chars += len(_json(full["detail"]))
    return full


async def _variables(service: Service, run_id: str, counts: _Counts, *, has_texts: bool) -> Pieces:
    found = await service.runs.variables(run_id) if has_texts else []
    yield f',"variables":{_json(variables_view(found).model_dump(mode="json"))},"values":{{'
    comma = ""
    for variable in found[:MAX_VALUES]:
        try:
            piece = await service.runs.variable(run_id, variable.name, 0, MAX_VALUE_CHARS)
        except RLMError:  # of a value that was not kept there is a preview alone
            counts.other_values += 1
            continue
        counts.cut_values += piece.end < piece.total
        value = variable_view(variable.name, piece).model_dump(mode="json")
        yield f"{comma}{_json(variable.name)}:{_json(value)}"
        comma = ","
    counts.other_values += max(0, len(found) - MAX_VALUES)
    yield "}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _json(value: Any) -> str:
    return json.dumps(sendable(value), separators=(",", ":"), ensure_ascii=False)
