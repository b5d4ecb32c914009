"""`GET /metrics`: what the server does, as Prometheus reads it."""

from __future__ import annotations

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rlm_mcp.server.http.addresses import METRICS
from rlm_mcp.server.http.answers import refusal
from rlm_mcp.service.measures import Measures
from rlm_mcp.service.service import Service

# The text format that every version of Prometheus reads.
_MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def metrics_routes() -> list[Route]:
    """Return the route; it finds the service at `app.state.service`."""
    return [Route(METRICS, show_metrics, methods=["GET"])]


async def show_metrics(request: Request) -> Response:
    """Answer with the numbers of the whole server, or with those of a named caller alone."""
    service: Service = request.app.state.service.as_caller(request.state.caller)
    measures = await service.measures()
    try:
        text = await anyio.to_thread.run_sync(_written, measures)
    except ModuleNotFoundError:
        return refusal(
            501,
            "The package that writes metrics, prometheus-client, is not installed.",
            fix="Install it beside the server: pip install 'rlm-mcp[metrics]'.",
        )
    return Response(text, headers={"cache-control": "no-store"}, media_type=_MEDIA_TYPE)


def _written(measures: Measures) -> bytes:
    """Load the library, which is an extra, when it is first used, and write; blocks."""
    from rlm_mcp.server.http.prometheus import write_metrics  # noqa: PLC0415  # an extra

    return write_metrics(measures)
