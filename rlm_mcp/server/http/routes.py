"""Routes beside MCP: texts in and out, the events of a run, and a health check."""

from __future__ import annotations

import unicodedata
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from email.message import Message
from urllib.parse import unquote_to_bytes

from sse_starlette.event import ServerSentEvent
from sse_starlette.sse import EventSourceResponse
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from rlm_mcp import __version__
from rlm_mcp.errors import InvalidInputError
from rlm_mcp.server.http.addresses import CONTEXTS, HEALTH, PING_SECONDS, UPLOADS
from rlm_mcp.server.http.answers import json_answer, refusal
from rlm_mcp.server.http.ranges import asked_part, is_known
from rlm_mcp.server.views import added_view, event_view
from rlm_mcp.service.contexts.decompression import CODINGS
from rlm_mcp.service.contexts.transfers import Body, check_sha256
from rlm_mcp.service.service import Service
from rlm_mcp.store.runs.records import Event

_LARGEST_EVENT = (1 << 63) - 1


def make_routes() -> list[Route]:
    """Return the routes; they find the service at `app.state.service`."""
    return [
        Route(HEALTH, tell_health, methods=["GET"]),
        Route(f"{CONTEXTS}{{name:path}}", put_context, methods=["PUT"]),
        Route(f"{CONTEXTS}{{handle}}", get_context, methods=["GET"]),
        Route(f"{UPLOADS}{{secret}}", put_upload, methods=["PUT"]),
        Route("/runs/{run_id}/events", stream_events, methods=["GET"]),
    ]


async def tell_health(request: Request) -> Response:
    """Say that the server is alive, and its version."""
    del request
    return JSONResponse({"status": "ok", "version": __version__})


async def put_context(request: Request) -> Response:
    """Store the body under a name."""
    name, sha256 = _name(request), request.headers.get("x-content-sha256", "")
    return await _store(request, _service(request), name, sha256)


async def put_upload(request: Request) -> Response:
    """Store the body for the caller who made this URL."""
    service, ticket = await request.app.state.service.redeem(request.path_params["secret"])
    sha256 = check_sha256(request.headers.get("x-content-sha256", ""))
    if sha256 and ticket.sha256 and sha256 != ticket.sha256:
        raise InvalidInputError(
            f"The URL was made for a text with the SHA-256 {ticket.sha256!r}, not {sha256!r}.",
            fix="Send that text, or ask for a URL for this one.",
        )
    return await _store(request, service, ticket.name, ticket.sha256 or sha256)


async def _store(request: Request, service: Service, name: str, sha256: str) -> Response:
    coding = request.headers.get("content-encoding", "").strip().lower()
    coding = "" if coding == "identity" else coding.removeprefix("x-")
    if coding and coding not in CODINGS:
        headers = {"accept-encoding": ", ".join(CODINGS)}
        refused = f"The Content-Encoding {coding[:100]!r} is not supported."
        fix = f"Use {' or '.join(CODINGS)}, or send the text as it is."
        return refusal(415, refused, fix=fix, headers=headers)
    size = int(request.headers.get("content-length", 0))
    body = Body(request.stream(), coding, _charset(request), size)
    added = added_view(await service.transfers.receive(name, body, sha256))
    return json_answer(added, 201, {"location": f"{CONTEXTS}{added.handle}"})


def _charset(request: Request) -> str:
    message = Message()  # `EmailMessage` fails at `charset*` without a value
    message["content-type"] = request.headers.get("content-type", "")
    return message.get_content_charset("")


async def get_context(request: Request) -> Response:
    """Answer with a text's UTF-8, whole or a range of it."""
    transfers, handle = _service(request).transfers, request.path_params["handle"]
    record = await transfers.record(handle)
    etag = f'"{record.sha256}"'
    headers = {
        "accept-ranges": "bytes",
        "cache-control": "private, no-cache",
        "etag": etag,
        "x-content-type-options": "nosniff",
    }
    if is_known(request.headers, etag):
        return Response(status_code=304, headers=headers)
    part = asked_part(request.headers, record.bytes, etag)
    if not part.is_whole:
        headers["content-range"] = part.header
    if part.is_outside:
        return Response(status_code=416, headers=headers)
    headers["content-length"] = str(part.end - part.start)
    status, kind = 200 if part.is_whole else 206, "text/plain"
    if request.method == "HEAD":
        return Response(None, status, headers, kind)
    pieces = transfers.pieces(handle, part.start, part.end)
    return StreamingResponse(pieces, status, headers, kind)


async def stream_events(request: Request) -> Response:
    """Send a run's events as they are recorded, from the one after `Last-Event-ID` on."""
    runs, run_id = _service(request).runs, request.path_params["run_id"]
    after = _last_event(request)
    state = await runs.state(run_id)
    if state.status != "running" and state.last_event <= after:
        return Response(status_code=204)  # which tells a browser not to connect again
    return EventSourceResponse(_sent(runs.follow(run_id, after)), ping=PING_SECONDS, sep="\n")


async def _sent(pages: AsyncGenerator[Sequence[Event]]) -> AsyncGenerator[ServerSentEvent]:
    async with aclosing(pages):
        async for events in pages:
            for event in events:
                data = event_view(event).model_dump_json()
                yield ServerSentEvent(data, event=event.type, id=str(event.seq))


def _service(request: Request) -> Service:
    return request.app.state.service.as_caller(request.state.caller)


def _last_event(request: Request) -> int:
    text = request.headers.get("last-event-id") or request.query_params.get("after", "0")
    if text.isascii() and text.isdigit() and len(text) < 20:
        return min(int(text), _LARGEST_EVENT)
    raise InvalidInputError(
        f"Last-Event-ID {text[:40]!r} is not the number of an event.", fix="Leave it out for all."
    )


def _name(request: Request) -> str:
    """Read the name from the raw path, before invalid bytes are replaced."""
    raw: bytes = request.scope["raw_path"]
    try:
        name = unquote_to_bytes(raw.removeprefix(CONTEXTS.encode())).decode()
    except UnicodeDecodeError as error:
        raise InvalidInputError(
            f"The name {raw[:100]!r} is not UTF-8.",
            fix="Encode it as UTF-8, then by percent signs.",
        ) from error
    if not name or any(unicodedata.category(one) in ("Cc", "Zl", "Zp") for one in name):
        raise InvalidInputError(
            f"The name {name[:100]!r} is empty or has control characters.",
            fix="PUT /contexts/NAME with a name of one line.",
        )
    return name
