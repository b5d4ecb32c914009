"""Texts and runs as resources: read in bounded pieces, listed in pages."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.helper_types import ReadResourceContents
from mcp.shared.uri_template import UriTemplate
from mcp_types import (
    Annotations,
    ListResourcesResult,
    PaginatedRequestParams,
    Resource,
    ResourceTemplate,
)

from rlm_mcp.cursors import decode_cursor, encode_cursor, invalid_cursor
from rlm_mcp.errors import InvalidInputError, NotFoundError
from rlm_mcp.server.pending import PendingService
from rlm_mcp.server.results import (
    JSON,
    TEXT,
    beside_all,
    one_line,
    protocol_errors,
    run_uri,
    text_uri,
)
from rlm_mcp.server.sendable import sendable
from rlm_mcp.server.tool import service_in
from rlm_mcp.text import counted, cut, duration

if TYPE_CHECKING:
    from rlm_mcp.service.service import Service
    from rlm_mcp.store.contexts.records import ContextRecord, Passage
    from rlm_mcp.store.runs.records import RunSummary


MAX_CHARS = 50_000
USUAL_CHARS = 20_000
USUAL_EVENTS = 20
MAX_EVENTS = 100
# A page of the list has at most so many texts and so many runs.
PAGE = 50
_LIST = "resources"

Values = Mapping[str, str]


@dataclass(frozen=True)
class Kind:
    """One kind of resource: its URI template, its description, and how it is read."""

    template: str
    name: str
    title: str
    description: str
    mime_type: str
    read: Callable[[Service, Values], Awaitable[ReadResourceContents]]

    def listed(self) -> ResourceTemplate:
        """The kind as a client sees it."""
        return ResourceTemplate(
            uri_template=self.template,
            name=self.name,
            title=self.title,
            description=self.description,
            mime_type=self.mime_type,
        )


async def read_resource(service: Service, uri: str) -> ReadResourceContents:
    """Read a bounded piece of what a URI names.

    Raises:
        NotFoundError: there is no such resource; names similar ones, or the templates.
        InvalidInputError: a parameter of the URI is not a number.
    """
    kind, values = _found(uri)
    if kind is None:
        raise NotFoundError(
            f"There is no resource {uri[:200]!r}.",
            fix=f"The templates are {', '.join(kind.template for kind in KINDS)}.",
        )
    return await kind.read(service, values)


async def resource_version(service: Service, uri: str) -> Hashable:
    """Return a value that differs once the resource has changed."""
    _, values = _found(uri)
    with suppress(NotFoundError):
        if "run_id" in values:
            state = await service.runs.state(values["run_id"])
            return (state.status, state.last_event)
        if "handle" in values:
            return (await service.contexts.passage(values["handle"], 0, 0)).total
    return None


async def list_resources(
    ctx: ServerRequestContext[PendingService, Any], params: PaginatedRequestParams
) -> ListResourcesResult:
    """Return a page of texts and runs, newest first."""
    found: list[tuple[str, Resource]] = []
    more_texts = more_runs = None
    with protocol_errors():
        service = await service_in(ctx)
        texts_from, runs_from = _decoded(params.cursor)
        if texts_from is not None:
            texts = await service.contexts.list(PAGE, texts_from)
            found += [(record.created_at, _text_entry(record)) for record in texts.items]
            more_texts = texts.next_cursor
        if runs_from is not None:
            runs = await service.runs.list(None, PAGE, runs_from)
            found += [(run.created_at, _run_entry(run)) for run in runs.items]
            more_runs = runs.next_cursor
    found.sort(key=lambda entry: entry[0], reverse=True)
    return ListResourcesResult(
        resources=[entry for _, entry in found], next_cursor=_encoded(more_texts, more_runs)
    )


async def _read_text(service: Service, values: Values) -> ReadResourceContents:
    start, limit = _number(values, "start", 0), _number(values, "limit", USUAL_CHARS)
    handle = values["handle"]
    passage = await service.contexts.passage(handle, start, min(limit, MAX_CHARS))
    if (passage.start, passage.end) == (0, passage.total):
        return ReadResourceContents(sendable(passage.text), TEXT)
    text = f"{_warning(handle, passage)}\n\n{passage.text}\n{_place(handle, passage)}"
    return ReadResourceContents(sendable(text), TEXT)


def _warning(handle: str, passage: Passage) -> str:
    """What is put above a piece: some hosts call whatever they read the whole resource."""
    return (
        f"[This is a piece: characters {passage.start:,} to {passage.end:,} of {passage.total:,}. "
        f'For the whole text call rlm_query(question=..., contexts=["{handle}"]).]'
    )


def _place(handle: str, passage: Passage) -> str:
    """Say where a piece is and how to read on."""
    more = "the end"
    if passage.end < passage.total:
        more = f"more: {text_uri(handle)}?start={passage.end}"
    return (
        f"[document {passage.document.index}, {passage.document.name[:200]!r}: characters "
        f"{passage.start} to {passage.end} of {passage.total} in all; {more}]"
    )


async def _read_run(service: Service, values: Values) -> ReadResourceContents:
    from rlm_mcp.server.views import run_view  # noqa: PLC0415  # loaded with the service

    state = await service.runs.state(values["run_id"])
    asked = {
        "question": cut(state.question, MAX_CHARS),
        "contexts": list(state.contexts),
        "created_at": state.created_at,
    }
    return _json({**asked, **run_view(state).model_dump(mode="json", exclude_unset=True)})


async def _read_trace(service: Service, values: Values) -> ReadResourceContents:
    from rlm_mcp.server.views import trace_view  # noqa: PLC0415  # loaded with the service

    after, limit = _number(values, "after", 0), _number(values, "limit", USUAL_EVENTS)
    run_id, limit = values["run_id"], max(1, min(limit, MAX_EVENTS))
    trace = trace_view(await service.runs.events(run_id, after, limit + 1), limit)
    more = trace.next_event and f"{run_uri(run_id)}/trace?after={trace.next_event}"
    return _json({**trace.model_dump(mode="json"), "more": more})


async def _read_variable(service: Service, values: Values) -> ReadResourceContents:
    run_id, name = values["run_id"], values["name"]
    piece = await service.runs.variable(run_id, name, 0, MAX_CHARS)
    if piece.end == piece.total:
        return ReadResourceContents(piece.text, JSON if piece.json else TEXT)
    note = (
        f"[characters 0 to {piece.end} of {piece.total}; more: "
        f'rlm_run_variables(run_id="{run_id}", name="{name}", start={piece.end})]'
    )
    return ReadResourceContents(beside_all(piece.text, note), TEXT)


KINDS = (
    Kind(
        "rlm://contexts/{handle}{?start,limit}",
        "context",
        "A stored text",
        f"Text: a piece of it, by default {USUAL_CHARS:,} characters, from character `start` on, "
        "counted over all its documents; names the URI of the next piece.",
        TEXT,
        _read_text,
    ),
    Kind(
        "rlm://runs/{run_id}",
        "run",
        "A run",
        "Run: question, status, answer and figures of a run; updated while it works.",
        JSON,
        _read_run,
    ),
    Kind(
        "rlm://runs/{run_id}/trace{?after,limit}",
        "trace",
        "What a run did",
        "Trace: the events of a run in full, from after event `after` on; updated while it works.",
        JSON,
        _read_trace,
    ),
    Kind(
        "rlm://runs/{run_id}/variables/{name}",
        "variable",
        "A variable of a run",
        "Variable: its value in a run's REPL, as text or JSON; FINAL is the answer.",
        TEXT,
        _read_variable,
    ),
)


_PARSED = [(kind, UriTemplate.parse(kind.template)) for kind in KINDS]


def _found(uri: str) -> tuple[Kind | None, Values]:
    for kind, template in _PARSED:
        found = template.match(uri)
        if found is not None:
            return kind, {name: text for name, text in found.items() if isinstance(text, str)}
    return None, {}


def _text_entry(record: ContextRecord) -> Resource:
    return Resource(
        uri=text_uri(record.handle),
        name=record.handle,
        title=one_line(record.name),
        # The name first: hosts show this beside the URI, and no title.
        description=f"{one_line(record.name)}: {record.chars:,} characters, "
        f"{counted(record.documents, 'document')}",
        mime_type=TEXT,
        size=record.bytes,
        annotations=Annotations(last_modified=record.created_at),
    )


def _run_entry(run: RunSummary) -> Resource:
    return Resource(
        uri=run_uri(run.run_id),
        name=run.run_id,
        title=one_line(run.question),
        description=f"{one_line(run.question) or 'Code'}: {run.status}, "
        f"{duration(run.elapsed_seconds)}",
        mime_type=JSON,
        annotations=Annotations(last_modified=run.created_at),
    )


def _json(value: dict[str, Any]) -> ReadResourceContents:
    return ReadResourceContents(json.dumps(value, ensure_ascii=False), JSON)


def _number(values: Values, name: str, usual: int) -> int:
    text = values.get(name, "")
    if text and not (text.isascii() and text.isdigit() and len(text) < 19):
        raise InvalidInputError(
            f"{name}={text[:40]!r} is not a number.", fix="Give a whole number, 0 or more."
        )
    return int(text) if text else usual


def _encoded(texts: str | None, runs: str | None) -> str | None:
    return None if texts is None and runs is None else encode_cursor(_LIST, texts, runs)


def _decoded(cursor: str | None) -> tuple[str | None, str | None]:
    """Decode where each list continues: None where it has ended, empty at its start."""
    if cursor is None:
        return "", ""
    match decode_cursor(_LIST, cursor):
        case [str() | None as texts, str() | None as runs]:
            return texts, runs
        case _:
            raise invalid_cursor(cursor)
