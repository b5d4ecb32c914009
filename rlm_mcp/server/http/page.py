"""The page: its files, the stream that keeps it up to date, and runs to save."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial

import anyio
from sse_starlette.event import ServerSentEvent
from sse_starlette.sse import EventSourceResponse
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from rlm_mcp.errors import InvalidInputError, NotFoundError
from rlm_mcp.server.http.addresses import PAGE, PAGE_FILES, PING_SECONDS
from rlm_mcp.server.http.ranges import is_known
from rlm_mcp.server.view.bundle import INDEX, open_bundle
from rlm_mcp.server.view.lines import line_view
from rlm_mcp.server.view.run_file import FORMATS, run_file
from rlm_mcp.service.service import Service
from rlm_mcp.store.runs.records import Event

CHANGED_SECONDS = 2.0
LINES_A_MESSAGE = 50

# Nothing inline, nothing from elsewhere, in nobody's frame, and no HTML made from strings.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def page_routes() -> list[Route]:
    """Return the routes; they find the service at `app.state.service`."""
    return [
        Route(PAGE, show_page, methods=["GET"]),
        Route(f"{PAGE_FILES}{{name}}", show_page, methods=["GET"]),
        Route("/events", stream_news, methods=["GET"]),
        Route("/runs/{run_id}/export", export_run, methods=["GET"]),
    ]


async def show_page(request: Request) -> Response:
    """Answer with a file of the page."""
    name = request.path_params.get("name", INDEX)
    bundle = await open_bundle()
    if name not in bundle:
        raise NotFoundError(f"The page has no file {name[:100]!r}.", fix="The page itself is at /.")
    file = bundle[name]
    headers = {**_HEADERS, "etag": file.etag}
    if is_known(request.headers, file.etag):
        return Response(status_code=304, headers=headers)
    return Response(file.text, 200, headers, file.media_type)


async def export_run(request: Request) -> Response:
    """Answer with a run as one file."""
    service = request.app.state.service.as_caller(request.state.caller)
    run_id, wanted = request.path_params["run_id"], request.query_params.get("format", "html")
    if wanted not in FORMATS:
        raise InvalidInputError(
            f"There is no format {wanted[:40]!r}.", fix=f"Use one of {', '.join(FORMATS)}."
        )
    made = await run_file(service, run_id, wanted)
    headers = {
        "cache-control": "no-store",
        "content-disposition": f'attachment; filename="{made.name}"',
        "x-content-type-options": "nosniff",
    }
    return StreamingResponse(made.pieces, 200, headers, made.media_type)


@dataclass(frozen=True)
class _Place:
    """Where a page is in a run's log; without a run it follows the store alone.

    `text` says that it also wants what the root model writes.
    """

    run_id: str = ""
    after: int = 0
    text: bool = False


async def stream_news(request: Request) -> Response:
    """Say when runs or texts change, and send the lines of the run that the page shows."""
    service: Service = request.app.state.service.as_caller(request.state.caller)
    place = _asked_place(request)
    if place.run_id:
        await service.runs.state(place.run_id)  # raises where there is no such run
    news = _news(service, place, request.state.stopping)
    return EventSourceResponse(news, ping=PING_SECONDS, sep="\n")


def _asked_place(request: Request) -> _Place:
    """Read where to begin; `Last-Event-ID` is `run:number` and wins."""
    run_id = request.query_params.get("run", "")
    after = request.query_params.get("after", "0")
    last_run, _, last_event = request.headers.get("last-event-id", "").partition(":")
    if run_id and last_run == run_id:
        after = last_event
    if not (after.isascii() and after.isdigit() and len(after) < 16):
        raise InvalidInputError(
            f"{after[:40]!r} is not the number of an event.", fix="Leave `after` out for all."
        )
    return _Place(run_id, int(after), request.query_params.get("text") == "1")


async def _news(
    service: Service, place: _Place, stopping: anyio.Event
) -> AsyncGenerator[ServerSentEvent]:
    """Yield events for the page, as long as it listens and the server serves."""
    watching = service.runs.watch_text(place.run_id) if place.text else nullcontext()
    with watching as watch:
        after, told_version, told_at = place.after, -1, -CHANGED_SECONDS
        while True:
            version = await service.version()
            while events := await _events(service, place.run_id, after):
                after = events[-1].seq
                yield _lines(place.run_id, events)
            if watch and (piece := watch.take()):
                yield ServerSentEvent(json.dumps(asdict(piece)), event="text")
            if stopping.is_set():
                return
            now = anyio.current_time()
            if version != told_version and now - told_at >= CHANGED_SECONDS:
                told_version, told_at = version, now
                yield ServerSentEvent(str(version), event="changed")
            # A change that was held back is sent as soon as it may be.
            waits = [partial(service.changed, version), stopping.wait]
            with anyio.move_on_after(PING_SECONDS if version == told_version else CHANGED_SECONDS):
                await _first_of(*waits, *([watch.wait] if watch else ()))


async def _events(service: Service, run_id: str, after: int) -> Sequence[Event]:
    return await service.runs.events(run_id, after, LINES_A_MESSAGE) if run_id else ()


async def _first_of(*waits: Callable[[], Awaitable[object]]) -> None:
    """Return when one of several waits is over."""
    async with anyio.create_task_group() as tasks:

        async def watch(wait: Callable[[], Awaitable[object]]) -> None:
            await wait()
            tasks.cancel_scope.cancel()

        for wait in waits:
            tasks.start_soon(watch, wait)


def _lines(run_id: str, events: Sequence[Event]) -> ServerSentEvent:
    data = json.dumps([line_view(event) for event in events], separators=(",", ":"))
    return ServerSentEvent(data, event="lines", id=f"{run_id}:{events[-1].seq}")
